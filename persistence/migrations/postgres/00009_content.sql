-- +goose Up

-- External content: what parts of messages name instead of having it. received counts the bytes that have come, of size;
-- digest is the state of SHA-256 after them, sha256 what it shall come to, or has come to. unused_since is NULL while messages
-- have the content, 0 once it is gone for everybody. Times are milliseconds since 1970.
CREATE TABLE contents (
    id           text    NOT NULL PRIMARY KEY,
    root_id      bigint  NOT NULL,
    owner_id     bigint  NOT NULL,
    mime_type    text    NOT NULL,
    size         bigint  NOT NULL,
    sha256       text    NOT NULL,
    received     bigint  NOT NULL,
    digest       bytea,
    created_at   bigint  NOT NULL,
    unused_since bigint
);
CREATE INDEX contents_owner ON contents (owner_id, received, size);
CREATE INDEX contents_unused ON contents (unused_since) WHERE unused_since IS NOT NULL;

-- Where the bytes are, in pieces that never change. A piece is noted before it is written, with the time at which it is to be
-- removed (doomed_at), which it loses when it becomes a part of its content: none is ever forgotten.
CREATE TABLE content_blobs (
    key        text    NOT NULL PRIMARY KEY,
    content_id text    NOT NULL,
    start      bigint,
    size       bigint,
    doomed_at  bigint
);
CREATE INDEX content_blobs_content ON content_blobs (content_id, start);
CREATE INDEX content_blobs_doomed ON content_blobs (doomed_at) WHERE doomed_at IS NOT NULL;

-- Which messages have which content; a message is named by its idempotency key, which it has before it is stored. settled: it
-- was looked whether it came to be stored.
CREATE TABLE content_uses (
    content_id      text    NOT NULL REFERENCES contents (id) ON DELETE CASCADE,
    conversation_id uuid    NOT NULL,
    sender_id       bigint  NOT NULL,
    client_id       text    NOT NULL,
    created_at      bigint  NOT NULL,
    settled         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (content_id, conversation_id, sender_id, client_id)
);
CREATE INDEX content_uses_message ON content_uses (conversation_id, sender_id, client_id);
CREATE INDEX content_uses_unsettled ON content_uses (created_at) WHERE NOT settled;
