package persistence

import (
	"context"
	"database/sql"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

const (
	sumContents = `SELECT COALESCE(SUM(size), 0), COALESCE(SUM(CASE WHEN received < size THEN 1 ELSE 0 END), 0)
		FROM contents WHERE owner_id = $1`
	insertContent = `INSERT INTO contents (id, root_id, owner_id, mime_type, size, sha256, received, created_at, unused_since)
		VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $7)`
	lockOwner = `SELECT id FROM users WHERE id = $1`
)

// CreateContent stores content of which nothing has come yet. A user over its quota is refused: message-too-large for the
// bytes, rate-limited for the uploads. Of services nothing is counted.
func (s *Store) CreateContent(ctx context.Context, x domain.ExternalContent, quota domain.ContentQuota) error {
	return s.write(ctx, func(q runner) error {
		if x.Owner > 0 {
			var id, bytes, uploads int64
			if _, err := one(ctx, q, []any{&id}, lockOwner+s.d.lockWeakly, int64(x.Owner)); err != nil {
				return err
			}
			if _, err := one(ctx, q, []any{&bytes, &uploads}, sumContents, int64(x.Owner)); err != nil {
				return err
			}
			switch {
			case quota.Bytes > 0 && bytes+x.Size > quota.Bytes:
				return domain.Errorf(domain.MessageTooLarge, "you may keep %d bytes of content in all, and have %d", quota.Bytes, bytes)
			case quota.Uploads > 0 && uploads >= int64(quota.Uploads):
				return domain.Errorf(domain.RateLimited, "you have %d uploads that are not complete", uploads)
			}
		}
		_, err := q.exec(ctx, insertContent, string(x.ID), int64(x.Root), int64(x.Owner), x.MimeType, x.Size, x.SHA256, x.Created)
		return err
	})
}

const (
	selectContent = `SELECT root_id, owner_id, mime_type, size, sha256, received, created_at, digest FROM contents
		WHERE id = $1 AND COALESCE(unused_since, 1) > 0`
	selectBlobs = `SELECT key, start, size FROM content_blobs WHERE content_id = $1 AND start IS NOT NULL AND doomed_at IS NULL
		ORDER BY start`
)

// Content gives external content with where its bytes are. What does not exist, or not any more, is not-found.
func (s *Store) Content(ctx context.Context, id domain.ContentID) (domain.StoredContent, error) {
	var x domain.StoredContent
	err := s.read(func(q runner) error {
		x = domain.StoredContent{ExternalContent: domain.ExternalContent{ID: id}}
		var root, owner int64
		found, err := one(ctx, q, []any{
			&root, &owner, &x.MimeType, &x.Size, &x.SHA256, &x.Received, &x.Created, &x.Digest,
		}, selectContent, string(id))
		if err != nil {
			return err
		}
		if !found {
			return domain.Errorf(domain.NotFound, "there is no such content")
		}
		x.Root, x.Owner, x.Complete = domain.AccountID(root), domain.SenderID(owner), x.Received == x.Size
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var b domain.ContentBlob
			if err := rows.Scan(&b.Key, &b.Start, &b.Size); err != nil {
				return err
			}
			x.Blobs = append(x.Blobs, b)
			return nil
		}, selectBlobs, string(id))
	})
	return x, err
}

const (
	insertBlob = `INSERT INTO content_blobs (key, content_id, doomed_at) VALUES ($1, $2, $3)`
	joinBlob   = `UPDATE content_blobs SET start = $3, size = $4, doomed_at = NULL
		WHERE key = $1 AND content_id = $2 AND start IS NULL AND doomed_at IS NOT NULL`
	growContent = `UPDATE contents SET received = $3, digest = $4, sha256 = $5, unused_since = $6
		WHERE id = $1 AND received = $2 AND $3 <= size AND unused_since > 0`
	doomBlobs   = `UPDATE content_blobs SET doomed_at = $2 WHERE content_id = $1`
	resetUpload = `UPDATE contents SET received = 0, digest = NULL, unused_since = $3
		WHERE id = $1 AND received = $2 AND received < size AND unused_since > 0`
)

// ReserveBlob notes that a piece is about to be written: it is removed at the time (milliseconds since 1970) unless
// [Store.AppendBlob] makes it a part of its content before.
func (s *Store) ReserveBlob(ctx context.Context, id domain.ContentID, key string, until int64) error {
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, insertBlob, key, string(id), until)
		return err
	})
}

// AppendBlob makes a piece that was reserved and written the continuation of its content, at blob.Start. digest is the state of
// SHA-256 after it, sum the digest itself where that completes the content, else what was announced. Where other bytes came in
// between it is already-exists; the piece then stays reserved.
func (s *Store) AppendBlob(
	ctx context.Context, id domain.ContentID, blob domain.ContentBlob, digest []byte, sum string, now int64,
) error {
	return s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, growContent, string(id), blob.Start, blob.Start+blob.Size, digest, sum, now)
		if err == nil && n == 1 {
			n, err = q.exec(ctx, joinBlob, blob.Key, string(id), blob.Start, blob.Size)
		}
		if err == nil && n != 1 {
			err = domain.Errorf(domain.AlreadyExists, "the upload went on by another request meanwhile")
		}
		return err
	})
}

