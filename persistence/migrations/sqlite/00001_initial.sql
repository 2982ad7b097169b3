-- +goose Up

-- A main account has no parent, a child account has a main account as its parent.
CREATE TABLE accounts (
    id        integer PRIMARY KEY AUTOINCREMENT,
    name      text    NOT NULL UNIQUE,
    parent_id integer REFERENCES accounts (id)
);

CREATE TABLE applications (
    id         integer PRIMARY KEY AUTOINCREMENT,
    account_id integer NOT NULL REFERENCES accounts (id),
    name       text    NOT NULL,
    UNIQUE (account_id, name)
);

-- search_name is the display name in lower case. Access tokens issued up to tokens_from are no longer good.
-- All times are milliseconds since 1970.
CREATE TABLE users (
    id                  integer PRIMARY KEY AUTOINCREMENT,
    username            text    NOT NULL UNIQUE,
    application_id      integer NOT NULL REFERENCES applications (id),
    display_name        text    NOT NULL,
    search_name         text    NOT NULL,
    custom_data         blob,
    private_custom_data blob,
    password_hash       text    NOT NULL,
    notifications       text    NOT NULL DEFAULT '[]',
    tokens_from         integer NOT NULL DEFAULT 0,
    deleted             boolean NOT NULL DEFAULT false,
    created_at          integer NOT NULL
);

CREATE TABLE services (
    id         integer PRIMARY KEY AUTOINCREMENT,
    account_id integer NOT NULL REFERENCES accounts (id),
    name       text    NOT NULL,
    key_hash   blob    NOT NULL UNIQUE,
    created_at integer NOT NULL,
    UNIQUE (account_id, name)
);

-- The heads: the rows that every write to a conversation updates.
CREATE TABLE conversations (
    id       blob    NOT NULL PRIMARY KEY,
    last_seq integer NOT NULL,
    version  integer NOT NULL
) WITHOUT ROWID;

-- permissions, here and below: the bits of persistence/columns.go.
CREATE TABLE conversation_data (
    id          blob    NOT NULL PRIMARY KEY,
    root_id     integer NOT NULL,
    account_id  integer NOT NULL,
    title       text    NOT NULL,
    direct      boolean NOT NULL,
    is_distinct boolean NOT NULL,
    uber        boolean NOT NULL,
    public_join boolean NOT NULL,
    policy      text    NOT NULL,
    custom_data blob,
    permissions integer NOT NULL,
    created_at  integer NOT NULL,
    updated_at  integer NOT NULL,
    unique_key  text    UNIQUE,
    removed     boolean NOT NULL
);

-- Who takes part now, in the order of position.
CREATE TABLE participants (
    conversation_id blob    NOT NULL,
    user_id         integer NOT NULL REFERENCES users (id),
    permissions     integer NOT NULL,
    last_read       integer NOT NULL,
    last_delivered  integer NOT NULL,
    joined_seq      integer NOT NULL,
    position        integer NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX participants_user ON participants (user_id);

-- Who took part when: from the event by which a user joined to the one by which it left, both included.
CREATE TABLE memberships (
    conversation_id blob    NOT NULL,
    user_id         integer NOT NULL REFERENCES users (id),
    from_seq        integer NOT NULL,
    to_seq          integer,
    PRIMARY KEY (conversation_id, user_id, from_seq)
);
CREATE INDEX memberships_user ON memberships (user_id);

-- The logs. kind: see persistence/columns.go. about is the id of the message that an editMessage or removeMessage event is
-- about. The table has a rowid on purpose: WITHOUT ROWID would read a third faster, but write a third slower.
CREATE TABLE events (
    conversation_id blob    NOT NULL,
    seq             integer NOT NULL,
    sender_id       integer NOT NULL,
    client_id       text,
    kind            integer NOT NULL,
    about           blob,
    created_at      integer NOT NULL,
    payload         blob    NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE (conversation_id, sender_id, client_id)
);
-- Finds what a repeated change has committed. Messages (kind 4), which are nearly all events, have no entry: their client
-- ids are chosen by clients, and so unique only within the idempotency key.
CREATE UNIQUE INDEX events_change ON events (client_id) WHERE kind <> 4;
CREATE INDEX events_about ON events (about) WHERE about IS NOT NULL;

CREATE TABLE token_families (
    id         blob    NOT NULL PRIMARY KEY,
    user_id    integer NOT NULL REFERENCES users (id),
    revoked    boolean NOT NULL DEFAULT false,
    expires_at integer NOT NULL
);
CREATE INDEX token_families_user ON token_families (user_id);
CREATE INDEX token_families_expires ON token_families (expires_at);

CREATE TABLE refresh_tokens (
    hash       blob    NOT NULL PRIMARY KEY,
    family_id  blob    NOT NULL REFERENCES token_families (id) ON DELETE CASCADE,
    used       boolean NOT NULL DEFAULT false,
    expires_at integer NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

CREATE TABLE signing_keys (
    id          text    NOT NULL PRIMARY KEY,
    private_key blob    NOT NULL,
    created_at  integer NOT NULL,
    ends_at     integer NOT NULL
);

CREATE TABLE settings (
    name  text NOT NULL PRIMARY KEY,
    value blob NOT NULL
);

-- Answers to HTTP requests that carried an Idempotency-Key.
CREATE TABLE remembered (
    scope        text    NOT NULL,
    key          text    NOT NULL,
    fingerprint  blob    NOT NULL,
    status       integer NOT NULL,
    content_type text    NOT NULL,
    body         blob    NOT NULL,
    created_at   integer NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX remembered_created ON remembered (created_at);
