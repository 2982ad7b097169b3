-- +goose Up

-- The gateway processes, by the last time that each said it lives.
CREATE TABLE nodes (
    id      text   PRIMARY KEY,
    beat_at bigint NOT NULL
);

-- The durable sessions: what is kept of a device between its connections. expiry is in seconds, 4294967295 is for ever.
-- node is the process that has the connection. expires_at is NULL while there is one, or if the session never expires; with
-- a node it means that the node was taken for dead. opened_at is when the present or last connection began, created_at
-- when that one began which made the session.
CREATE TABLE sessions (
    id            bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       bigint   NOT NULL REFERENCES users (id),
    device        text     NOT NULL,
    version       smallint NOT NULL,
    expiry        bigint   NOT NULL,
    subscriptions bytea    NOT NULL,
    node          text,
    created_at    bigint   NOT NULL,
    opened_at     bigint   NOT NULL,
    expires_at    bigint,
    UNIQUE (user_id, device)
);
CREATE INDEX sessions_expires ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sessions_node ON sessions (node, expires_at) WHERE node IS NOT NULL;

-- Up to which event a session has acknowledged a conversation. There is no foreign key to sessions, which would be looked up
-- for every row: whoever inserts here has locked the session. The rows are updated all the time and find room on their page.
CREATE TABLE cursors (
    session_id      bigint NOT NULL,
    conversation_id uuid   NOT NULL,
    seq             bigint NOT NULL,
    PRIMARY KEY (session_id, conversation_id)
) WITH (fillfactor = 80);

-- Delivered marks are updated often, and their index entries need not be.
ALTER TABLE participants SET (fillfactor = 80);

-- Gives a user's memberships in the order of conversations, so that they can be read page by page, without the table.
CREATE INDEX memberships_order ON memberships (user_id, conversation_id, from_seq) INCLUDE (to_seq);
DROP INDEX memberships_user;