// RestartContent forgets the bytes that have come of an upload, if they are still that many.
func (s *Store) RestartContent(ctx context.Context, id domain.ContentID, received, now int64) error {
	return s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, resetUpload, string(id), received, now)
		if err == nil && n != 1 {
			err = domain.Errorf(domain.AlreadyExists, "the upload went on by another request meanwhile")
		}
		if err != nil {
			return err
		}
		_, err = q.exec(ctx, doomBlobs, string(id), int64(0))
		return err
	})
}

// contentStep is how much external content is looked at in one transaction.
const contentStep = 100

const (
	selectUnsettled = `SELECT content_id, conversation_id, sender_id, client_id, created_at FROM content_uses
		WHERE NOT settled AND created_at <= $1 ORDER BY created_at, content_id LIMIT $2`
	selectHolding = `SELECT 1 FROM scheduled WHERE conversation_id = $1 AND client_id = $2 AND state = 0
		AND (user_id = $3 OR user_id = 0 AND service_id = -$3)`
	holdUse = `UPDATE content_uses SET created_at = $5
		WHERE content_id = $1 AND conversation_id = $2 AND sender_id = $3 AND client_id = $4`
	settleUse = `UPDATE content_uses SET settled = true
		WHERE content_id = $1 AND conversation_id = $2 AND sender_id = $3 AND client_id = $4`
	deleteContent = `DELETE FROM contents WHERE id = $1`
)

// use is a row of content_uses.
type use struct {
	content string
	of      uuid
	sender  int64
	client  string
	created int64
}

// SettleUses looks which of the claims made up to the time came to nothing because their message was not stored, and drops
// these. It reports whether there may be more.
func (s *Store) SettleUses(ctx context.Context, until int64) (more bool, err error) {
	err = s.write(ctx, func(q runner) error {
		var list []use
		if err := each(ctx, q, func(rows *sqlx.Rows) error {
			var u use
			err := rows.Scan(&u.content, &u.of, &u.sender, &u.client, &u.created)
			list = append(list, u)
			return err
		}, selectUnsettled, until, int64(contentStep)); err != nil {
			return err
		}
		more = len(list) == contentStep
		for _, u := range list {
			if err := s.settle(ctx, q, &u, until); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

func (s *Store) settle(ctx context.Context, q runner, u *use, until int64) error {
	var seq sql.NullInt64
	var removed bool
	stored, err := one(ctx, q, []any{&seq, &removed}, s.text.contents.message, u.of[:], u.sender, u.client)
	if err != nil {
		return err
	}
	if stored && !removed {
		_, err = q.exec(ctx, settleUse, u.content, u.of[:], u.sender, u.client)
		return err
	}
	var n int64
	if held, err := one(ctx, q, []any{&n}, selectHolding, u.of[:], u.client, u.sender); err != nil || held {
		if err == nil {
			_, err = q.exec(ctx, holdUse, u.content, u.of[:], u.sender, u.client, until+1)
		}
		return err
	}
	if err := s.lockContents(ctx, q, []string{u.content}); err != nil {
		return err
	}
	if _, err := q.exec(ctx, deleteUse, u.content, u.of[:], u.sender, u.client); err != nil {
		return err
	}
	_, err = q.exec(ctx, doomUnused, u.content, u.created)
	return err
}

// RemoveUnused removes content that no message has had since the time, at most some of it; the bytes are left for
// [Store.TakeDoomed]. It gives how much it removed and whether there may be more.
func (s *Store) RemoveUnused(ctx context.Context, since int64) (removed int, more bool, err error) {
	err = s.write(ctx, func(q runner) error {
		var ids []string
		if err := each(ctx, q, func(rows *sqlx.Rows) error {
			var id string
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		}, s.text.contents.takeUnused, since, int64(contentStep)); err != nil {
			return err
		}
		removed, more = len(ids), len(ids) == contentStep
		for _, id := range ids {
			if _, err := q.exec(ctx, doomBlobs, id, int64(0)); err != nil {
				return err
			}
			if _, err := q.exec(ctx, deleteContent, id); err != nil {
				return err
			}
		}
		return nil
	})
	return removed, more, err
}

// TakeDoomed gives pieces whose time had come by now, for the caller to remove: until the other time nobody else gets
// them. Those that are removed are forgotten by [Store.ForgetBlobs]; what the caller does not come to do, somebody does
// later.
func (s *Store) TakeDoomed(ctx context.Context, now, until int64) (keys []string, err error) {
	err = s.write(ctx, func(q runner) error {
		keys = nil
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var key string
			err := rows.Scan(&key)
			keys = append(keys, key)
			return err
		}, s.text.contents.takeDoomed, now, until, int64(contentStep))
	})
	return keys, err
}

// ForgetBlobs forgets pieces that are removed.
func (s *Store) ForgetBlobs(ctx context.Context, keys []string) error {
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, s.text.contents.forget, s.d.texts(keys))
		return err
	})
}
