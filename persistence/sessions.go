package persistence

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// Locks are taken in this order: a node, a user, its sessions by number, their cursors by conversation. Whoever inserts a
// cursor has locked the session; whoever only advances cursors has not.

// nodeTimeout is after how many milliseconds without a beat a node is dead.
const nodeTimeout = 60_000

// sessionTexts are the statements about sessions that are not the same text in both dialects.
type sessionTexts struct {
	shareUser     string
	lockSession   string
	lockCursors   string
	behind        string
	behindOf      string
	dropOthers    string
	startAll      string
	startSome     string
	expireSome    string
	expireStrays  string
	reviveSome    string
	selectExpired string
}

func newSessionTexts(d *dialect) sessionTexts {
	share, skip, from, order := "", "", "m.conversation_id > $3", "m.conversation_id"
	lateral := "(SELECT * FROM sessions WHERE user_id = $1 AND device = $2)"
	limit := func(string) string { return "" } // SQLite makes rows one by one, as they are read.
	if d.sets {
		share, skip = " FOR SHARE", " FOR UPDATE SKIP LOCKED"
		lateral = "LATERAL (SELECT * FROM sessions WHERE user_id = $1 AND device = $2" + d.lock + ")"
		// With the ties, a page ends with a whole conversation.
		limit = func(param string) string { return " FETCH FIRST (" + param + ") ROWS WITH TIES" }
		// In this form only one index gives both the condition and the order. Otherwise the planner sometimes takes the one that
		// leads through all users.
		from, order = "(m.user_id, m.conversation_id) > ($2, $3)", "m.user_id, m.conversation_id"
	}
	// Subqueries, because they are looked up one by one, also where joins were expected to be cheaper in the average.
	const last, seen = `COALESCE(m.to_seq, (SELECT c.last_seq FROM conversations c WHERE c.id = m.conversation_id))`,
		`COALESCE((SELECT k.seq FROM cursors k WHERE k.session_id = $1 AND k.conversation_id = m.conversation_id), 0)`
	behind := fmt.Sprintf(`SELECT m.conversation_id, m.from_seq, %[1]s, %[2]s, COALESCE((SELECT p.permissions & %[4]d
			FROM participants p WHERE p.conversation_id = m.conversation_id AND p.user_id = m.user_id), 1) = 0
		FROM memberships m WHERE m.user_id = $2 AND %[3]s AND (m.to_seq IS NULL OR m.to_seq >= m.from_seq) AND %[1]s > %[2]s`,
		last, seen, from, bitRead|bitOwner)
	// What is newly covered has no cursor, unless a late acknowledgement made one after the subscription before ended.
	start := `INSERT INTO cursors (session_id, conversation_id, seq)
		SELECT CAST($1 AS bigint), c.id, c.last_seq FROM conversations c
		WHERE c.id IN (SELECT m.conversation_id FROM memberships m WHERE m.user_id = $2) AND %s ORDER BY c.id
		ON CONFLICT (session_id, conversation_id) DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq`
	// The comparison with an empty text, and the sum, are there for SQLite to use the index of nodes.
	strays := `SELECT s.id FROM sessions s WHERE s.node >= '' AND s.expires_at IS NULL AND s.expiry <> $2
		AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = s.node) ORDER BY s.id + 0 LIMIT $3` + d.lock
	return sessionTexts{
		shareUser: `SELECT deleted FROM users WHERE id = $1` + share,
		lockSession: `SELECT (SELECT count(*) FROM wills w WHERE w.sender_id = $1 AND w.device = $2), s.id, s.expiry, s.subscriptions, s.node, s.created_at, s.opened_at, s.expires_at,
			(SELECT n.beat_at FROM nodes n WHERE n.id = s.node)
			FROM (SELECT 1) x LEFT JOIN ` + lateral + ` s ON true`,
		lockCursors: `SELECT seq FROM cursors WHERE session_id = $1 ORDER BY conversation_id` + d.lock,
		behind:      behind + ` ORDER BY ` + order + limit("$4"),
		behindOf:    behind + ` AND ` + d.amongIDs("m.conversation_id", "$4") + ` ORDER BY ` + order + limit("$5"),
		dropOthers:  `DELETE FROM cursors WHERE session_id = $1 AND NOT (` + d.amongIDs("conversation_id", "$2") + `)`,
		startAll:    fmt.Sprintf(start, `NOT (`+d.amongIDs("c.id", "$3")+`)`),
		startSome:   fmt.Sprintf(start, d.amongIDs("c.id", "$3")),
		expireSome: `UPDATE sessions SET expires_at = CASE WHEN opened_at > $2 THEN opened_at ELSE $2 END + expiry * 1000 WHERE id IN (
			SELECT id FROM sessions WHERE node = $1 AND expires_at IS NULL AND expiry <> $3 ORDER BY id LIMIT $4` + d.lock + `)
			AND node = $1 AND expires_at IS NULL AND expiry <> $3`,
		expireStrays: `UPDATE sessions SET expires_at = $1 + expiry * 1000 WHERE id IN (` + strays + `) AND expires_at IS NULL`,
		reviveSome: `UPDATE sessions SET expires_at = NULL WHERE id IN (
			SELECT id FROM sessions WHERE node = $1 AND expires_at >= 0 ORDER BY id LIMIT $2` + d.lock + `) AND node = $1`,
		selectExpired: `SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2` + skip,
	}
}

