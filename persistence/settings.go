package persistence

import (
	"context"
	"time"

	"github.com/parley-im/parley/domain"
)

const (
	selectSetting = `SELECT value FROM settings WHERE name = $1`
	insertSetting = `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
)

// Setting gives a value that the gateway keeps in the store, and whether there is one.
func (s *Store) Setting(ctx context.Context, name string) (value []byte, found bool, err error) {
	err = s.read(func(q runner) error {
		found, err = one(ctx, q, []any{&value}, selectSetting, name)
		return err
	})
	return value, found, err
}

// InitSetting stores a value unless there is one of that name already, and gives the one that is stored then. Of several
// processes that do so at once one creates it, and all get the same.
func (s *Store) InitSetting(ctx context.Context, name string, value []byte) (stored []byte, created bool, err error) {
	if value == nil {
		value = []byte{}
	}
	err = s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, insertSetting, name, value)
		if err != nil {
			return err
		}
		created = n == 1
		_, err = one(ctx, q, []any{&stored}, selectSetting, name)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return stored, created, nil
}

const (
	selectRemembered = `SELECT fingerprint, status, content_type, body FROM remembered WHERE scope = $1 AND key = $2`
	insertRemembered = `INSERT INTO remembered (scope, key, fingerprint, status, content_type, body, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (scope, key) DO NOTHING`
)

// Recall gives the answer that was remembered for a key, and whether there is one. scope keeps the keys of different
// callers apart.
func (s *Store) Recall(ctx context.Context, scope, key string) (r domain.Remembered, found bool, err error) {
	err = s.read(func(q runner) error {
		r, found, err = recall(ctx, q, scope, key)
		return err
	})
	return r, found, err
}

func recall(ctx context.Context, q runner, scope, key string) (r domain.Remembered, found bool, err error) {
	var fingerprint digest
	found, err = one(ctx, q, []any{&fingerprint, &r.Status, &r.ContentType, &r.Body}, selectRemembered, scope, key)
	r.Fingerprint = fingerprint
	return r, found, err
}

// Remember stores the answer for a key unless there is one, and gives the one that is stored then: the first wins. now is
// in milliseconds since 1970.
func (s *Store) Remember(ctx context.Context, scope, key string, r domain.Remembered, now int64) (domain.Remembered, error) {
	body := r.Body
	if body == nil {
		body = []byte{}
	}
	err := s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, insertRemembered, scope, key, r.Fingerprint[:], int64(r.Status), r.ContentType, body, now)
		if err != nil || n == 1 {
			return err
		}
		r, _, err = recall(ctx, q, scope, key)
		return err
	})
	return r, err
}

// How long what has expired is kept.
const (
	rememberedFor = 24 * time.Hour
	// Access tokens may outlive the refresh token that came with them.
	familiesFor = 7 * 24 * time.Hour
	// finishedFor is for how long it is told what became of what was scheduled.
	finishedFor = 7 * 24 * time.Hour
	// usedFor is for how long used one-time keys are kept after they expired: the clocks of nodes may differ.
	usedFor = time.Hour
)

// Cleanup removes what has expired by now (milliseconds since 1970): remembered answers after 24 hours, refresh tokens,
// logins, signing keys, announcements, outcomes of what was scheduled, and durable sessions. It works in small steps, so that
// nobody has to wait for it. On SQLite what was removed by anybody is then in no file of the store any more.
func (s *Store) Cleanup(ctx context.Context, now int64) error {
	const most = 500
	for _, c := range []struct {
		text  string
		until int64
	}{
		{
			`DELETE FROM remembered WHERE (scope, key) IN (SELECT scope, key FROM remembered WHERE created_at <= $1 LIMIT $2)`,
			now - rememberedFor.Milliseconds(),
		},
		{`DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at <= $1 LIMIT $2)`, now},
		{
			`DELETE FROM token_families WHERE id IN (SELECT id FROM token_families WHERE expires_at <= $1 LIMIT $2)`,
			now - familiesFor.Milliseconds(),
		},
		{`DELETE FROM used_keys WHERE hash IN (SELECT hash FROM used_keys WHERE expires_at <= $1 LIMIT $2)`, now - usedFor.Milliseconds()},
		{`DELETE FROM announcements WHERE number IN (SELECT number FROM announcements WHERE expires_at <= $1 LIMIT $2)`, now},
		{
			`DELETE FROM scheduled WHERE id IN (SELECT id FROM scheduled WHERE finished_at <= $1 LIMIT $2)`,
			now - finishedFor.Milliseconds(),
		},
		{`DELETE FROM signing_keys WHERE id IN (SELECT id FROM signing_keys WHERE ends_at <= $1 LIMIT $2)`, now},
	} {
		for {
			var n int64
			err := s.write(ctx, func(q runner) error {
				var err error
				n, err = q.exec(ctx, c.text, c.until, int64(most))
				return err
			})
			if err != nil {
				return err
			}
			if n < most {
				break
			}
		}
	}
	if err := s.removeExpired(ctx, now); err != nil {
		return err
	}
	return s.emptyLog(ctx)
}
