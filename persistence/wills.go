package persistence

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// Wills are locked after the node, user and session that they belong to.

// willTexts are the statements about wills that are not the same text in both dialects.
type willTexts struct {
	take, loseSome string
}

func newWillTexts(d *dialect) willTexts {
	skip := ""
	if d.sets {
		skip = " FOR UPDATE SKIP LOCKED"
	}
	// A session that ends before the delay is over takes its will with it; one that is not kept ends with its connection.
	const expiry = `COALESCE((SELECT s.expiry FROM sessions s
		WHERE s.user_id = wills.sender_id AND s.device = wills.device AND s.opened_at = wills.opened_at), 0)`
	return willTexts{
		take: `DELETE FROM wills WHERE id IN (SELECT id FROM wills WHERE due_at <= $1 AND (CAST($2 AS text) = '' OR node = $2)
			ORDER BY due_at LIMIT $3` + skip + `) RETURNING due_at, sender_id, device, forgiving, delay, publish,
			login, external, issued, proof`,
		loseSome: `UPDATE wills SET due_at = CASE WHEN opened_at > $2 THEN opened_at ELSE $2 END +
			1000 * CASE WHEN delay < ` + expiry + ` THEN delay ELSE ` + expiry + ` END
			WHERE id IN (SELECT id FROM wills WHERE node = $1 AND due_at IS NULL ORDER BY id LIMIT $3` + d.lock + `) AND due_at IS NULL`,
	}
}

const (
	keepWill = `INSERT INTO wills (id, sender_id, device, node, opened_at, delay, publish, login, external, issued, proof)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO UPDATE SET delay = excluded.delay, publish = excluded.publish WHERE wills.due_at IS NULL`
	deleteWill    = `DELETE FROM wills WHERE id = $1`
	deleteWillsOf = `DELETE FROM wills WHERE sender_id = $1`
	postponeWill  = `UPDATE wills SET due_at = $2, forgiving = $3 WHERE id = $1 AND due_at IS NULL`
	nextWill      = `SELECT due_at FROM wills WHERE due_at IS NOT NULL AND (CAST($1 AS text) = '' OR node = $1)
		ORDER BY due_at LIMIT 1`
	// The device has come back: wills with a delay wait for nothing else, if its session goes on.
	cancelWills = `DELETE FROM wills WHERE sender_id = $1 AND device = $2 AND opened_at < $3 AND (forgiving OR delay > 0 AND $4)`
	hastenWills = `UPDATE wills SET due_at = CASE WHEN due_at < $3 THEN due_at ELSE $3 END
		WHERE sender_id = $1 AND device = $2 AND opened_at < $3`
	strayWills = `UPDATE wills SET due_at = $1 WHERE node >= '' AND due_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = wills.node)`
)

// willBody is what a will publishes, as it is stored.
type willBody struct {
	Topic         string `json:"topic"`
	Payload       []byte `json:"payload,omitempty"`
	Version       byte   `json:"version"`
	QoS           byte   `json:"qos,omitempty"`
	ContentType   string `json:"contentType,omitempty"`
	ResponseTopic string `json:"responseTopic,omitempty"`
	Correlation   []byte `json:"correlation,omitempty"`
	Retain        bool   `json:"retain,omitempty"`
}

// KeepWill stores the will of a connection, in place of the one of the same ID if the connection has not gone. now is in
// milliseconds since 1970. Errors: unavailable, internal.
func (s *Store) KeepWill(ctx context.Context, w domain.StoredWill, now int64) error {
	body, err := json.Marshal(willBody(w.Will.Publish))
	if err != nil {
		return refusal(err)
	}
	p := w.Principal
	return s.write(ctx, func(q runner) error {
		// A gateway that ends without having said that it lives would leave nothing by which to find its wills.
		if _, err := q.exec(ctx, addNode, w.Node, now); err != nil {
			return err
		}
		_, err := q.exec(ctx, keepWill, string(w.ID), int64(p.Sender()), p.Device, w.Node, w.Opened, int64(w.Will.Delay), body,
			p.Login[:], p.External, p.Issued, p.Proof[:])
		return err
	})
}

