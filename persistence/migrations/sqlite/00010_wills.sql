-- +goose Up

-- What is to be done for sessions whose connection is lost: one row per connection that has a will. sender_id is the user, or
-- minus the service; node the gateway that has the connection, which began at opened_at. due_at is NULL while the connection
-- lasts; then it is when the will is carried out, by whoever deletes the row. delay is in seconds. forgiving: whatever
-- connection the device begins before that, it is not. publish is the will itself, as JSON.
CREATE TABLE wills (
    id        text    NOT NULL PRIMARY KEY,
    sender_id integer NOT NULL,
    device    text    NOT NULL,
    node      text    NOT NULL,
    opened_at integer NOT NULL,
    delay     integer NOT NULL,
    due_at    integer,
    forgiving boolean NOT NULL DEFAULT false,
    publish   blob    NOT NULL
);
CREATE INDEX wills_device ON wills (sender_id, device);
CREATE INDEX wills_due ON wills (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX wills_node ON wills (node, id) WHERE due_at IS NULL;
