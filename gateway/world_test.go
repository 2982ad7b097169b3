package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// allEvents is the filter that nearly every client uses.
const allEvents = "conversations/+/events"

// world is a gateway on a store in memory, with clients. It lives in a synctest bubble: [world.settle] waits until
// nothing moves any more, so that tests can also say what does not happen.
type world struct {
	t        *testing.T
	store    *memory
	g        *gateway.Gateway
	registry *prometheus.Registry
}

// newWorld makes a gateway with one committer, unless an option says otherwise. It ends with the test.
func newWorld(t *testing.T, options ...func(*gateway.Options)) *world {
	t.Helper()
	store, registry := newMemory(t), prometheus.NewRegistry()
	o := gateway.Options{
		Logs: []gateway.Log{store}, History: store, Presence: store, Authenticator: &door{store: store}, Registerer: registry,
	}
	for _, option := range options {
		option(&o)
	}
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: store, g: g, registry: registry}
	t.Cleanup(g.Close)
	return w
}

// gauge gives the value of a gauge or counter without labels.
func (w *world) gauge(name string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	w.t.Fatalf("no metric %s", name)
	return 0
}

// settle waits until every goroutine waits for something that only the test or the passing of time brings.
func (w *world) settle() { synctest.Wait() }

// pass lets time pass, and everything happen that happens meanwhile.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// user gives a user of the main account tree, made when missing.
func (w *world) user(id domain.UserID) domain.Principal {
	return w.store.addUser(id, 1).Principal("")
}

// service is a backend of the account tree.
func service(root domain.AccountID) domain.Principal {
	return domain.Principal{Service: 70 + domain.ServiceID(root), ServiceName: "billing", Root: root, Account: root}
}

// converse creates a conversation of the users; the first one owns it.
func (w *world) converse(users ...domain.UserID) domain.ConversationID {
	w.t.Helper()
	c := &domain.CreateConversation{}
	owner := w.user(users[0])
	for _, u := range users[1:] {
		w.user(u)
		c.Participants = append(c.Participants, domain.NewParticipant{UserRef: domain.UserRef{UserID: u}})
	}
	r, err := w.g.Do(w.t.Context(), owner, c)
	if err != nil {
		w.t.Fatalf("createConversation: %v", err)
	}
	return r.Conversation
}

// cold creates a conversation as another node would, so that this gateway has not heard of it.
func (w *world) cold(users ...domain.UserID) domain.ConversationID {
	w.t.Helper()
	id := domain.ConversationID{0: 0x99, 6: 0x70, 8: 0x80, 15: byte(len(w.store.records))}
	c := &domain.CreateConversation{}
	owner := w.user(users[0])
	for _, u := range users[1:] {
		w.user(u)
		c.Participants = append(c.Participants, domain.NewParticipant{UserRef: domain.UserRef{UserID: u}})
	}
	w.store.mu.Lock()
	n := len(w.store.requests)
	w.store.mu.Unlock()
	changed, err := w.store.change([]domain.ChangeRequest{{
		Key: fmt.Sprint("cold-", n), Principal: owner, Needs: c.Needs(owner),
		Decide: func(h *domain.Heads) (domain.Decision, error) {
			h.NewID, h.Limits = id, domain.DefaultLimits()
			return domain.Decide(h, owner, c)
		},
	}})
	if err != nil || changed[0].Err != nil {
		w.t.Fatalf("createConversation elsewhere: %v %v", err, changed)
	}
	return id
}

func add(c domain.ConversationID, users ...domain.UserID) *domain.AddParticipants {
	a := &domain.AddParticipants{UUID: c}
	for _, u := range users {
		a.Participants = append(a.Participants, domain.NewParticipant{UserRef: domain.UserRef{UserID: u}})
	}
	return a
}

func remove(c domain.ConversationID, users ...domain.UserID) *domain.RemoveParticipants {
	r := &domain.RemoveParticipants{UUID: c}
	for _, u := range users {
		r.Participants = append(r.Participants, domain.UserRef{UserID: u})
	}
	return r
}