const (
	insertSession = `INSERT INTO sessions (user_id, device, version, expiry, subscriptions, node, created_at, opened_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (user_id, device) DO NOTHING RETURNING id`
	resumeSession = `UPDATE sessions SET version = $2, expiry = $3, node = $4, opened_at = $5, expires_at = NULL WHERE id = $1`
	deleteCursors = `DELETE FROM cursors WHERE session_id = $1`
	deleteSession = `DELETE FROM sessions WHERE id = $1`
	addNode       = `INSERT INTO nodes (id, beat_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`
)

// earlier is a device's session as a new connection finds it.
type earlier struct {
	id, expiry, created, opened int64
	subscriptions               []byte
	node                        sql.NullString
	expires, beat               sql.NullInt64
}

// ended reports whether the session had ended by o.Now, or ends because another connection begins.
func (s *Store) ended(e *earlier, o domain.SessionOpening) bool {
	switch {
	case e.expires.Valid:
		return e.expires.Int64 <= o.Now
	case e.expiry == 0:
		return true
	case e.expiry == domain.NeverExpires || e.node.String == o.Node || !e.beat.Valid:
		return false
	}
	// Nobody may have found out yet that the node is dead.
	lived := max(e.beat.Int64, e.opened)
	dead := s.alone() || lived < o.Now-nodeTimeout
	return dead && lived+e.expiry*1000 <= o.Now
}

// OpenSession begins a connection of a device. Its earlier session is removed if o.Clean says so, if it has expired, or if
// it was to end with its connection; otherwise it is Present, and is connected to o.Node from now on, whoever had it. Without
// one a new session is made, unless o.Expiry is 0: then nothing is stored, and the ID is 0. A session that is Present is
// kept also with an expiry of 0, until [Store.CloseSession].
//
// o.Node and o.Now together identify the connection: the same opening, given again after an error, has the same outcome,
// and so no two connections of a device may share them. Several nodes may open sessions of one device at the same time: one
// after the other has it. Errors: user-not-found (deleted meanwhile; only where a session would be made), unavailable,
// internal.
func (s *Store) OpenSession(ctx context.Context, o domain.SessionOpening) (domain.StoredSession, error) {
	var stored domain.StoredSession
	err := s.write(ctx, func(q runner) error {
		var err error
		stored, err = s.openSession(ctx, q, o)
		return err
	})
	if err != nil {
		return domain.StoredSession{}, err
	}
	return stored, nil
}

func (s *Store) openSession(ctx context.Context, q runner, o domain.SessionOpening) (domain.StoredSession, error) {
	var none domain.StoredSession
	if !o.Clean || o.Expiry > 0 {
		if _, err := q.exec(ctx, addNode, o.Node, o.Now); err != nil {
			return none, err
		}
	}
	if o.Expiry > 0 {
		if err := s.shareUser(ctx, q, o.User); err != nil {
			return none, err
		}
	}
	stored, wills, err := s.nextSession(ctx, q, o)
	if err == nil && wills > 0 {
		err = s.settleWills(ctx, q, o, &stored)
	}
	return stored, err
}

// nextSession gives the session that a connection has, and how many wills the device's earlier connections have left.
func (s *Store) nextSession(ctx context.Context, q runner, o domain.SessionOpening) (_ domain.StoredSession, wills int64, _ error) {
	var none domain.StoredSession
	const attempts = 5
	for range attempts {
		e, wills, err := s.earlier(ctx, q, o)
		if err != nil {
			return none, 0, err
		}
		switch {
		case e == nil:
		case e.node.String == o.Node && e.opened == o.Now:
			stored, err := e.stored(e.created != e.opened)
			return stored, wills, err
		case !o.Clean && !s.ended(e, o):
			stored, err := s.resume(ctx, q, o, e)
			return stored, wills, err
		default:
			if _, err := s.removeSession(ctx, q, e.id); err != nil {
				return none, 0, err
			}
		}
		if o.Expiry == 0 {
			return none, wills, nil
		}
		id, err := s.createSession(ctx, q, o)
		if err != nil || id != 0 {
			return domain.StoredSession{ID: id}, wills, err
		}
		// Another connection of the device has just made one.
	}
	return none, 0, fmt.Errorf("no session for a device of user %d after %d attempts", o.User, attempts)
}

