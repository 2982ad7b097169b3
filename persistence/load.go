package persistence

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// texts are the statements that are not the same text in both dialects. They are made once, since their prepared forms
// are found by their text.
type texts struct {
	lockHeads          string
	lockSelves         string
	conversations      string
	participants       string
	participantAlone   string
	past               string
	users              string
	changes            string
	removeParticipants string
	closeMemberships   string
	unread             unreadTexts
	contents           contentTexts
	sessions           sessionTexts
	missed             missedTexts
	presence           presenceTexts
	wills              willTexts
	announcements      announcementTexts
	scheduled          scheduledTexts
}

func newTexts(d *dialect) texts {
	return texts{
		wills:      newWillTexts(d),
		lockHeads:  `SELECT id FROM conversations WHERE ` + d.amongIDs("id", "$1") + ` ORDER BY id` + d.lock,
		lockSelves: `SELECT id FROM users WHERE ` + d.among("id", "$1") + ` ORDER BY id` + d.lockWeakly,
		conversations: `SELECT h.id, h.last_seq, h.version, d.root_id, d.account_id, d.title, d.direct, d.is_distinct, d.uber,
			d.public_join, d.policy, d.custom_data, d.permissions, d.created_at, d.updated_at, d.unique_key, d.removed
			FROM conversations h JOIN conversation_data d ON d.id = h.id WHERE ` + d.amongIDs("h.id", "$1"),
		participants:     selectParticipants("") + d.amongIDs("h.id", "$1") + ` ORDER BY h.id, p.position`,
		participantAlone: selectParticipants(" AND p.user_id = $2") + d.amongIDs("h.id", "$1"),
		past: `SELECT conversation_id, from_seq, to_seq FROM memberships WHERE user_id = $1 AND ` +
			d.amongIDs("conversation_id", "$2") + ` ORDER BY conversation_id, from_seq`,
		users:              selectUser + ` WHERE ` + d.among("u.id", "$1") + ` OR ` + d.among("u.username", "$2") + ` ORDER BY u.id`,
		changes:            `SELECT client_id, conversation_id, seq FROM events WHERE kind <> 4 AND ` + d.among("client_id", "$1"),
		removeParticipants: `DELETE FROM participants WHERE conversation_id = $1 AND ` + d.among("user_id", "$2"),
		closeMemberships: `UPDATE memberships SET to_seq = $2, (last_read, last_delivered, last_read_at, last_delivered_at) = (
				SELECT p.last_read, p.last_delivered, p.last_read_at, p.last_delivered_at FROM participants p
				WHERE p.conversation_id = memberships.conversation_id AND p.user_id = memberships.user_id)
			WHERE conversation_id = $1 AND to_seq IS NULL AND ` + d.among("user_id", "$3"),
		unread:        newUnreadTexts(d),
		contents:      newContentTexts(d),
		sessions:      newSessionTexts(d),
		missed:        newMissedTexts(d),
		presence:      newPresenceTexts(d),
		announcements: newAnnouncementTexts(d), scheduled: newScheduledTexts(d),
	}
}

// selectParticipants begins a statement that reads the participants of conversations, as far as the condition allows.
func selectParticipants(and string) string {
	return `SELECT h.id, h.version, p.user_id, u.username, p.permissions, p.last_read, p.last_delivered, p.joined_seq, p.position
		FROM conversations h
		LEFT JOIN participants p ON p.conversation_id = h.id` + and + `
		LEFT JOIN users u ON u.id = p.user_id
		WHERE `
}

const selectUser = `SELECT u.id, u.username, u.display_name, u.custom_data, u.deleted, u.created_at, a.id AS account_id,
	COALESCE(a.parent_id, a.id) AS root_id
	FROM users u JOIN applications p ON p.id = u.application_id JOIN accounts a ON a.id = p.account_id`

type userRow struct {
	ID          int64  `db:"id"`
	Username    string `db:"username"`
	DisplayName string `db:"display_name"`
	CustomData  []byte `db:"custom_data"`
	Deleted     bool   `db:"deleted"`
	CreatedAt   int64  `db:"created_at"`
	AccountID   int64  `db:"account_id"`
	RootID      int64  `db:"root_id"`
}

