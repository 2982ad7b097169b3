-- +goose Up

-- removed: the announcement was taken back. payload says nothing then; the row keeps the client id from being used again.
ALTER TABLE announcements ADD COLUMN removed boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX announcements_id ON announcements (id);