// shareUser sees to it that a user is not deleted before the transaction ends.
func (s *Store) shareUser(ctx context.Context, q runner, user domain.UserID) error {
	var deleted bool
	found, err := one(ctx, q, []any{&deleted}, s.text.sessions.shareUser, int64(user))
	if err == nil && (!found || deleted) {
		return domain.Errorf(domain.UserNotFound, "no user %d", user)
	}
	return err
}

// earlier reads and locks the device's session (nil: there is none), and counts the wills that its connections have left.
func (s *Store) earlier(ctx context.Context, q runner, o domain.SessionOpening) (_ *earlier, wills int64, _ error) {
	var e earlier
	var id, expiry, created, opened sql.NullInt64
	_, err := one(ctx, q, []any{
		&wills, &id, &expiry, &e.subscriptions, &e.node, &created, &opened, &e.expires, &e.beat,
	}, s.text.sessions.lockSession, int64(o.User), o.Device)
	if err != nil || !id.Valid {
		return nil, wills, err
	}
	e.id, e.expiry, e.created, e.opened = id.Int64, expiry.Int64, created.Int64, opened.Int64
	return &e, wills, nil
}

// stored gives the session to its new connection.
func (e *earlier) stored(present bool) (domain.StoredSession, error) {
	stored := domain.StoredSession{ID: domain.SessionID(e.id), Present: present}
	var err error
	if present {
		stored.Subscriptions, err = unpackSubscriptions(e.subscriptions)
	}
	return stored, err
}

func (s *Store) resume(ctx context.Context, q runner, o domain.SessionOpening, e *earlier) (domain.StoredSession, error) {
	if _, err := q.exec(ctx, resumeSession, e.id, int64(o.Version), int64(o.Expiry), o.Node, o.Now); err != nil {
		return domain.StoredSession{}, err
	}
	return e.stored(true)
}

// createSession makes a new session; 0: the device has got one meanwhile.
func (s *Store) createSession(ctx context.Context, q runner, o domain.SessionOpening) (domain.SessionID, error) {
	var id int64
	_, err := one(ctx, q, []any{&id}, insertSession, int64(o.User), o.Device, int64(o.Version), int64(o.Expiry), []byte("[]"),
		o.Node, o.Now)
	return domain.SessionID(id), err
}

// removeSession removes a session that is locked, with its cursors, and tells how many rows that were.
func (s *Store) removeSession(ctx context.Context, q runner, id int64) (int64, error) {
	if err := s.lockCursors(ctx, q, id); err != nil {
		return 0, err
	}
	cursors, err := q.exec(ctx, deleteCursors, id)
	if err != nil {
		return 0, err
	}
	n, err := q.exec(ctx, deleteSession, id)
	return cursors + n, err
}

// lockCursors locks a session's cursors in their order, before they are deleted in any.
func (s *Store) lockCursors(ctx context.Context, q runner, id int64) error {
	if s.d.lock == "" {
		return nil
	}
	return each(ctx, q, func(*sqlx.Rows) error { return nil }, s.text.sessions.lockCursors, id)
}

// CloseSession notes that the connection that began at since (its SessionOpening.Now) on the node has ended, at now, both in
// milliseconds since 1970. The session is kept for expiry seconds from then on, which replaces what it was opened with; 0
// removes it. It does nothing if another connection has the session, or if there is none. Errors: unavailable, internal.
func (s *Store) CloseSession(ctx context.Context, id domain.SessionID, node string, since, now int64, expiry uint32) error {
	return s.write(ctx, func(q runner) error {
		var expires any
		if expiry != domain.NeverExpires {
			expires = now + int64(expiry)*1000
		}
		n, err := q.exec(ctx, closeSession, int64(id), node, since, int64(expiry), expires)
		if err != nil || n == 0 || expiry > 0 {
			return err
		}
		_, err = s.removeSession(ctx, q, int64(id))
		return err
	})
}

const closeSession = `UPDATE sessions SET node = NULL, expiry = $4, expires_at = $5 WHERE id = $1 AND node = $2 AND opened_at = $3`

// subscription is one of a session as it is stored.
type subscription struct {
	Filter     string `json:"filter"`
	QoS        byte   `json:"qos,omitempty"`
	NoLocal    bool   `json:"noLocal,omitempty"`
	Identifier int    `json:"identifier,omitempty"`
	Retain     bool   `json:"retainAsPublished,omitempty"`
}

