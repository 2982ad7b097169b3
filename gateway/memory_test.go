package gateway_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// memory is a store in memory that keeps the contract of gateway.Log and gateway.History, and can be told to
// misbehave in every way that the contract allows. Events are kept in their stored form, so that what is read back
// has lost what a real store loses.
type memory struct {
	t testing.TB

	mu      sync.Mutex
	users   map[domain.UserID]domain.User
	records map[domain.ConversationID]*record
	unique  map[string]domain.ConversationID
	watched map[domain.UserID][]domain.UserID
	seen    map[domain.UserID]domain.Seen
	// announced are the announcements in their order, unread by whom.
	announced []*announced
	requests  map[string]request // what a ChangeRequest.Key led to
	counts    struct{ appends, changes, heads, pages, read, seen, watchers int }

	faults sync.Mutex
	// The hooks run outside of mu. They may block.
	beforeCommit func(ctx context.Context, c commit) error
	afterCommit  func(ctx context.Context, c commit) error
	onHeads      func(ctx context.Context, n domain.Needs) error
	onEvents     func(ctx context.Context, c domain.ConversationID) error
	away         bool // for what concerns presence
	askable      bool // but not for when users were last seen
	// afterEvents runs when they were read and before they are given.
	afterEvents func(ctx context.Context, c domain.ConversationID) error
}

type announced struct {
	domain.Announcement
	client string
	read   map[domain.UserID]bool
}

// record is one conversation. Its head is replaced, never changed.
type record struct {
	head      *domain.Conversation
	log       [][]byte
	keys      map[key]domain.Seq
	intervals map[domain.UserID][]domain.Interval
}

type key struct {
	sender domain.SenderID
	client string
}

type request struct {
	conversation domain.ConversationID
	seqs         []domain.Seq
}

// commit is what a hook gets to know of the batch.
type commit struct {
	drafts  []domain.Draft
	changes []domain.ChangeRequest
}

func newMemory(t testing.TB) *memory {
	return &memory{
		t: t, users: make(map[domain.UserID]domain.User), records: make(map[domain.ConversationID]*record),
		unique: make(map[string]domain.ConversationID), requests: make(map[string]request),
		watched: make(map[domain.UserID][]domain.UserID), seen: make(map[domain.UserID]domain.Seen),
	}
}

// errGone is what a store reports whose connection broke.
func errGone() error { return domain.Errorf(domain.Unavailable, "the store is gone") }

var errPoison = errors.New("value out of range")

// Append implements gateway.Log.
func (m *memory) Append(ctx context.Context, batch []domain.Draft) ([]domain.Placement, error) {
	if len(batch) == 0 {
		m.t.Error("an empty batch reached the store")
	}
	c := commit{drafts: slices.Clone(batch)}
	if err := m.run(ctx, c, func() func(context.Context, commit) error { return m.beforeCommit }); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errGone()
	}
	placements, err := m.append(batch)
	if err != nil {
		return nil, err
	}
	if err := m.run(ctx, c, func() func(context.Context, commit) error { return m.afterCommit }); err != nil {
		return nil, err
	}
	return placements, nil
}

func (m *memory) append(batch []domain.Draft) ([]domain.Placement, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.appends++
	type identity struct {
		conversation domain.ConversationID
		key
	}
	seen := make(map[identity]bool)
	for _, d := range batch {
		id := identity{d.Event.Conversation, key{d.Event.Sender, d.Event.ClientID}}
		if seen[id] || d.Event.ClientID == "" {
			m.t.Errorf("the batch breaks the contract: %v twice, or without a client id", id)
		}
		seen[id] = true
		if d.Event.Message.Text == "poison" {
			return nil, errPoison
		}
	}
	placements := make([]domain.Placement, len(batch))
	for i, d := range batch {
		r := m.records[d.Event.Conversation]
		if r == nil {
			placements[i] = domain.Placement{Status: domain.Missing}
			continue
		}
		k := key{d.Event.Sender, d.Event.ClientID}
		if seq, known := r.keys[k]; known {
			placements[i] = domain.Placement{Status: domain.Known, Seq: seq}
			continue
		}
		if r.head.Version != d.Version {
			placements[i] = domain.Placement{Status: domain.Stale}
			continue
		}
		head := *r.head
		head.LastSeq++
		r.head = &head
		r.keys[k] = head.LastSeq
		r.log = append(r.log, m.encode(d.Event))
		placements[i] = domain.Placement{Status: domain.Stored, Seq: head.LastSeq}
	}
	return placements, nil
}

