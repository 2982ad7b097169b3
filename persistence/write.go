package persistence

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-im/parley/domain"
)

// writing is a decision on its way into the tables, inside a transaction that has locked the head.
type writing struct {
	s   *Store
	q   runner
	key string
	d   *domain.Decision
	// before is the conversation as it was read, nil where there was none; after what it becomes, nil if it stays.
	before, after *domain.Conversation
	// positions are those of before's participants.
	positions []int64
}

// check tells what would make the decision break the log or its head.
func (w *writing) check() error {
	var base domain.Seq
	var id domain.ConversationID
	switch {
	case w.before != nil:
		base, id = w.before.LastSeq, w.before.ID
	case w.after != nil:
		id = w.after.ID
	case len(w.d.Events) > 0 || w.d.Message != nil:
		return errors.New("a decision on no conversation has events")
	}
	for i, e := range w.d.Events {
		if want := base + domain.Seq(i) + 1; e.Seq != want || e.Conversation != id {
			return fmt.Errorf("event %d of conversation %s was decided where %d of %s is due", e.Seq, e.Conversation, want, id)
		}
		if _, err := kindOf(e.Type); err != nil {
			return err
		}
	}
	if r := w.d.Read; r != nil && (w.before == nil || r.Conversation != id || r.Seq < 1 || r.Seq > base) {
		return fmt.Errorf("conversation %s cannot be marked as read up to %d", r.Conversation, r.Seq)
	}
	if m := w.d.Message; m != nil && (m.Type != domain.EventSendMessage || m.Conversation != id || m.Seq < 1 || m.Seq > base) {
		return fmt.Errorf("event %d of conversation %s is not a message to be rewritten", m.Seq, m.Conversation)
	}
	c := w.after
	switch {
	case c == nil:
		return nil
	case c.ID != id || c.ID.IsZero():
		return fmt.Errorf("conversation %s was decided on as %s", id, c.ID)
	case c.LastSeq != base+domain.Seq(len(w.d.Events)):
		return fmt.Errorf("conversation %s has %d as its last number after %d events on %d", id, c.LastSeq, len(w.d.Events), base)
	case w.before == nil && len(w.d.Events) == 0:
		return fmt.Errorf("conversation %s was created without an event", id)
	case w.before != nil && c.Version != w.before.Version+1:
		return fmt.Errorf("conversation %s has version %d after %d", id, c.Version, w.before.Version)
	}
	return nil
}

const (
	insertHead = `INSERT INTO conversations (id, last_seq, version) VALUES ($1, $2, $3)`
	updateHead = `UPDATE conversations SET last_seq = $2, version = $3 WHERE id = $1`

	insertData = `INSERT INTO conversation_data (id, root_id, account_id, title, direct, is_distinct, uber, public_join, policy,
		custom_data, permissions, created_at, updated_at, unique_key, removed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (unique_key) DO NOTHING`
	updateData = `UPDATE conversation_data SET root_id = $2, account_id = $3, title = $4, direct = $5, is_distinct = $6, uber = $7,
		public_join = $8, policy = $9, custom_data = $10, permissions = $11, created_at = $12, updated_at = $13,
		unique_key = $14, removed = $15 WHERE id = $1`
)

func dataArgs(c *domain.Conversation) []any {
	return []any{
		c.ID[:], int64(c.Root), int64(c.Account), c.Title, c.Direct, c.Distinct, c.Uber, c.PublicJoin, string(c.Policy),
		orNull(c.CustomData), packPermissions(c.Permissions), c.CreatedTime, c.LastUpdate, textOrNull(c.UniqueKey), c.Removed,
	}
}

