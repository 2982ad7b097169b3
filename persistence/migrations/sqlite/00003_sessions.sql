-- +goose Up

-- The gateway processes, by the last time that each said it lives.
CREATE TABLE nodes (
    id      text    NOT NULL PRIMARY KEY,
    beat_at integer NOT NULL
);

-- The durable sessions: what is kept of a device between its connections. expiry is in seconds, 4294967295 is for ever.
-- node is the process that has the connection. expires_at is NULL while there is one, or if the session never expires; with
-- a node it means that the node was taken for dead. opened_at is when the present or last connection began, created_at
-- when that one began which made the session.
CREATE TABLE sessions (
    id            integer PRIMARY KEY AUTOINCREMENT,
    user_id       integer NOT NULL REFERENCES users (id),
    device        text    NOT NULL,
    version       integer NOT NULL,
    expiry        integer NOT NULL,
    subscriptions blob    NOT NULL,
    node          text,
    created_at    integer NOT NULL,
    opened_at     integer NOT NULL,
    expires_at    integer,
    UNIQUE (user_id, device)
);
CREATE INDEX sessions_expires ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sessions_node ON sessions (node, expires_at) WHERE node IS NOT NULL;

-- Up to which event a session has acknowledged a conversation. What is acknowledged at a time is mostly a few conversations
-- by many sessions: rows of a conversation lie together, so that few pages are written.
CREATE TABLE cursors (
    session_id      integer NOT NULL,
    conversation_id blob    NOT NULL,
    seq             integer NOT NULL,
    PRIMARY KEY (conversation_id, session_id)
) WITHOUT ROWID;
CREATE INDEX cursors_session ON cursors (session_id);

-- Gives a user's memberships in the order of conversations, so that they can be read page by page, without the table.
CREATE INDEX memberships_order ON memberships (user_id, conversation_id, from_seq, to_seq);
DROP INDEX memberships_user;
