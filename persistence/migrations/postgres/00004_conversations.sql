-- +goose Up

-- muted: the user wants no pushes.
ALTER TABLE participants ADD COLUMN muted boolean NOT NULL DEFAULT false;

-- From here on a row of memberships is a time in which a user took part and was allowed to read. to_seq is -1 for who came
-- without that permission.

-- The lists of conversations, page by page.
DROP INDEX participants_user;
CREATE INDEX participants_user ON participants (user_id, conversation_id);
CREATE INDEX conversation_data_tree ON conversation_data (root_id, id) WHERE NOT removed;
CREATE INDEX conversation_data_public ON conversation_data (root_id, id) INCLUDE (account_id) WHERE public_join AND NOT removed;

-- What messages say is kept in the log alone, so that it can be removed.
DELETE FROM remembered WHERE scope LIKE 'POST /v1/conversations/{uuid}/messages %';