func (r *userRow) user() domain.User {
	return domain.User{
		ID: domain.UserID(r.ID), Username: domain.Username(r.Username), DisplayName: r.DisplayName,
		CustomData: object(r.CustomData), Deleted: r.Deleted, Created: r.CreatedAt,
		Root: domain.AccountID(r.RootID), Account: domain.AccountID(r.AccountID),
	}
}

// users looks users up, deleted ones included, in the order of their numbers.
func (s *Store) users(ctx context.Context, q runner, refs []domain.UserRef) ([]domain.User, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	ids, names := []int64{}, []string{}
	for _, r := range refs {
		if r.UserID != 0 {
			ids = append(ids, int64(r.UserID))
		} else if r.Username != "" {
			names = append(names, string(r.Username))
		}
	}
	return scanUsers(ctx, q, s.text.users, s.d.numbers(ids), s.d.texts(names))
}

func scanUsers(ctx context.Context, q runner, text string, args ...any) ([]domain.User, error) {
	var users []domain.User
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var r userRow
		if err := rows.StructScan(&r); err != nil {
			return err
		}
		users = append(users, r.user())
		return nil
	}, text, args...)
	return users, err
}

type conversationRow struct {
	ID          uuid           `db:"id"`
	LastSeq     int64          `db:"last_seq"`
	Version     int64          `db:"version"`
	RootID      int64          `db:"root_id"`
	AccountID   int64          `db:"account_id"`
	Title       string         `db:"title"`
	Direct      bool           `db:"direct"`
	Distinct    bool           `db:"is_distinct"`
	Uber        bool           `db:"uber"`
	PublicJoin  bool           `db:"public_join"`
	Policy      string         `db:"policy"`
	CustomData  []byte         `db:"custom_data"`
	Permissions int64          `db:"permissions"`
	CreatedAt   int64          `db:"created_at"`
	UpdatedAt   int64          `db:"updated_at"`
	UniqueKey   sql.NullString `db:"unique_key"`
	Removed     bool           `db:"removed"`
}

func (r *conversationRow) conversation() *domain.Conversation {
	return &domain.Conversation{
		ID: domain.ConversationID(r.ID), Title: r.Title, Direct: r.Direct, Distinct: r.Distinct, Uber: r.Uber,
		PublicJoin: r.PublicJoin, Policy: domain.Policy(r.Policy), CreatedTime: r.CreatedAt, LastUpdate: r.UpdatedAt,
		LastSeq: domain.Seq(r.LastSeq), CustomData: object(r.CustomData), Permissions: unpackPermissions(r.Permissions),
		Participants: []domain.Participant{}, Removed: r.Removed, Root: domain.AccountID(r.RootID),
		Account: domain.AccountID(r.AccountID), Version: r.Version, UniqueKey: r.UniqueKey.String,
	}
}

// loaded is what was read of a set of conversations.
type loaded struct {
	conversations map[domain.ConversationID]*domain.Conversation
	// positions are those of the participants, in their order.
	positions map[domain.ConversationID][]int64
	past      map[domain.ConversationID][]domain.Interval
	// counted is what counting unread messages has found.
	counted []*unreadRow
}

// scope says what is read of conversations besides themselves.
type scope struct {
	// user is whose memberships are read if past is set, and the only participant that is read if alone is.
	user        domain.UserID
	past, alone bool
}

// conversations reads conversations with their participants and, as far as the scope says so, a user's memberships in them.
//
// They are read by several statements, between which somebody else may change something. So the version is read by the
// first and the last of them: if it has not moved, nothing in between has. Where it keeps moving, one snapshot has to be
// paid for.
func (s *Store) conversations(ctx context.Context, q runner, ids []domain.ConversationID, of scope) (*loaded, error) {
	if len(ids) == 0 {
		return &loaded{}, nil
	}
	set := s.d.ids(ids)
	for range 2 {
		l, moved, err := s.load(ctx, q, set, len(ids), of)
		if err != nil || !moved {
			return l, err
		}
	}
	var l *loaded
	read := func(q runner) (err error) {
		l, _, err = s.load(ctx, q, set, len(ids), of)
		return err
	}
	var err error
	if p, ok := q.(*pool); ok {
		err = p.snapshot(ctx, s.d.snapshot, read)
	} else {
		// In a transaction that writes, the conversation that it is about is locked and does not move. The others, which
		// it only looks at, may.
		err = read(q)
	}
	return l, err
}

