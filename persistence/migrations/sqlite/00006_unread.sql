-- +goose Up

-- When the marks were last set; 0: not yet. Milliseconds since 1970.
ALTER TABLE participants ADD COLUMN last_read_at integer NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN last_delivered_at integer NOT NULL DEFAULT 0;

-- What counting has found before: so many messages of others, removed or not, after counted_from up to counted_to.
ALTER TABLE participants ADD COLUMN counted_from integer NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN counted_to integer NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN counted integer NOT NULL DEFAULT 0;

-- How far somebody had come who took part until to_seq: receipts outlast the participant.
ALTER TABLE memberships ADD COLUMN last_read integer NOT NULL DEFAULT 0;
ALTER TABLE memberships ADD COLUMN last_delivered integer NOT NULL DEFAULT 0;
ALTER TABLE memberships ADD COLUMN last_read_at integer NOT NULL DEFAULT 0;
ALTER TABLE memberships ADD COLUMN last_delivered_at integer NOT NULL DEFAULT 0;

-- removed: the event is a message whose content is gone. What is not unread by nature, everything but messages and those that
-- were removed, is little, and has an index of its own: unread messages are counted by taking it from the length of the log.
ALTER TABLE events ADD COLUMN removed boolean NOT NULL DEFAULT false;
CREATE INDEX events_uncounted ON events (conversation_id, seq, kind, sender_id) WHERE kind <> 4 OR removed;

-- Whom messages mention; user 0 is everybody.
CREATE TABLE mentions (
    conversation_id blob    NOT NULL,
    user_id         integer NOT NULL,
    seq             integer NOT NULL,
    sender_id       integer NOT NULL,
    PRIMARY KEY (conversation_id, user_id, seq)
) WITHOUT ROWID;
CREATE INDEX mentions_message ON mentions (conversation_id, seq);