// EndWill says what becomes of a will whose connection has gone: it is removed, or carried out when it is due. Only the first
// such word counts, but that a will is removed counts until it is carried out. Errors: unavailable, internal.
func (s *Store) EndWill(ctx context.Context, id domain.WillID, end domain.WillEnd) error {
	return s.write(ctx, func(q runner) error {
		if end.Due == 0 {
			_, err := q.exec(ctx, deleteWill, string(id))
			return err
		}
		_, err := q.exec(ctx, postponeWill, string(id), end.Due, end.Forgiving)
		return err
	})
}

// DueWills takes at most q.Limit wills that are due out of the store, the earliest first: nobody gets one twice. When fewer
// are left, next is when the next one is due, in milliseconds since 1970; 0: there is none. Errors: unavailable, internal;
// after the former some may be lost.
func (s *Store) DueWills(ctx context.Context, query domain.WillQuery) (due []domain.DueWill, next int64, err error) {
	next, err = s.nextWill(ctx, query)
	if err != nil || next == 0 || next > query.Now {
		return nil, next, err
	}
	err = s.write(ctx, func(q runner) error {
		due, err = s.takeWills(ctx, q, query)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(due) < query.Limit {
		next, err = s.nextWill(ctx, query)
		if err != nil {
			next = 0 // those that were taken must not be lost
		}
	}
	return due, next, nil
}

func (s *Store) nextWill(ctx context.Context, query domain.WillQuery) (next int64, err error) {
	err = s.read(func(q runner) error {
		_, err := one(ctx, q, []any{&next}, nextWill, query.Node)
		return err
	})
	return next, err
}

func (s *Store) takeWills(ctx context.Context, q runner, query domain.WillQuery) ([]domain.DueWill, error) {
	type row struct {
		at, sender int64
		will       domain.DueWill
	}
	var rows []row
	err := each(ctx, q, func(r *sqlx.Rows) error {
		var t row
		var delay int64
		var body, login, proof sql.RawBytes
		p := &t.will.Principal
		err := r.Scan(&t.at, &t.sender, &p.Device, &t.will.Forgiving, &delay, &body, &login, &p.External, &p.Issued, &proof)
		if err != nil {
			return err
		}
		copy(p.Login[:], login)
		copy(p.Proof[:], proof)
		var b willBody
		if err := json.Unmarshal(body, &b); err != nil {
			return fmt.Errorf("a will: %w", err)
		}
		t.will.Will = domain.Will{Publish: domain.Publish(b), Delay: uint32(delay)}
		rows = append(rows, t)
		return nil
	}, s.text.wills.take, query.Now, query.Node, int64(query.Limit))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.at, b.at) })
	due := make([]domain.DueWill, len(rows))
	for i, t := range rows {
		due[i] = t.will
		if due[i].Principal, err = s.principal(ctx, q, t.sender, t.will.Principal); err != nil {
			return nil, err
		}
	}
	return due, nil
}

// principal gives who a sender is by now, on the device and proven as it was; the zero value: it was deleted.
func (s *Store) principal(ctx context.Context, q runner, sender int64, was domain.Principal) (domain.Principal, error) {
	var p domain.Principal
	if sender < 0 {
		list, err := scanServices(ctx, q, selectService+" WHERE s.id = $1", -sender)
		if err != nil || len(list) == 0 {
			return p, err
		}
		p = list[0].Principal()
	} else {
		list, err := s.users(ctx, q, []domain.UserRef{{UserID: domain.UserID(sender)}})
		if err != nil || len(list) == 0 || list[0].Deleted {
			return p, err
		}
		p = list[0].Principal(was.Device)
	}
	p.Device, p.Login, p.External, p.Issued, p.Proof = was.Device, was.Login, was.External, was.Issued, was.Proof
	return p, nil
}

// settleWills deals with the wills of a device's earlier connections, now that it has begun another: those that wait for its
// return are forgotten if its session goes on, the others are due, as are those of a connection that was taken over.
func (s *Store) settleWills(ctx context.Context, q runner, o domain.SessionOpening, stored *domain.StoredSession) error {
	n, err := q.exec(ctx, cancelWills, int64(o.User), o.Device, o.Now, stored.Present)
	if err != nil {
		return err
	}
	stored.WillsCancelled = int(n)
	n, err = q.exec(ctx, hastenWills, int64(o.User), o.Device, o.Now)
	stored.WillsDue = n > 0
	return err
}
