-- +goose Up
ALTER TABLE sessions ADD COLUMN hint BLOB;