func packSubscriptions(subs []domain.Subscription) ([]byte, error) {
	list := make([]subscription, len(subs))
	for i, sub := range subs {
		list[i] = subscription{sub.Filter, sub.Options.QoS, sub.Options.NoLocal, sub.Options.Identifier, sub.Options.RetainAsPublished}
	}
	return json.Marshal(list)
}

func unpackSubscriptions(b []byte) ([]domain.Subscription, error) {
	var list []subscription
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("subscriptions of a session: %w", err)
	}
	subs := make([]domain.Subscription, len(list))
	for i, l := range list {
		subs[i] = domain.Subscription{
			Filter: l.Filter, Options: domain.SubscribeOptions{
				QoS: l.QoS, NoLocal: l.NoLocal, Identifier: l.Identifier, RetainAsPublished: l.Retain,
			},
		}
	}
	return subs, nil
}

// coverage is which conversations' events a list of subscriptions is for.
type coverage struct {
	all  bool
	only []domain.ConversationID
}

func coverageOf(subs []domain.Subscription) coverage {
	var c coverage
	for _, sub := range subs {
		f, ok := domain.ParseFilter(sub.Filter)
		switch {
		case !ok || f.Kind != domain.EventsTopic || f.Group != "":
		case f.Conversation.IsZero():
			c.all = true
		default:
			c.only = append(c.only, f.Conversation)
		}
	}
	return c
}

const (
	selectSubscriptions = `SELECT user_id, subscriptions FROM sessions WHERE id = $1`
	updateSubscriptions = `UPDATE sessions SET subscriptions = $2 WHERE id = $1`
)

// SaveSubscriptions replaces what a session is subscribed to. Of the conversations in start, or with all of all that the
// user takes or took part in, those that subs cover and the subscriptions before did not begin at their present last event;
// where the user joins later begins with the event by which it does. Positions in conversations that are not covered any
// more are dropped.
//
// Errors: not-found (the session has ended), unavailable, internal.
func (s *Store) SaveSubscriptions(
	ctx context.Context, id domain.SessionID, subs []domain.Subscription, start []domain.ConversationID, all bool,
) error {
	packed, err := packSubscriptions(subs)
	if err != nil {
		return err
	}
	now := coverageOf(subs)
	return s.write(ctx, func(q runner) error {
		var user int64
		var b []byte
		found, err := one(ctx, q, []any{&user, &b}, selectSubscriptions+s.d.lock, int64(id))
		if err != nil {
			return err
		}
		if !found {
			return domain.Errorf(domain.NotFound, "no session %d", id)
		}
		had, err := unpackSubscriptions(b)
		if err != nil {
			return err
		}
		if err := s.drop(ctx, q, id, now); err != nil {
			return err
		}
		if err := s.start(ctx, q, id, user, coverageOf(had), now, start, all); err != nil {
			return err
		}
		_, err = q.exec(ctx, updateSubscriptions, int64(id), packed)
		return err
	})
}

// drop removes the positions in what is not covered now.
func (s *Store) drop(ctx context.Context, q runner, id domain.SessionID, now coverage) error {
	if now.all {
		return nil
	}
	if err := s.lockCursors(ctx, q, int64(id)); err != nil {
		return err
	}
	_, err := q.exec(ctx, s.text.sessions.dropOthers, int64(id), s.d.ids(now.only))
	return err
}

// start makes the positions of what is covered now and was not before.
func (s *Store) start(
	ctx context.Context, q runner, id domain.SessionID, user int64, had, now coverage, start []domain.ConversationID, all bool,
) error {
	if had.all {
		return nil
	}
	if all && now.all {
		_, err := q.exec(ctx, s.text.sessions.startAll, int64(id), user, s.d.ids(had.only))
		return err
	}
	before, covered := setOf(had.only), setOf(now.only)
	var fresh []domain.ConversationID
	for _, c := range start {
		if !before[c] && (now.all || covered[c]) {
			fresh = append(fresh, c)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err := q.exec(ctx, s.text.sessions.startSome, int64(id), user, s.d.ids(fresh))
	return err
}

func setOf(ids []domain.ConversationID) map[domain.ConversationID]bool {
	set := make(map[domain.ConversationID]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

const selectUserSessions = `SELECT id FROM sessions WHERE user_id = $1 ORDER BY id`

// removeSessionsOf removes the sessions of a user that is locked.
func (s *Store) removeSessionsOf(ctx context.Context, q runner, user domain.UserID) error {
	ids, err := scanNumbers(ctx, q, selectUserSessions+s.d.lock, int64(user))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := s.removeSession(ctx, q, id); err != nil {
			return err
		}
	}
	return nil
}

func scanNumbers(ctx context.Context, q runner, text string, args ...any) ([]int64, error) {
	var list []int64
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return err
		}
		list = append(list, n)
		return nil
	}, text, args...)
	return list, err
}
