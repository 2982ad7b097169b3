-- +goose Up

-- A main account has no parent, a child account has a main account as its parent.
CREATE TABLE accounts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text   NOT NULL UNIQUE,
    parent_id  bigint REFERENCES accounts (id)
);

CREATE TABLE applications (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts (id),
    name       text   NOT NULL,
    UNIQUE (account_id, name)
);

-- search_name is the display name in lower case. Access tokens issued up to tokens_from are no longer good.
-- All times are milliseconds since 1970.
CREATE TABLE users (
    id                  bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username            text    NOT NULL UNIQUE,
    application_id      bigint  NOT NULL REFERENCES applications (id),
    display_name        text    NOT NULL,
    search_name         text    NOT NULL,
    custom_data         bytea,
    private_custom_data bytea,
    password_hash       text    NOT NULL,
    notifications       text    NOT NULL DEFAULT '[]',
    tokens_from         bigint  NOT NULL DEFAULT 0,
    deleted             boolean NOT NULL DEFAULT false,
    created_at          bigint  NOT NULL
);

CREATE TABLE services (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts (id),
    name       text   NOT NULL,
    key_hash   bytea  NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    UNIQUE (account_id, name)
);

-- The heads: the rows that every write to a conversation locks and updates. Nothing else belongs into this table, so
-- that its updates touch no index and find room on their page.
CREATE TABLE conversations (
    id       uuid   PRIMARY KEY,
    last_seq bigint NOT NULL,
    version  bigint NOT NULL
) WITH (fillfactor = 50);

-- permissions, here and below: the bits of persistence/columns.go.
CREATE TABLE conversation_data (
    id          uuid    PRIMARY KEY,
    root_id     bigint  NOT NULL,
    account_id  bigint  NOT NULL,
    title       text    NOT NULL,
    direct      boolean NOT NULL,
    is_distinct boolean NOT NULL,
    uber        boolean NOT NULL,
    public_join boolean NOT NULL,
    policy      text    NOT NULL,
    custom_data bytea,
    permissions integer NOT NULL,
    created_at  bigint  NOT NULL,
    updated_at  bigint  NOT NULL,
    unique_key  text    UNIQUE,
    removed     boolean NOT NULL
);

-- Who takes part now, in the order of position.
CREATE TABLE participants (
    conversation_id uuid    NOT NULL,
    user_id         bigint  NOT NULL REFERENCES users (id),
    permissions     integer NOT NULL,
    last_read       bigint  NOT NULL,
    last_delivered  bigint  NOT NULL,
    joined_seq      bigint  NOT NULL,
    position        bigint  NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX participants_user ON participants (user_id);

-- Who took part when: from the event by which a user joined to the one by which it left, both included.
CREATE TABLE memberships (
    conversation_id uuid   NOT NULL,
    user_id         bigint NOT NULL REFERENCES users (id),
    from_seq        bigint NOT NULL,
    to_seq          bigint,
    PRIMARY KEY (conversation_id, user_id, from_seq)
);
CREATE INDEX memberships_user ON memberships (user_id);

-- The logs. kind: see persistence/columns.go. about is the id of the message that an editMessage or removeMessage event is
-- about. There is no foreign key to conversations: whoever writes here has locked the head.
CREATE TABLE events (
    conversation_id uuid     NOT NULL,
    seq             bigint   NOT NULL,
    sender_id       bigint   NOT NULL,
    client_id       text,
    kind            smallint NOT NULL,
    about           uuid,
    created_at      bigint   NOT NULL,
    payload         bytea    NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);
-- The idempotency key. The conversation is in it as an expression because the planner, where most conversations are
-- short, finds the primary key as good for looking one up: it then reads the whole of a long conversation.
CREATE UNIQUE INDEX events_client ON events (uuid_send(conversation_id), sender_id, client_id);
-- Finds what a repeated change has committed. Messages (kind 4), which are nearly all events, have no entry: their client
-- ids are chosen by clients, and so unique only within the idempotency key.
CREATE UNIQUE INDEX events_change ON events (client_id) WHERE kind <> 4;
CREATE INDEX events_about ON events (about) WHERE about IS NOT NULL;

CREATE TABLE token_families (
    id         uuid    PRIMARY KEY,
    user_id    bigint  NOT NULL REFERENCES users (id),
    revoked    boolean NOT NULL DEFAULT false,
    expires_at bigint  NOT NULL
);
CREATE INDEX token_families_user ON token_families (user_id);
CREATE INDEX token_families_expires ON token_families (expires_at);

CREATE TABLE refresh_tokens (
    hash       bytea   PRIMARY KEY,
    family_id  uuid    NOT NULL REFERENCES token_families (id) ON DELETE CASCADE,
    used       boolean NOT NULL DEFAULT false,
    expires_at bigint  NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);

CREATE TABLE signing_keys (
    id          text   PRIMARY KEY,
    private_key bytea  NOT NULL,
    created_at  bigint NOT NULL,
    ends_at     bigint NOT NULL
);

CREATE TABLE settings (
    name  text  PRIMARY KEY,
    value bytea NOT NULL
);

-- Answers to HTTP requests that carried an Idempotency-Key.
CREATE TABLE remembered (
    scope        text    NOT NULL,
    key          text    NOT NULL,
    fingerprint  bytea   NOT NULL,
    status       integer NOT NULL,
    content_type text    NOT NULL,
    body         bytea   NOT NULL,
    created_at   bigint  NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX remembered_created ON remembered (created_at);