func (m *memory) encode(ev *domain.Event) []byte {
	b, err := ev.MarshalStored()
	if err != nil {
		m.t.Errorf("an event cannot be stored: %v", err)
	}
	return b
}

// Change implements gateway.Log.
func (m *memory) Change(ctx context.Context, batch []domain.ChangeRequest) ([]domain.Changed, error) {
	if len(batch) == 0 {
		m.t.Error("an empty batch reached the store")
	}
	c := commit{changes: slices.Clone(batch)}
	if err := m.run(ctx, c, func() func(context.Context, commit) error { return m.beforeCommit }); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errGone()
	}
	changed, err := m.change(batch)
	if err != nil {
		return nil, err
	}
	if err := m.run(ctx, c, func() func(context.Context, commit) error { return m.afterCommit }); err != nil {
		return nil, err
	}
	return changed, nil
}

// change is one transaction: what it touches is copied, and put in place when all of it went well.
func (m *memory) change(batch []domain.ChangeRequest) ([]domain.Changed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.changes++
	tx := transaction{
		m: m, records: maps.Clone(m.records), unique: maps.Clone(m.unique), requests: maps.Clone(m.requests),
		users: maps.Clone(m.users),
	}
	changed := make([]domain.Changed, len(batch))
	for i := range batch {
		c, err := tx.change(&batch[i])
		if err != nil {
			return nil, err
		}
		changed[i] = c
	}
	m.records, m.unique, m.requests, m.users = tx.records, tx.unique, tx.requests, tx.users
	return changed, nil
}

type transaction struct {
	m        *memory
	records  map[domain.ConversationID]*record
	unique   map[string]domain.ConversationID
	requests map[string]request
	users    map[domain.UserID]domain.User
}

func (tx *transaction) change(req *domain.ChangeRequest) (domain.Changed, error) {
	if done, known := tx.requests[req.Key]; known {
		r := tx.records[done.conversation]
		d := domain.Decision{Conversation: clone(r.head), Result: domain.Result{Conversation: clone(r.head)}}
		for _, seq := range done.seqs {
			d.Events = append(d.Events, tx.m.decode(done.conversation, seq, r.log[seq-1]))
		}
		if t := d.Events[0].Type; t == domain.EventEditMessage || t == domain.EventRemoveMessage {
			before := d.Conversation
			d.Conversation, d.Result = nil, domain.Result{Message: d.Events[0].Message}
			return domain.Changed{Decision: d, Before: before}, nil
		}
		return domain.Changed{Decision: d}, nil
	}
	heads := tx.m.read(tx.records, tx.users, req.Principal, req.Needs)
	before := heads.Conversation
	d, err := req.Decide(heads)
	if err == nil && d.Conversation != nil && d.Conversation.UniqueKey != "" {
		if holder, taken := tx.unique[d.Conversation.UniqueKey]; taken && holder != d.Conversation.ID {
			heads = tx.m.read(tx.records, tx.users, req.Principal, req.Needs)
			heads.Existing = clone(tx.records[holder].head)
			d, err = req.Decide(heads)
		}
	}
	if err != nil {
		return domain.Changed{Err: err}, nil //nolint:nilerr // a refusal does not disturb the others
	}
	if d.Watch != nil {
		tx.m.watch(d.Watch)
	}
	if d.Announcement != nil {
		tx.m.announce(&d, req.Key)
	}
	if gone := d.AnnouncementRemoved; gone != nil {
		for _, a := range tx.m.announced {
			if a.ID == gone.ID {
				a.Announcement = *gone
			}
		}
	}
	if mark := d.AnnouncementsRead; mark != nil {
		for _, a := range tx.m.announced {
			if len(mark.IDs) == 0 || slices.Contains(mark.IDs, a.ID) {
				a.read[mark.User] = true
			}
		}
	}
	if d.Self != nil {
		tx.users[d.Self.ID] = *d.Self
	}
	if d.Read != nil {
		old := tx.records[d.Read.Conversation]
		r := *old
		r.head = clone(old.head)
		for i := range r.head.Participants {
			if r.head.Participants[i].UserID == d.Read.User {
				r.head.Participants[i].LastRead = d.Read.Seq
			}
		}
		tx.records[d.Read.Conversation] = &r
	}
	if d.Conversation == nil {
		if d.Message != nil {
			tx.rewrite(req.Key, before, d)
		}
		return domain.Changed{Decision: d, Before: before}, nil
	}
	if d.Conversation.Title == "poison" {
		return domain.Changed{}, errPoison
	}
	tx.write(req.Key, before, d)
	return domain.Changed{Decision: d, Before: before}, nil
}

