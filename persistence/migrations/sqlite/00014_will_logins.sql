-- +goose Up

-- What proved whoever set a will: the family of its access token, or that the token was another issuer's, and when that was
-- made; or a digest of its password's hash or API key. A will that was set before has none of them, and is not asked for it.
ALTER TABLE wills ADD COLUMN login blob NOT NULL DEFAULT x'';
ALTER TABLE wills ADD COLUMN external boolean NOT NULL DEFAULT false;
ALTER TABLE wills ADD COLUMN issued integer NOT NULL DEFAULT 0;
ALTER TABLE wills ADD COLUMN proof blob NOT NULL DEFAULT x'';
