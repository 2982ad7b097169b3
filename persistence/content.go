package persistence

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// contentTexts are the statements about external content that differ between the dialects.
type contentTexts struct {
	look       string
	message    string
	takeUnused string
	takeDoomed string
	forget     string
}

func newContentTexts(d *dialect) contentTexts {
	key := func(column string) string { return column }
	if d.sets {
		key = func(column string) string { return "uuid_send(" + column + ")" } // as the index has it
	}
	// Who takes part reads everything, who left what was before; in an uber conversation both what happened while they did.
	look := fmt.Sprintf(`SELECT o.id, o.root_id, o.owner_id, o.mime_type, o.size, o.sha256, o.received, o.created_at,
		o.unused_since IS NULL AS used, o.owner_id = $2 OR EXISTS (
			SELECT 1 FROM content_uses u
			JOIN events e ON %s = %s AND e.sender_id = u.sender_id AND e.client_id = u.client_id
			JOIN conversation_data d ON d.id = u.conversation_id AND NOT d.removed
			JOIN memberships m ON m.conversation_id = u.conversation_id AND m.user_id = $3
			LEFT JOIN participants p ON p.conversation_id = u.conversation_id AND p.user_id = $3
			WHERE u.content_id = o.id
				AND CASE WHEN p.user_id IS NULL THEN e.seq <= m.to_seq ELSE (p.permissions & %d) <> 0 END
				AND (NOT d.uber OR e.seq >= m.from_seq AND (m.to_seq IS NULL OR e.seq <= m.to_seq))
		) AS readable
		FROM contents o WHERE %s AND COALESCE(o.unused_since, 1) > 0 ORDER BY o.id`,
		key("e.conversation_id"), key("u.conversation_id"), bitRead|bitOwner, d.among("o.id", "$1"))
	skip := ""
	if d.lock != "" {
		skip = d.lock + " SKIP LOCKED"
	}
	return contentTexts{
		look: look,
		message: `SELECT seq, removed FROM events WHERE ` + key("conversation_id") + ` = ` + key("$1") +
			` AND sender_id = $2 AND client_id = $3`,
		takeUnused: `SELECT id FROM contents WHERE unused_since <= $1 ORDER BY unused_since LIMIT $2` + skip,
		takeDoomed: `UPDATE content_blobs SET doomed_at = $2 WHERE key IN (
			SELECT key FROM content_blobs WHERE doomed_at <= $1 ORDER BY doomed_at LIMIT $3` + skip + `) RETURNING key`,
		forget: `DELETE FROM content_blobs WHERE ` + d.among("key", "$1"),
	}
}

type contentRow struct {
	ID        string `db:"id"`
	RootID    int64  `db:"root_id"`
	OwnerID   int64  `db:"owner_id"`
	MimeType  string `db:"mime_type"`
	Size      int64  `db:"size"`
	SHA256    string `db:"sha256"`
	Received  int64  `db:"received"`
	CreatedAt int64  `db:"created_at"`
	Used      bool   `db:"used"`
	Readable  bool   `db:"readable"`
}

func (r *contentRow) content() domain.ExternalContent {
	return domain.ExternalContent{
		ID: domain.ContentID(r.ID), MimeType: r.MimeType, Size: r.Size, SHA256: r.SHA256, Received: r.Received,
		Complete: r.Received == r.Size, Created: r.CreatedAt, Owner: domain.SenderID(r.OwnerID), Root: domain.AccountID(r.RootID),
		Readable: r.Readable,
	}
}

// external looks external content up for a principal. used tells which is in use.
func (s *Store) external(
	ctx context.Context, q runner, text string, p domain.Principal, ids []domain.ContentID,
) (list []domain.ExternalContent, used map[domain.ContentID]bool, err error) {
	if len(ids) == 0 {
		return nil, nil, nil
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	used = make(map[domain.ContentID]bool)
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		var r contentRow
		if err := rows.StructScan(&r); err != nil {
			return err
		}
		x := r.content()
		x.Readable = p.Sees(x.Root) && (x.Readable || p.IsBackend())
		list, used[x.ID] = append(list, x), r.Used
		return nil
	}, text, s.d.texts(texts), int64(p.Sender()), int64(p.User))
	return list, used, err
}

const (
	insertUse = `INSERT INTO content_uses (content_id, conversation_id, sender_id, client_id, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (content_id, conversation_id, sender_id, client_id) DO NOTHING`
	useContent = `UPDATE contents SET unused_since = NULL WHERE id = $1 AND COALESCE(unused_since, 1) > 0`
)

