-- +goose Up

-- What services tell users outside of conversations. client_id is the sender's own id of it, or was made up for it.
CREATE TABLE announcements (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         uuid   NOT NULL,
    root_id    bigint NOT NULL,
    sender_id  bigint NOT NULL,
    client_id  text   NOT NULL,
    payload    bytea  NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    UNIQUE (sender_id, client_id)
);
CREATE INDEX announcements_expired ON announcements (expires_at);

-- Whom they are for. read_at is NULL until the user has marked it as read.
CREATE TABLE announced (
    user_id bigint NOT NULL REFERENCES users (id),
    number  bigint NOT NULL REFERENCES announcements (number) ON DELETE CASCADE,
    read_at bigint,
    PRIMARY KEY (user_id, number)
);
CREATE INDEX announced_number ON announced (number);
CREATE INDEX announced_unread ON announced (user_id, number) WHERE read_at IS NULL;

-- What services want sent at a time. conversation_id is NULL for announcements; body is the command, until it was carried out
-- or came to nothing. state: 0 to be sent, 1 sent, 2 refused, 3 cancelled. taken_until is set once a gateway has begun to send
-- it: until then no other one does. user_id is on whose behalf it is sent, 0 for nobody; service_id is 0 for the admin key.
CREATE TABLE scheduled (
    id              uuid     NOT NULL PRIMARY KEY,
    root_id         bigint   NOT NULL,
    account_id      bigint   NOT NULL,
    service_id      bigint   NOT NULL,
    service_name    text     NOT NULL,
    user_id         bigint   NOT NULL,
    username        text     NOT NULL,
    conversation_id uuid,
    client_id       text     NOT NULL,
    body            bytea,
    due_at          bigint   NOT NULL,
    created_at      bigint   NOT NULL,
    state           smallint NOT NULL DEFAULT 0,
    taken_until     bigint,
    finished_at     bigint,
    outcome         bytea
);
CREATE INDEX scheduled_due ON scheduled (state, due_at);
CREATE INDEX scheduled_account ON scheduled (account_id, state);
CREATE INDEX scheduled_list ON scheduled (root_id, state, due_at, id);
CREATE INDEX scheduled_message ON scheduled (conversation_id, client_id);
CREATE INDEX scheduled_finished ON scheduled (finished_at) WHERE finished_at IS NOT NULL;