// do runs a command that is expected to succeed, and lets everything happen that follows from it.
func (w *world) do(user domain.UserID, c domain.Command) domain.Receipt {
	w.t.Helper()
	r, err := w.g.Do(w.t.Context(), w.user(user), c)
	if err != nil {
		w.t.Fatalf("%s: %v", c.Name(), err)
	}
	synctest.Wait()
	return r
}

// message makes a message; id may be empty.
func message(c domain.ConversationID, text, id string) *domain.SendMessage {
	m := &domain.SendMessage{Conversation: c}
	m.Text, m.ClientID = text, id
	return m
}

// answer is what became of a command.
type answer struct {
	w       *world
	command domain.Command
	done    chan struct{}
	receipt domain.Receipt
	err     error
}

func (w *world) expect(c domain.Command) *answer {
	return &answer{w: w, command: c, done: make(chan struct{})}
}

// take is called by the gateway. A second call panics. Whatever is acknowledged must be in the store by then.
func (a *answer) take(r domain.Receipt, err error) {
	a.receipt, a.err = r, err
	if err == nil && r.Seq != 0 && a.w.store.last(r.Conversation) < r.Seq {
		a.w.t.Errorf("%s was acknowledged with number %d, the store has only %d",
			a.command.Name(), r.Seq, a.w.store.last(r.Conversation))
	}
	close(a.done)
}

func (a *answer) answered() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// code gives the refusal's code, "" for success and "pending" while there is no answer.
func (a *answer) code() domain.Code {
	if !a.answered() {
		return "pending"
	}
	return domain.CodeOf(a.err)
}

// start runs a command for a principal without waiting.
func (w *world) start(p domain.Principal, c domain.Command) *answer {
	a := w.expect(c)
	go func() { a.take(w.g.Do(context.WithoutCancel(w.t.Context()), p, c)) }()
	return a
}

// client is a session with the connection that belongs to it: by default one that pulls whenever it is woken.
type client struct {
	w         *world
	principal domain.Principal
	session   *gateway.Session
	window    int
	capacity  int
	// delay is how long the pump takes per pull; nil: no time.
	delay func() time.Duration
	// onWake is called by every Wake; nil: nothing is.
	onWake func()

	ready  chan struct{} // closed when session is set
	wakes  chan struct{}
	ended  chan struct{}
	finish func()

	mu         sync.Mutex
	woken      int
	deliveries []domain.Delivery
	events     map[domain.ConversationID][]*domain.Event
	direct     []direct
	farewells  []domain.Farewell
	failures   int
}

// direct is a reply or notice that a client got.
type direct struct {
	topic string
	body  map[string]any
}

type option func(*client, *domain.Hello)

func device(id string) option {
	return func(_ *client, h *domain.Hello) { h.Device = id }
}

func tag(tag string) option {
	return func(_ *client, h *domain.Hello) { h.Tag = tag }
}

func reconnect(_ *client, h *domain.Hello) { h.Reconnect = true }

// window sets how many unacknowledged deliveries a client takes at a time, and how many it pulls at a time.
func window(window, capacity int) option {
	return func(c *client, _ *domain.Hello) { c.window, c.capacity = window, capacity }
}

func slow(delay func() time.Duration) option {
	return func(c *client, _ *domain.Hello) { c.delay = delay }
}

// idle makes a client that never pulls by itself: the test does, by [client.pull].
func idle(c *client, _ *domain.Hello) { c.window = -1 }

func (w *world) dial(p domain.Principal, options ...option) (*client, error) {
	hello := domain.Hello{Username: string(p.Username), Device: "phone", Version: 5}
	if p.IsBackend() {
		hello.Username = fmt.Sprintf("service/%d", p.Root)
	}
	c := &client{
		w: w, principal: p, window: 64, capacity: 64,
		ready: make(chan struct{}), wakes: make(chan struct{}, 1), ended: make(chan struct{}),
		events: make(map[domain.ConversationID][]*domain.Event),
	}
	c.finish = sync.OnceFunc(func() { close(c.ended) })
	for _, o := range options {
		o(c, &hello)
	}
	session, welcome, err := w.g.Connect(w.t.Context(), hello, c)
	if err != nil {
		return nil, err
	}
	if welcome.Principal.Device != hello.Device {
		w.t.Errorf("the session is of device %q, not %q", welcome.Principal.Device, hello.Device)
	}
	c.session = session
	close(c.ready)
	if c.window < 0 {
		w.t.Cleanup(func() { session.Leave(true) })
		return c, nil
	}
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		c.pump()
	}()
	w.t.Cleanup(func() { c.finish(); <-pumped })
	return c, nil
}

