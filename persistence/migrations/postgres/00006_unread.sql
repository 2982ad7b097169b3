-- +goose Up

-- When the marks were last set; 0: not yet. Milliseconds since 1970.
ALTER TABLE participants ADD COLUMN last_read_at bigint NOT NULL DEFAULT 0, ADD COLUMN last_delivered_at bigint NOT NULL DEFAULT 0;

-- What counting has found before: so many messages of others, removed or not, after counted_from up to counted_to.
ALTER TABLE participants ADD COLUMN counted_from bigint NOT NULL DEFAULT 0, ADD COLUMN counted_to bigint NOT NULL DEFAULT 0,
    ADD COLUMN counted bigint NOT NULL DEFAULT 0;

-- How far somebody had come who took part until to_seq: receipts outlast the participant.
ALTER TABLE memberships ADD COLUMN last_read bigint NOT NULL DEFAULT 0, ADD COLUMN last_delivered bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_read_at bigint NOT NULL DEFAULT 0, ADD COLUMN last_delivered_at bigint NOT NULL DEFAULT 0;

-- removed: the event is a message whose content is gone. What is not unread by nature, everything but messages and those that
-- were removed, is little, and has an index of its own: unread messages are counted by taking it from the length of the log.
ALTER TABLE events ADD COLUMN removed boolean NOT NULL DEFAULT false;
CREATE INDEX events_uncounted ON events (conversation_id, seq) INCLUDE (kind, sender_id) WHERE kind <> 4 OR removed;

-- Whom messages mention; user 0 is everybody. There is no foreign key to users: the decision has looked at them.
CREATE TABLE mentions (
    conversation_id uuid   NOT NULL,
    user_id         bigint NOT NULL,
    seq             bigint NOT NULL,
    sender_id       bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id, seq)
);
CREATE INDEX mentions_message ON mentions (conversation_id, seq);