// load reads n conversations once, and reports whether one of them was changed meanwhile.
func (s *Store) load(ctx context.Context, q runner, set any, n int, of scope) (l *loaded, moved bool, err error) {
	l = &loaded{
		conversations: make(map[domain.ConversationID]*domain.Conversation, n),
		positions:     make(map[domain.ConversationID][]int64, n),
	}
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		var r conversationRow
		if err := rows.StructScan(&r); err != nil {
			return err
		}
		l.conversations[domain.ConversationID(r.ID)] = r.conversation()
		return nil
	}, s.text.conversations, set)
	if err != nil {
		return nil, false, err
	}
	if of.past && of.user != 0 {
		if l.past, err = s.past(ctx, q, of.user, set); err != nil {
			return nil, false, err
		}
	}
	moved, err = s.participants(ctx, q, l, set, of)
	return l, moved, err
}

// participants reads those of l's conversations, and reports whether one of these has another version by now.
func (s *Store) participants(ctx context.Context, q runner, l *loaded, set any, of scope) (moved bool, err error) {
	text, args := s.text.participants, []any{set}
	if of.alone {
		text, args = s.text.participantAlone, append(args, int64(of.user))
	}
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		var (
			id                                             uuid
			version                                        int64
			user, perms, read, delivered, joined, position sql.NullInt64
			name                                           sql.NullString
		)
		if err := rows.Scan(&id, &version, &user, &name, &perms, &read, &delivered, &joined, &position); err != nil {
			return err
		}
		c := l.conversations[domain.ConversationID(id)]
		if c == nil || c.Version != version {
			moved = true // It has just been made, or changed.
			if c == nil {
				return nil
			}
		}
		if !user.Valid {
			return nil
		}
		c.Participants = append(c.Participants, domain.Participant{
			UserID: domain.UserID(user.Int64), Username: domain.Username(name.String),
			Permissions: unpackPermissions(perms.Int64), LastRead: domain.Seq(read.Int64),
			LastDelivered: domain.Seq(delivered.Int64), JoinedSeq: domain.Seq(joined.Int64),
		})
		l.positions[c.ID] = append(l.positions[c.ID], position.Int64)
		return nil
	}, text, args...)
	return moved, err
}

// past reads when a user took part.
func (s *Store) past(ctx context.Context, q runner, user domain.UserID, set any) (map[domain.ConversationID][]domain.Interval, error) {
	past := make(map[domain.ConversationID][]domain.Interval)
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var id uuid
		var from int64
		var to sql.NullInt64
		if err := rows.Scan(&id, &from, &to); err != nil {
			return err
		}
		past[domain.ConversationID(id)] = append(past[domain.ConversationID(id)],
			domain.Interval{From: domain.Seq(from), To: domain.Seq(to.Int64)})
		return nil
	}, s.text.past, int64(user), set)
	return past, err
}