// rewrite stores what a message reads like from now on, with the event that says so.
func (tx *transaction) rewrite(changeKey string, before *domain.Conversation, d domain.Decision) {
	r := *tx.records[before.ID]
	r.log, r.keys = slices.Clone(r.log), maps.Clone(r.keys)
	for seq := d.Message.Seq; seq <= before.LastSeq; seq++ {
		ev := tx.m.decode(before.ID, seq, r.log[seq-1])
		if ev.Message == nil || ev.Message.ID != d.Message.Message.ID || ev.Type == domain.EventRemoveMessage {
			continue
		}
		now := *d.Message.Message
		ev.Message = &now
		r.log[seq-1] = tx.m.encode(ev)
	}
	ev := d.Events[0]
	if ev.Seq != before.LastSeq+1 {
		tx.m.t.Errorf("%s carries number %d, the log has %d", ev.Type, ev.Seq, before.LastSeq)
	}
	r.log = append(r.log, tx.m.encode(ev))
	r.keys[key{ev.Sender, changeKey}] = ev.Seq
	r.head = clone(before)
	r.head.LastSeq = ev.Seq
	tx.requests[changeKey] = request{conversation: before.ID, seqs: []domain.Seq{ev.Seq}}
	tx.records[before.ID] = &r
}

func (tx *transaction) write(changeKey string, before *domain.Conversation, d domain.Decision) {
	id := d.Conversation.ID
	r := &record{keys: make(map[key]domain.Seq), intervals: make(map[domain.UserID][]domain.Interval)}
	if old := tx.records[id]; old != nil {
		r = &record{log: slices.Clone(old.log), keys: maps.Clone(old.keys), intervals: make(map[domain.UserID][]domain.Interval)}
		for u, in := range old.intervals {
			r.intervals[u] = slices.Clone(in)
		}
	}
	if before == nil {
		before = &domain.Conversation{}
	} else if before.UniqueKey != "" {
		delete(tx.unique, before.UniqueKey)
	}
	if d.Conversation.UniqueKey != "" {
		tx.unique[d.Conversation.UniqueKey] = id
	}
	done := request{conversation: id}
	for i, ev := range d.Events {
		if ev.Seq != domain.Seq(len(r.log)+1) {
			tx.m.t.Errorf("event %d of a change carries number %d, the log has %d", i, ev.Seq, len(r.log))
		}
		if i == 0 {
			r.keys[key{ev.Sender, changeKey}] = ev.Seq
		}
		r.log = append(r.log, tx.m.encode(ev))
		done.seqs = append(done.seqs, ev.Seq)
	}
	tx.requests[changeKey] = done
	r.head = clone(d.Conversation)
	if r.head.Version != before.Version+1 || r.head.LastSeq != domain.Seq(len(r.log)) {
		tx.m.t.Errorf("a change leads from version %d to %d, last %d of %d", before.Version, r.head.Version, r.head.LastSeq, len(r.log))
	}
	reads := func(c *domain.Conversation, user domain.UserID) bool {
		p, ok := c.Participant(user)
		return ok && p.Permissions.Reads()
	}
	for _, p := range r.head.Participants {
		if reads(r.head, p.UserID) && !reads(before, p.UserID) {
			r.intervals[p.UserID] = append(r.intervals[p.UserID], domain.Interval{From: max(before.LastSeq+1, p.JoinedSeq)})
		}
	}
	for _, p := range before.Participants {
		if reads(before, p.UserID) && !reads(r.head, p.UserID) {
			in := r.intervals[p.UserID]
			in[len(in)-1].To = r.head.LastSeq
		}
	}
	tx.records[id] = r
}

