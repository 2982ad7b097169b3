-- +goose Up

-- Users and services some or all of whose logins were ended, with when that was last: a user, or a service of the tree of a
-- main account; what is not meant is 0.
CREATE TABLE endings (
    user_id    integer NOT NULL,
    service_id integer NOT NULL,
    root_id    integer NOT NULL,
    at         integer NOT NULL,
    PRIMARY KEY (user_id, service_id)
);
CREATE INDEX endings_at ON endings (at);