// write writes the decision, or nothing if the unique key that its conversation wants is taken.
func (w *writing) write(ctx context.Context) (taken bool, err error) {
	switch {
	case w.after == nil && w.before != nil && len(w.d.Events) > 0:
		last := w.before.LastSeq + domain.Seq(len(w.d.Events))
		_, err = w.q.exec(ctx, updateHead, w.before.ID[:], int64(last), w.before.Version)
	case w.after != nil && w.before == nil:
		taken, err = w.create(ctx)
	case w.after != nil:
		err = w.update(ctx)
	}
	if taken || err != nil {
		return taken, err
	}
	if w.after != nil {
		if err := w.members(ctx); err != nil {
			return false, err
		}
	}
	if m := w.d.Mute; m != nil {
		if _, err := w.q.exec(ctx, updateMuted, m.Conversation[:], int64(m.User), m.Muted); err != nil {
			return false, err
		}
	}
	if r := w.d.Read; r != nil {
		if _, err := w.q.exec(ctx, markRead, r.Conversation[:], int64(r.User), int64(r.Seq), r.Time); err != nil {
			return false, err
		}
	}
	if w.d.Message != nil {
		// Before the events, so that those of this decision are not taken for old ones.
		if err := w.rewrite(ctx, w.d.Message); err != nil {
			return false, err
		}
	}
	for i, e := range w.d.Events {
		if err := w.event(ctx, e, i == 0); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (w *writing) create(ctx context.Context) (taken bool, err error) {
	c := w.after
	// First, since it may find the key taken, and must have written nothing then.
	n, err := w.q.exec(ctx, insertData, dataArgs(c)...)
	if err != nil || n == 0 {
		return err == nil, err
	}
	_, err = w.q.exec(ctx, insertHead, c.ID[:], int64(c.LastSeq), c.Version)
	return false, err
}

func (w *writing) update(ctx context.Context) error {
	c := w.after
	if _, err := w.q.exec(ctx, updateHead, c.ID[:], int64(c.LastSeq), c.Version); err != nil {
		return err
	}
	_, err := w.q.exec(ctx, updateData, dataArgs(c)...)
	return err
}

// event writes one event. The first of a decision bears its key.
func (w *writing) event(ctx context.Context, e *domain.Event, first bool) error {
	kind, err := kindOf(e.Type)
	if err != nil {
		return err
	}
	payload, err := e.MarshalStored()
	if err != nil {
		return fmt.Errorf("event %d of conversation %s: %w", e.Seq, e.Conversation, err)
	}
	var client, about any
	if first {
		client = textOrNull(w.key)
	}
	if e.Message != nil && e.Type != domain.EventSendMessage {
		id := domain.NewMessageID(e.Conversation, e.Message.Seq)
		about = id[:]
	}
	_, err = w.q.exec(ctx, insertEvent, e.Conversation[:], int64(e.Seq), int64(e.Sender), client, kind, about, e.Time, payload)
	return err
}

const (
	selectAbout = `SELECT seq, sender_id, client_id, payload FROM events
		WHERE about = $1 AND kind = 5 ORDER BY seq`
	updatePayload  = `UPDATE events SET payload = $3, removed = $4 WHERE conversation_id = $1 AND seq = $2`
	deleteMentions = `DELETE FROM mentions WHERE conversation_id = $1 AND seq = $2`
	// What was read has been delivered, in whatever way.
	markRead = `UPDATE participants SET last_read = $3, last_read_at = $4,
		last_delivered = CASE WHEN last_delivered < $3 THEN $3 ELSE last_delivered END,
		last_delivered_at = CASE WHEN last_delivered < $3 THEN $4 ELSE last_delivered_at END
		WHERE conversation_id = $1 AND user_id = $2`
)

// rewrite makes a message read as m from now on, in its own event and in those by which it was edited before: what it
// said then is nowhere any more.
func (w *writing) rewrite(ctx context.Context, m *domain.Event) error {
	id := domain.NewMessageID(m.Conversation, m.Seq)
	list, err := scanEvents(ctx, w.q, m.Conversation, selectAbout, id[:])
	if err == nil && m.Message.Removed {
		_, err = w.q.exec(ctx, deleteMentions, m.Conversation[:], int64(m.Seq))
	}
	if err != nil {
		return err
	}
	if err := w.content(ctx, m); err != nil {
		return err
	}
	for _, e := range list {
		now := *m.Message
		now.Conversation, now.Seq, now.ID = e.Message.Conversation, e.Message.Seq, e.Message.ID
		e.Message = &now
	}
	for _, e := range append(list, m) {
		payload, err := e.MarshalStored()
		if err != nil {
			return fmt.Errorf("event %d of conversation %s: %w", e.Seq, e.Conversation, err)
		}
		n, err := w.q.exec(ctx, updatePayload, e.Conversation[:], int64(e.Seq), payload, m.Message.Removed)
		if err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("event %d of conversation %s is gone", e.Seq, e.Conversation)
		}
	}
	return nil
}

// seat is a participant with its position.
type seat struct {
	domain.Participant
	position int64
}

const (
	insertParticipants = `INSERT INTO participants (conversation_id, user_id, permissions, last_read, last_delivered, joined_seq, position)
		SELECT $1::uuid, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])`
	insertParticipant = `INSERT INTO participants (conversation_id, user_id, permissions, last_read, last_delivered, joined_seq, position)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	// The delivered mark may have been raised since the participant was read: that locks no head.
	updateParticipant = `UPDATE participants SET permissions = $3, last_read = $4,
		last_delivered = CASE WHEN last_delivered > $5 THEN last_delivered ELSE $5 END, joined_seq = $6, position = $7
		WHERE conversation_id = $1 AND user_id = $2`
	updateMuted       = `UPDATE participants SET muted = $3 WHERE conversation_id = $1 AND user_id = $2`
	insertMemberships = `INSERT INTO memberships (conversation_id, user_id, from_seq)
		SELECT $1::uuid, * FROM unnest($2::bigint[], $3::bigint[])`
	insertMembership = `INSERT INTO memberships (conversation_id, user_id, from_seq) VALUES ($1, $2, $3)`
	insertUnread     = `INSERT INTO memberships (conversation_id, user_id, from_seq, to_seq) VALUES ($1, $2, $3, -1)`
)

// members brings the participants and their memberships from what they were to what they become.
func (w *writing) members(ctx context.Context) error {
	old := make(map[domain.UserID]seat)
	if w.before != nil {
		for i, p := range w.before.Participants {
			old[p.UserID] = seat{p, w.positions[i]}
		}
	}
	var joined, altered []seat
	var began, ended []domain.Participant // of those who stay: whose reading begins and ends
	position := int64(-1)
	for _, p := range w.after.Participants {
		was, present := old[p.UserID]
		delete(old, p.UserID)
		// Who stays keeps the position, unless somebody was put in front.
		if present && was.position > position {
			position = was.position
		} else {
			position++
		}
		now := seat{p, position}
		now.Username = was.Username // It is the directory's.
		switch {
		case !present:
			if now.JoinedSeq = w.when(p); now.JoinedSeq == 0 {
				return fmt.Errorf("user %d joined conversation %s without an event", p.UserID, w.after.ID)
			}
			joined = append(joined, now)
		case now != was:
			altered = append(altered, now)
			switch reads := p.Permissions.Reads(); {
			case reads == was.Permissions.Reads():
			case reads:
				began = append(began, p)
			default:
				ended = append(ended, p)
			}
		}
	}
	if err := w.leave(ctx, old); err != nil {
		return err
	}
	for _, m := range altered {
		if _, err := w.q.exec(ctx, updateParticipant, w.after.ID[:], int64(m.UserID), packPermissions(m.Permissions),
			int64(m.LastRead), int64(m.LastDelivered), int64(m.JoinedSeq), m.position); err != nil {
			return err
		}
	}
	if err := w.readers(ctx, began, ended); err != nil {
		return err
	}
	return w.join(ctx, joined)
}

// when gives the number of the event by which a participant joined or left: the one that names it, else the first of
// the decision; 0 if there is none.
func (w *writing) when(p domain.Participant) domain.Seq {
	for _, e := range w.d.Events {
		if slices.ContainsFunc(e.Participants, func(q domain.Participant) bool { return q.UserID == p.UserID }) {
			return e.Seq
		}
	}
	if len(w.d.Events) > 0 {
		return w.d.Events[0].Seq
	}
	return 0
}

func (w *writing) leave(ctx context.Context, gone map[domain.UserID]seat) error {
	if len(gone) == 0 {
		return nil
	}
	users := make([]int64, 0, len(gone))
	by := make(map[domain.Seq][]int64)
	for id, p := range gone {
		seq := w.when(p.Participant)
		if seq == 0 {
			return fmt.Errorf("user %d left conversation %s without an event", id, w.after.ID)
		}
		users = append(users, int64(id))
		by[seq] = append(by[seq], int64(id))
	}
	for seq, users := range by {
		// First, since it takes over how far they have come.
		if _, err := w.q.exec(ctx, w.s.text.closeMemberships, w.after.ID[:], int64(seq), w.s.d.numbers(users)); err != nil {
			return err
		}
	}
	_, err := w.q.exec(ctx, w.s.text.removeParticipants, w.after.ID[:], w.s.d.numbers(users))
	return err
}

// readers writes that participants who stay may read from now on, or up to now.
func (w *writing) readers(ctx context.Context, began, ended []domain.Participant) error {
	for _, p := range began {
		if _, err := w.q.exec(ctx, insertMembership, w.after.ID[:], int64(p.UserID), int64(w.when(p))); err != nil {
			return err
		}
	}
	for _, p := range ended {
		users := w.s.d.numbers([]int64{int64(p.UserID)})
		if _, err := w.q.exec(ctx, w.s.text.closeMemberships, w.after.ID[:], int64(w.when(p)), users); err != nil {
			return err
		}
	}
	return nil
}

func (w *writing) join(ctx context.Context, joined []seat) error {
	if len(joined) == 0 {
		return nil
	}
	id := w.after.ID[:]
	if !w.s.d.sets {
		for _, m := range joined {
			if _, err := w.q.exec(ctx, insertParticipant, id, int64(m.UserID), packPermissions(m.Permissions), int64(m.LastRead),
				int64(m.LastDelivered), int64(m.JoinedSeq), m.position); err != nil {
				return err
			}
			text := insertMembership
			if !m.Permissions.Reads() {
				text = insertUnread
			}
			if _, err := w.q.exec(ctx, text, id, int64(m.UserID), int64(m.JoinedSeq)); err != nil {
				return err
			}
		}
		return nil
	}
	var users, perms, read, delivered, seqs, positions, readers, since bigintArray
	for _, m := range joined {
		users = append(users, int64(m.UserID))
		perms = append(perms, packPermissions(m.Permissions))
		read = append(read, int64(m.LastRead))
		delivered = append(delivered, int64(m.LastDelivered))
		seqs = append(seqs, int64(m.JoinedSeq))
		positions = append(positions, m.position)
		if m.Permissions.Reads() {
			readers, since = append(readers, int64(m.UserID)), append(since, int64(m.JoinedSeq))
		} else if _, err := w.q.exec(ctx, insertUnread, id, int64(m.UserID), int64(m.JoinedSeq)); err != nil {
			return err
		}
	}
	if _, err := w.q.exec(ctx, insertParticipants, id, users, perms, read, delivered, seqs, positions); err != nil {
		return err
	}
	_, err := w.q.exec(ctx, insertMemberships, id, readers, since)
	return err
}