// Heads implements gateway.History.
func (m *memory) Heads(ctx context.Context, p domain.Principal, n domain.Needs) (*domain.Heads, error) {
	m.faults.Lock()
	hook := m.onHeads
	m.faults.Unlock()
	if hook != nil {
		if err := hook(ctx, n); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, errGone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.heads++
	return m.read(m.records, m.users, p, n), nil
}

// read gives what the needs name. The caller holds mu.
func (m *memory) read(
	records map[domain.ConversationID]*record, users map[domain.UserID]domain.User, p domain.Principal, n domain.Needs,
) *domain.Heads {
	h := &domain.Heads{Past: make(map[domain.ConversationID][]domain.Interval)}
	past := func(r *record) {
		if n.Past && p.User != 0 {
			h.Past[r.head.ID] = slices.Clone(r.intervals[p.User])
		}
	}
	if n.Unread != nil {
		h.Unread = m.unread(records, p.User, n.Unread)
	}
	if i := slices.IndexFunc(m.announced, func(a *announced) bool { return a.ID == n.Announcement }); i >= 0 {
		one := m.announced[i].Announcement
		h.Announcement = &one
	}
	if n.Announcements != nil {
		h.Announcements = m.announcements(p.User, n.Announcements)
	}
	if r := records[n.Conversation]; r != nil {
		h.Conversation = clone(r.head)
		if n.Alone {
			h.Conversation.Participants = slices.DeleteFunc(h.Conversation.Participants, func(q domain.Participant) bool { return q.UserID != p.User })
		}
		past(r)
		if n.Message > 0 && int(n.Message) <= len(r.log) {
			h.Message = m.decode(n.Conversation, n.Message, r.log[n.Message-1])
		}
	}
	for _, id := range n.Conversations {
		if r := records[id]; r != nil {
			h.Conversations = append(h.Conversations, clone(r.head))
			past(r)
		}
	}
	for _, u := range users {
		if n.Watched && slices.Contains(m.watched[p.User], u.ID) {
			h.Watched = append(h.Watched, u)
		}
		if u.ID == p.User && n.Self {
			h.Self = &u
		}
		if slices.ContainsFunc(n.Users, func(ref domain.UserRef) bool { return ref.Is(u) }) {
			h.Users = append(h.Users, u)
		}
	}
	return h
}

// announce stores an announcement, whatever becomes of the transaction. The caller holds mu.
func (m *memory) announce(d *domain.Decision, key string) {
	key = d.Announcement.Key(key)
	for _, a := range m.announced {
		if a.By == d.Announcement.By && a.client == key {
			if a.ID != d.Announcement.ID {
				d.Result.Announcement, d.Result.Duplicate, d.Notices = &a.Announcement, true, nil
			}
			return
		}
	}
	m.announced = append(m.announced, &announced{*d.Announcement, key, make(map[domain.UserID]bool)})
}

// announcements gives a user's announcements, the newest first. The caller holds mu.
func (m *memory) announcements(user domain.UserID, q *domain.AnnouncementQuery) (list []domain.Announcement) {
	for _, a := range slices.Backward(m.announced) {
		if slices.Contains(a.Recipients, user) && !a.Removed && !(q.Unread && a.read[user]) && len(list) < q.Limit {
			shown := a.Announcement
			shown.Read, shown.Size = a.read[user], len(a.Text)
			list = append(list, shown)
		}
	}
	return list
}

// watch does what a Watch says, whatever becomes of the transaction. The caller holds mu.
func (m *memory) watch(w *domain.Watch) {
	of := slices.DeleteFunc(slices.Clone(m.watched[w.User]), func(id domain.UserID) bool { return slices.Contains(w.Remove, id) })
	m.watched[w.User] = append(of, w.Add...)
}

// SaveSeen implements gateway.Presences.
func (m *memory) SaveSeen(_ context.Context, _ string, seen []domain.Seen) error {
	if m.isDown() {
		return errGone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.seen++
	for _, s := range seen {
		m.seen[s.User] = s
	}
	return nil
}

// LastSeen implements gateway.Presences.
func (m *memory) LastSeen(_ context.Context, users []domain.UserID) (map[domain.UserID]int64, error) {
	if m.isDown() && !m.isAskable() {
		return nil, errGone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[domain.UserID]int64)
	for _, id := range users {
		if s, ok := m.seen[id]; ok {
			seen[id] = s.At
		}
	}
	return seen, nil
}

// Watchers implements gateway.Presences.
func (m *memory) Watchers(_ context.Context, of []domain.UserID, pair func(watched, watcher domain.UserID)) error {
	if m.isDown() {
		return errGone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.watchers++
	for watcher, list := range m.watched {
		for _, watched := range list {
			if slices.Contains(of, watched) && watched != watcher {
				pair(watched, watcher)
			}
		}
	}
	return nil
}

func (m *memory) isAskable() bool {
	m.faults.Lock()
	defer m.faults.Unlock()
	return m.askable
}

// isDown reports whether reads fail.
func (m *memory) isDown() bool {
	m.faults.Lock()
	defer m.faults.Unlock()
	return m.away
}

// unread counts what a user has not read, the conversations in the order of their creation. The caller holds mu.
func (m *memory) unread(records map[domain.ConversationID]*record, user domain.UserID, q *domain.UnreadQuery) []domain.Unread {
	var list []domain.Unread
	for id, r := range records {
		part, ok := r.head.Participant(user)
		if !ok || !q.Of.IsZero() && q.Of != id {
			continue
		}
		u := domain.Unread{Conversation: id, LastSeq: r.head.LastSeq, LastRead: part.LastRead}
		for seq := max(part.LastRead, part.JoinedSeq) + 1; seq <= r.head.LastSeq; seq++ {
			ev := m.decode(id, seq, r.log[seq-1])
			if ev.Type == domain.EventSendMessage && ev.Initiator.UserID != user {
				u.Unread++
				u.LastMessage = ev.Message
			}
		}
		if u.Unread > 0 || !q.Waiting {
			list = append(list, u)
		}
	}
	slices.SortFunc(list, func(a, b domain.Unread) int { return slices.Compare(a.Conversation[:], b.Conversation[:]) })
	return list[:min(len(list), q.Limit)]
}

// Events implements gateway.History.
func (m *memory) Events(
	ctx context.Context, c domain.ConversationID, after, upto domain.Seq,
) ([]*domain.Event, error) {
	m.faults.Lock()
	hook := m.onEvents
	m.faults.Unlock()
	if hook != nil {
		if err := hook(ctx, c); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, errGone()
	}
	events := m.pageOf(c, after, upto)
	m.faults.Lock()
	hook = m.afterEvents
	m.faults.Unlock()
	if hook != nil {
		if err := hook(ctx, c); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func (m *memory) pageOf(c domain.ConversationID, after, upto domain.Seq) (events []*domain.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.pages++
	if r := m.records[c]; r != nil {
		for seq := after + 1; seq <= min(upto, r.head.LastSeq); seq++ {
			events = append(events, m.decode(c, seq, r.log[seq-1]))
		}
	}
	m.counts.read += len(events)
	return events
}

func (m *memory) decode(c domain.ConversationID, seq domain.Seq, body []byte) *domain.Event {
	ev, err := domain.UnmarshalStored(c, seq, body)
	if err != nil {
		m.t.Errorf("an event cannot be read back: %v", err)
	}
	return ev
}

func clone(c *domain.Conversation) *domain.Conversation {
	d := *c
	d.Participants = slices.Clone(c.Participants)
	return &d
}

func (m *memory) run(ctx context.Context, c commit, which func() func(context.Context, commit) error) error {
	m.faults.Lock()
	hook := which()
	m.faults.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, c)
}

// set changes the hooks.
func (m *memory) set(change func()) {
	m.faults.Lock()
	defer m.faults.Unlock()
	change()
}

// down makes every call fail at once; the function that it returns brings the store back.
func (m *memory) down() (up func()) {
	m.set(func() {
		m.away = true
		m.beforeCommit = func(context.Context, commit) error { return errGone() }
		m.onHeads = func(context.Context, domain.Needs) error { return errGone() }
		m.onEvents = func(context.Context, domain.ConversationID) error { return errGone() }
	})
	return m.heal
}

// heal removes all faults.
func (m *memory) heal() {
	m.set(func() {
		m.beforeCommit, m.afterCommit, m.onHeads, m.onEvents, m.away, m.askable = nil, nil, nil, nil, false, false
	})
}

// gate is a barrier at which calls wait until it is opened, as long as their context allows.
type gate struct {
	opened  chan struct{}
	open    func()
	arrived chan struct{} // gets a value per arrival, as far as it has room
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{}), arrived: make(chan struct{}, 10000)}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

func (g *gate) wait(ctx context.Context) error {
	g.arrived <- struct{}{}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return errGone()
	}
}

// holdCommits makes commits wait before they happen.
func (m *memory) holdCommits() *gate {
	g := newGate()
	m.set(func() { m.beforeCommit = func(ctx context.Context, _ commit) error { return g.wait(ctx) } })
	return g
}

// failAfterCommit lets the next n commits happen and then reports that nobody knows whether they did.
func (m *memory) failAfterCommit(n int) {
	m.set(func() {
		m.afterCommit = func(context.Context, commit) error {
			m.faults.Lock()
			defer m.faults.Unlock()
			if n == 0 {
				return nil
			}
			n--
			return errGone()
		}
	})
}

// addUser puts a user into the directory.
func (m *memory) addUser(id domain.UserID, root domain.AccountID) domain.User {
	m.mu.Lock()
	defer m.mu.Unlock()
	account := "acme"
	if root != 1 {
		account += strconv.Itoa(int(root))
	}
	u := domain.User{
		ID: id, Username: domain.Username("u" + id.String() + "@chat." + account), Root: root, Account: root,
	}
	m.users[id] = u
	return u
}

// texts gives the texts of a conversation's messages in the order of the log.
func (m *memory) texts(c domain.ConversationID) []string {
	texts := []string{}
	for _, ev := range m.events(c) {
		if ev.Type == domain.EventSendMessage {
			texts = append(texts, ev.Message.Text)
		}
	}
	return texts
}

// events gives the whole log of a conversation.
func (m *memory) events(c domain.ConversationID) []*domain.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[c]
	if r == nil {
		return nil
	}
	var events []*domain.Event
	for i, body := range r.log {
		events = append(events, m.decode(c, domain.Seq(i+1), body))
	}
	return events
}

// last gives the number of a conversation's newest event.
func (m *memory) last(c domain.ConversationID) domain.Seq {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[c]; r != nil {
		return r.head.LastSeq
	}
	return 0
}

// memberships gives the intervals in which a user took part and was allowed to read.
func (m *memory) memberships(c domain.ConversationID, u domain.UserID) []domain.Interval {
	times, _ := m.standing(c, u)
	return times
}

// standing gives the memberships of a user, and whether it takes part without the permission to read.
func (m *memory) standing(c domain.ConversationID, u domain.UserID) (times []domain.Interval, blind bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[c]
	if r == nil {
		return nil, false
	}
	p, ok := r.head.Participant(u)
	return slices.Clone(r.intervals[u]), ok && !p.Permissions.Reads()
}

// tally gives how often the store was asked for what.
func (m *memory) tally() (appends, changes, heads, pages, read int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	return c.appends, c.changes, c.heads, c.pages, c.read
}

// elsewhere commits a change as another node would: past the gateway under test.
func (m *memory) elsewhere(p domain.Principal, c domain.Command) domain.Changed {
	m.mu.Lock()
	m.counts.changes--
	n := len(m.requests)
	m.mu.Unlock()
	changed, err := m.change([]domain.ChangeRequest{{
		Key: "elsewhere-" + strconv.Itoa(n), Principal: p, Needs: c.Needs(p),
		Decide: func(h *domain.Heads) (domain.Decision, error) {
			h.Limits = domain.DefaultLimits()
			return domain.Decide(h, p, c)
		},
	}})
	if err != nil || changed[0].Err != nil {
		m.t.Errorf("the change elsewhere failed: %v %v", err, changed)
	}
	return changed[0]
}