// connect makes a client of a user; events: it subscribes to all of them at QoS 1.
func (w *world) connect(user domain.UserID, options ...option) *client {
	w.t.Helper()
	return w.attach(w.user(user), options...)
}

func (w *world) attach(p domain.Principal, options ...option) *client {
	w.t.Helper()
	c, err := w.dial(p, options...)
	if err != nil {
		w.t.Fatalf("connect: %v", err)
	}
	return c
}

// subscriber is a client that listens to the events of all conversations at QoS 1.
func (w *world) subscriber(user domain.UserID, options ...option) *client {
	w.t.Helper()
	c := w.connect(user, options...)
	c.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
	return c
}

func (c *client) subscribe(filter string, o domain.SubscribeOptions) {
	c.w.t.Helper()
	if err := c.session.Subscribe(c.w.t.Context(), []domain.Subscription{{Filter: filter, Options: o}})[0]; err != nil {
		c.w.t.Fatalf("subscribe to %s: %v", filter, err)
	}
}

func (c *client) inbox() string   { return "users/" + string(c.principal.Username) + "/inbox" }
func (c *client) replies() string { return "users/" + string(c.principal.Username) + "/replies" }

// submit hands a command over as a publish.
func (c *client) submit(req domain.Request) *answer {
	a := c.w.expect(req.Command)
	c.session.Submit(req, a.take)
	return a
}

func (c *client) send(to domain.ConversationID, text string) *answer {
	return c.sendAs(to, text, "")
}

func (c *client) sendAs(to domain.ConversationID, text, id string) *answer {
	return c.submit(domain.Request{Command: message(to, text, id), Name: "sendMessage"})
}

// Wake implements gateway.Sink.
func (c *client) Wake() {
	c.mu.Lock()
	c.woken++
	hook := c.onWake
	c.mu.Unlock()
	if hook != nil {
		hook()
	}
	select {
	case c.wakes <- struct{}{}:
	default:
	}
}

// Close implements gateway.Sink. The connection ends, and then the session leaves.
func (c *client) Close(why domain.Farewell) {
	c.mu.Lock()
	c.farewells = append(c.farewells, why)
	c.mu.Unlock()
	c.finish()
}

// hang up ends the connection from the client's side.
func (c *client) hangUp() { c.finish() }

func (c *client) pump() {
	defer c.session.Leave(false)
	var again <-chan time.Time
	for {
		select {
		case <-c.ended:
			return
		case <-c.wakes:
		case <-again:
		}
		again = nil
		for {
			n, err := c.pull(c.capacity, c.window)
			if err != nil {
				again = time.After(50 * time.Millisecond)
				break
			}
			if n == 0 {
				break
			}
			if c.delay != nil {
				select {
				case <-time.After(c.delay()):
				case <-c.ended:
					return
				}
			}
		}
	}
}

// pull takes what there is, records and acknowledges it.
func (c *client) pull(capacity, window int) (int, error) {
	ds, err := c.session.Next(context.WithoutCancel(c.w.t.Context()), make([]domain.Delivery, 0, capacity), window)
	c.record(ds, capacity, window)
	if err != nil {
		c.mu.Lock()
		c.failures++
		c.mu.Unlock()
	}
	for _, d := range ds {
		c.session.Done(d)
	}
	return len(ds), err
}

