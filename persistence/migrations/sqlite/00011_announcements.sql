-- +goose Up

-- What services tell users outside of conversations. client_id is the sender's own id of it, or was made up for it.
CREATE TABLE announcements (
    number     integer PRIMARY KEY AUTOINCREMENT,
    id         blob    NOT NULL,
    root_id    integer NOT NULL,
    sender_id  integer NOT NULL,
    client_id  text    NOT NULL,
    payload    blob    NOT NULL,
    created_at integer NOT NULL,
    expires_at integer NOT NULL,
    UNIQUE (sender_id, client_id)
);
CREATE INDEX announcements_expired ON announcements (expires_at);

-- Whom they are for. read_at is NULL until the user has marked it as read.
CREATE TABLE announced (
    user_id integer NOT NULL REFERENCES users (id),
    number  integer NOT NULL REFERENCES announcements (number) ON DELETE CASCADE,
    read_at integer,
    PRIMARY KEY (user_id, number)
);
CREATE INDEX announced_number ON announced (number);
CREATE INDEX announced_unread ON announced (user_id, number) WHERE read_at IS NULL;

-- What services want sent at a time. conversation_id is NULL for announcements; body is the command, until it was carried out
-- or came to nothing. state: 0 to be sent, 1 sent, 2 refused, 3 cancelled. taken_until is set once a gateway has begun to send
-- it: until then no other one does. user_id is on whose behalf it is sent, 0 for nobody; service_id is 0 for the admin key.
CREATE TABLE scheduled (
    id              blob    NOT NULL PRIMARY KEY,
    root_id         integer NOT NULL,
    account_id      integer NOT NULL,
    service_id      integer NOT NULL,
    service_name    text    NOT NULL,
    user_id         integer NOT NULL,
    username        text    NOT NULL,
    conversation_id blob,
    client_id       text    NOT NULL,
    body            blob,
    due_at          integer NOT NULL,
    created_at      integer NOT NULL,
    state           integer NOT NULL DEFAULT 0,
    taken_until     integer,
    finished_at     integer,
    outcome         blob
);
CREATE INDEX scheduled_due ON scheduled (state, due_at);
CREATE INDEX scheduled_account ON scheduled (account_id, state);
CREATE INDEX scheduled_list ON scheduled (root_id, state, due_at, id);
CREATE INDEX scheduled_message ON scheduled (conversation_id, client_id);
CREATE INDEX scheduled_finished ON scheduled (finished_at) WHERE finished_at IS NOT NULL;
