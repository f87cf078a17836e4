-- +goose Up
ALTER TABLE sessions ADD COLUMN hint BYTEA;