func (c *client) record(ds []domain.Delivery, capacity, window int) {
	t := c.w.t
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(ds) > capacity {
		t.Errorf("%d deliveries where %d have room", len(ds), capacity)
	}
	for _, d := range ds {
		if d.QoS > 0 {
			window--
		}
		c.deliveries = append(c.deliveries, d)
		if d.Seq == 0 {
			var body map[string]any
			if err := json.Unmarshal(d.Publication.Payload, &body); err != nil {
				t.Errorf("%s carries no JSON: %v", d.Publication.Topic, err)
			}
			c.direct = append(c.direct, direct{d.Publication.Topic, body})
			continue
		}
		var ev domain.Event
		if err := json.Unmarshal(d.Publication.Payload, &ev); err != nil {
			t.Errorf("%s carries no event: %v", d.Publication.Topic, err)
		}
		if ev.Seq != d.Seq || ev.Conversation != d.Conversation ||
			d.Publication.Topic != "conversations/"+d.Conversation.String()+"/events" {
			t.Errorf("a delivery of event %d of %s carries %d of %s", d.Seq, d.Conversation, ev.Seq, ev.Conversation)
		}
		c.events[d.Conversation] = append(c.events[d.Conversation], &ev)
	}
	if window < 0 {
		t.Errorf("%d deliveries at QoS 1 more than the window allows", -window)
	}
}

// seqs gives the numbers of the events that the client got of a conversation, in the order in which it got them.
func (c *client) seqs(of domain.ConversationID) []domain.Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	seqs := []domain.Seq{}
	for _, ev := range c.events[of] {
		seqs = append(seqs, ev.Seq)
	}
	return seqs
}

// texts gives the texts of the messages that the client got of a conversation.
func (c *client) texts(of domain.ConversationID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	texts := []string{}
	for _, ev := range c.events[of] {
		if ev.Message != nil {
			texts = append(texts, ev.Message.Text)
		}
	}
	return texts
}

// notices gives what the client got on a topic.
func (c *client) notices(topic string) []map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bodies []map[string]any
	for _, d := range c.direct {
		if d.topic == topic {
			bodies = append(bodies, d.body)
		}
	}
	return bodies
}

// types gives the types of the notices that the client got in its inbox, but for what is unread.
func (c *client) types() []string {
	types := []string{}
	for _, n := range c.notices(c.inbox()) {
		if n["type"] != "unread" {
			types = append(types, fmt.Sprint(n["type"]))
		}
	}
	return types
}

// unread gives the notices of what is unread that the client got in its inbox.
func (c *client) unread() []map[string]any {
	return slices.DeleteFunc(c.notices(c.inbox()), func(n map[string]any) bool { return n["type"] != "unread" })
}

func (c *client) goodbyes() []domain.Farewell {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.farewells)
}

// span gives the numbers from..to.
func span(from, to domain.Seq) []domain.Seq {
	seqs := []domain.Seq{}
	for s := from; s <= to; s++ {
		seqs = append(seqs, s)
	}
	return seqs
}

// wantSeqs checks what a client got of a conversation.
func (c *client) wantSeqs(of domain.ConversationID, want []domain.Seq) {
	c.w.t.Helper()
	if got := c.seqs(of); !slices.Equal(got, want) {
		c.w.t.Errorf("%s got the events %v, want %v", c.principal.Username, got, want)
	}
}

// door lets everybody in whom the store knows, without a password.
type door struct {
	store   *memory
	expires time.Time
	// login gives the login of the token that a device has; nil: it has a password. asked is called before any answer.
	login func(h domain.Hello) [16]byte
	asked func()
}

// Authenticate implements gateway.Authenticator.
func (d *door) Authenticate(_ context.Context, h domain.Hello) (domain.Principal, time.Time, error) {
	if root, ok := strings.CutPrefix(h.Username, "service/"); ok {
		var r domain.AccountID
		_, err := fmt.Sscan(root, &r)
		return service(r), d.expires, err
	}
	if d.asked != nil {
		d.asked()
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	for _, u := range d.store.users {
		if string(u.Username) == h.Username {
			p := u.Principal(h.Device)
			if d.login != nil {
				p.Login = d.login(h)
			}
			return p, d.expires, nil
		}
	}
	return domain.Principal{}, time.Time{}, domain.Errorf(domain.NotAuthenticated, "nobody of that name")
}

// texts makes n different texts.
func texts(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return out
}
