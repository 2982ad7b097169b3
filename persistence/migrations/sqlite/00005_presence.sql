-- +goose Up

-- Who has subscribed to whom: user_id is told of changes of watched_id.
CREATE TABLE watches (
    user_id    integer NOT NULL REFERENCES users (id),
    watched_id integer NOT NULL REFERENCES users (id),
    PRIMARY KEY (user_id, watched_id)
) WITHOUT ROWID;
CREATE INDEX watches_watched ON watches (watched_id, user_id);

-- When users were last seen. node is the process where others see the user online: then the last beat of the node counts,
-- if it is later. Who has no row was never seen.
CREATE TABLE presence (
    user_id   integer PRIMARY KEY REFERENCES users (id),
    last_seen integer NOT NULL,
    node      text
);
CREATE INDEX presence_node ON presence (node) WHERE node IS NOT NULL;
