-- +goose Up

-- What hashes of one-time keys are keyed with: made when a backend asks for it.
CREATE TABLE one_time_secrets (
    user_id integer NOT NULL PRIMARY KEY REFERENCES users (id),
    secret  text    NOT NULL
);

-- One-time keys that somebody has logged in with, as SHA-256, until they expire. Those not used are kept nowhere.
CREATE TABLE used_keys (
    hash       blob    NOT NULL PRIMARY KEY,
    expires_at integer NOT NULL
);
CREATE INDEX used_keys_expires ON used_keys (expires_at);