// heads reads what the needs of a command name. Now, NewID and Limits are left to the caller.
func (s *Store) heads(ctx context.Context, q runner, p domain.Principal, needs domain.Needs) (*domain.Heads, *loaded, error) {
	h := &domain.Heads{}
	if needs.List != nil {
		var err error
		if h.Listed, err = s.list(ctx, q, needs.List); err != nil {
			return nil, nil, err
		}
		if needs.List.Whole {
			needs.Conversations = append(slices.Clone(needs.Conversations), h.Listed...)
		}
	}
	var ids []domain.ConversationID
	if !needs.Conversation.IsZero() {
		ids = append(ids, needs.Conversation)
	}
	ids = append(ids, needs.Conversations...)
	l, err := s.conversations(ctx, q, ids, scope{user: p.User, past: needs.Past, alone: needs.Alone})
	if err != nil {
		return nil, nil, err
	}
	h.Conversation, h.Past = l.conversations[needs.Conversation], l.past
	given := make(map[domain.ConversationID]bool, len(needs.Conversations))
	for _, id := range needs.Conversations {
		if c := l.conversations[id]; c != nil && !given[id] {
			given[id] = true
			h.Conversations = append(h.Conversations, c)
		}
	}
	if h.Users, err = s.users(ctx, q, needs.Users); err != nil {
		return nil, nil, err
	}
	if needs.Self && p.User != 0 {
		if h.Self, err = s.self(ctx, q, p.User); err != nil {
			return nil, nil, err
		}
	}
	if needs.Settings && p.IsUser() {
		if h.Settings, err = s.settings(ctx, q, p.Account); err != nil {
			return nil, nil, err
		}
	}
	if needs.Watched && p.User != 0 {
		if h.Watched, err = scanUsers(ctx, q, selectWatched, int64(p.User)); err != nil {
			return nil, nil, err
		}
	}
	if h.External, _, err = s.external(ctx, q, s.text.contents.look, p, needs.External); err != nil {
		return nil, nil, err
	}
	if needs.Message > 0 && !needs.Conversation.IsZero() {
		if h.Message, err = s.message(ctx, q, needs.Conversation, needs.Message); err != nil {
			return nil, nil, err
		}
		if needs.Recipients {
			if h.Recipients, err = s.recipients(ctx, q, needs.Conversation, needs.Message); err != nil {
				return nil, nil, err
			}
		}
	}
	if needs.Unread != nil && p.User != 0 {
		if h.Unread, l.counted, err = s.unread(ctx, q, p.User, needs.Unread); err != nil {
			return nil, nil, err
		}
	}
	if needs.Announcements != nil && p.User != 0 {
		if h.Announcements, err = s.announcements(ctx, q, p.User, needs.Announcements); err != nil {
			return nil, nil, err
		}
	}
	if !needs.Announcement.IsZero() {
		if h.Announcement, err = s.announcement(ctx, q, needs.Announcement); err != nil {
			return nil, nil, err
		}
	}
	return h, l, nil
}

const (
	selectOwn = `SELECT private_custom_data, notifications FROM users WHERE id = $1`

	selectPresent = `SELECT p.conversation_id FROM participants p JOIN conversation_data d ON d.id = p.conversation_id
		WHERE p.user_id = $1 AND NOT d.removed ORDER BY p.conversation_id`

	selectLeft = `SELECT DISTINCT m.conversation_id FROM memberships m WHERE m.user_id = $1
		AND NOT EXISTS (SELECT 1 FROM participants p WHERE p.conversation_id = m.conversation_id AND p.user_id = m.user_id)
		AND NOT (SELECT d.removed FROM conversation_data d WHERE d.id = m.conversation_id) ORDER BY m.conversation_id`

	selectMuted = `SELECT p.conversation_id FROM participants p JOIN conversation_data d ON d.id = p.conversation_id
		WHERE p.user_id = $1 AND p.muted AND NOT d.removed ORDER BY p.conversation_id`
)

// self reads a user's record with its private part; nil: there is none.
func (s *Store) self(ctx context.Context, q runner, id domain.UserID) (*domain.User, error) {
	users, err := s.users(ctx, q, []domain.UserRef{{UserID: id}})
	if err != nil || len(users) == 0 {
		return nil, err
	}
	u := users[0]
	own := &domain.Own{}
	var private []byte
	var notifications string
	if _, err := one(ctx, q, []any{&private, &notifications}, selectOwn, int64(id)); err != nil {
		return nil, err
	}
	own.PrivateCustomData = object(private)
	if err := json.Unmarshal([]byte(notifications), &own.Notifications); err != nil {
		return nil, fmt.Errorf("notifications of user %d: %w", id, err)
	}
	if own.ConversationsList, err = scanIDs(ctx, q, selectPresent, int64(id)); err != nil {
		return nil, err
	}
	if own.LeaveConversationList, err = scanIDs(ctx, q, selectLeft, int64(id)); err != nil {
		return nil, err
	}
	if muted, err := scanIDs(ctx, q, selectMuted, int64(id)); err != nil {
		return nil, err
	} else if len(muted) > 0 {
		own.MutedConversations = muted
	}
	u.Own = own
	return &u, nil
}

func scanIDs(ctx context.Context, q runner, text string, args ...any) ([]domain.ConversationID, error) {
	ids := []domain.ConversationID{}
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var id uuid
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, domain.ConversationID(id))
		return nil
	}, text, args...)
	return ids, err
}
