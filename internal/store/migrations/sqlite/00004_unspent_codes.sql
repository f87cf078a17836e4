-- +goose Up
CREATE INDEX grant_codes_unspent ON grant_codes (expires) WHERE NOT spent;
