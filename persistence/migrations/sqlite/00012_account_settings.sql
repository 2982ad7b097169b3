-- +goose Up

-- Whether users of the account may change messages: 0 as the main account says, -1 they may, -2 they may not, else for so many
-- milliseconds after the message was sent.
ALTER TABLE accounts ADD COLUMN edit_messages integer NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN remove_messages integer NOT NULL DEFAULT 0;