// Claim notes, in one transaction, that the messages about to be stored have the content that their claims name, where it
// is readable and complete, so that it is not removed; it gives the answers in the order of the claims. A claim may be made
// again. Errors are unavailable or internal. now is in milliseconds since 1970.
func (s *Store) Claim(ctx context.Context, claims []domain.ContentClaim, now int64) ([]domain.ClaimedContent, error) {
	answers := make([]domain.ClaimedContent, len(claims))
	err := s.write(ctx, func(q runner) error {
		// All of it in one order, as everybody locks it.
		var all []string
		for i := range claims {
			for _, id := range claims[i].External {
				all = append(all, string(id))
			}
		}
		slices.Sort(all)
		if err := s.lockContents(ctx, q, slices.Compact(all)); err != nil {
			return err
		}
		for i := range claims {
			var err error
			if answers[i], err = s.claim(ctx, q, &claims[i], now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

func (s *Store) claim(ctx context.Context, q runner, c *domain.ContentClaim, now int64) (answer domain.ClaimedContent, err error) {
	sender := int64(c.Principal.Sender())
	var seq int64
	var removed bool
	answer.Known, err = one(ctx, q, []any{&seq, &removed}, s.text.contents.message, c.Conversation[:], sender, c.ClientID)
	if err != nil || answer.Known {
		return answer, err
	}
	var used map[domain.ContentID]bool
	if answer.External, used, err = s.external(ctx, q, s.text.contents.look, c.Principal, c.External); err != nil {
		return answer, err
	}
	for i := range answer.External {
		x := &answer.External[i]
		if !x.Readable || !x.Complete {
			continue
		}
		if _, err := q.exec(ctx, insertUse, string(x.ID), c.Conversation[:], sender, c.ClientID, now); err != nil {
			return answer, err
		}
		if !used[x.ID] {
			if _, err := q.exec(ctx, useContent, string(x.ID)); err != nil {
				return answer, err
			}
		}
	}
	return answer, nil
}

// lockContents locks external content whose uses change, in the order of ids: who takes the last use away must know.
func (s *Store) lockContents(ctx context.Context, q runner, ids []string) error {
	if s.d.lock == "" || len(ids) == 0 {
		return nil
	}
	return each(ctx, q, func(*sqlx.Rows) error { return nil },
		`SELECT id FROM contents WHERE `+s.d.among("id", "$1")+` ORDER BY id`+s.d.lock, s.d.texts(ids))
}

const (
	selectKeyOf = `SELECT sender_id, client_id FROM events WHERE conversation_id = $1 AND seq = $2`
	selectUses  = `SELECT content_id FROM content_uses WHERE conversation_id = $1 AND sender_id = $2 AND client_id = $3`
	deleteUse   = `DELETE FROM content_uses WHERE content_id = $1 AND conversation_id = $2 AND sender_id = $3 AND client_id = $4`
	doomUnused  = `UPDATE contents SET unused_since = $2 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM content_uses WHERE content_id = $1)`
)

// content makes the uses of external content those of the message as it reads from now on. What no message has any more is
// gone at once.
func (w *writing) content(ctx context.Context, m *domain.Event) error {
	var sender int64
	var client sql.NullString
	if _, err := one(ctx, w.q, []any{&sender, &client}, selectKeyOf, m.Conversation[:], int64(m.Seq)); err != nil {
		return err
	}
	var had []string
	if err := each(ctx, w.q, func(rows *sqlx.Rows) error {
		var id string
		err := rows.Scan(&id)
		had = append(had, id)
		return err
	}, selectUses, m.Conversation[:], sender, client.String); err != nil {
		return err
	}
	var has []string
	if !m.Message.Removed {
		for i := range m.Message.Parts {
			if id := string(m.Message.Parts[i].Content); id != "" && !slices.Contains(has, id) {
				has = append(has, id)
			}
		}
	}
	concerned := slices.Concat(had, has)
	slices.Sort(concerned)
	if err := w.s.lockContents(ctx, w.q, slices.Compact(concerned)); err != nil {
		return err
	}
	for _, id := range had {
		if slices.Contains(has, id) {
			continue
		}
		if _, err := w.q.exec(ctx, deleteUse, id, m.Conversation[:], sender, client.String); err != nil {
			return err
		}
		if _, err := w.q.exec(ctx, doomUnused, id, int64(0)); err != nil {
			return err
		}
	}
	for _, id := range has {
		if slices.Contains(had, id) {
			continue
		}
		n, err := w.q.exec(ctx, useContent, id)
		if err == nil && n == 0 {
			err = domain.Errorf(domain.NotFound, "the content was removed meanwhile")
		}
		if err != nil {
			return err
		}
		if _, err := w.q.exec(ctx, insertUse, id, m.Conversation[:], sender, client.String, m.Message.EditedTime); err != nil {
			return err
		}
	}
	return nil
}
