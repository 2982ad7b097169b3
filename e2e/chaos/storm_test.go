package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
	"github.com/parley-im/parley/persistence/pgtest"
)

const (
	adminKey = "the-admin-key-of-the-storm"
	// flushed is how long before a crash an acknowledgement must have been handled to count: about a second, and what
	// two busy cores add to it.
	flushed = 4 * time.Second
	// patience is how long something may take that must happen.
	patience = time.Minute
)

// storm is a gateway process with everybody around it.
type storm struct {
	t    *testing.T
	seed uint64
	proc *chaos.Process
	pg   *pgtest.Server // nil: the store is SQLite
	web  http.Client

	service string
	// outage is when the store was gone for the last time.
	outage chaos.Period
	// anchors take part in every conversation, all the time.
	anchors, others []person

	// breaks counts what has ended connections, before it does: a phone behind a stalled proxy does not notice.
	breaks atomic.Int64

	mu            sync.Mutex
	conversations []string
	shaky         []chaos.Period
	publishes     []chaos.Publish
	notes         []string
	faults        map[string]int
}

type person struct {
	id             int64
	name, password string
}

// note keeps what was done, for when something turns out to be wrong.
func (s *storm) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (s *storm) fault(name string) {
	s.note("%s", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[name]++
}

// random gives the dice of one actor.
func (s *storm) random(actor string, n int) *rand.Rand {
	h := uint64(n)
	for _, c := range []byte(actor) {
		h = h*1099511628211 + uint64(c)
	}
	return rand.New(rand.NewPCG(s.seed, h))
}

// pause waits; false: the time is up.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func millis(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+r.IntN(to-from+1)) * time.Millisecond
}

// call makes a request to the HTTP API. An error says nothing about whether it had an effect.
func (s *storm) call(ctx context.Context, key, method, path string, body, into any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	addr := s.proc.Addr("http")
	if addr == "" {
		return errors.New("the gateway is down")
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.web.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 300:
		return fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, answer)
	case into == nil:
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (s *storm) must(key, method, path string, body, into any) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := s.call(s.t.Context(), key, method, path, body, into)
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !pause(s.t.Context(), 20*time.Millisecond) {
			s.t.Fatal(err)
		}
	}
}

func (s *storm) setUp() {
	var made struct{ Key string }
	s.must(adminKey, "POST", "/v1/services", map[string]any{"account": "acme", "name": "Weather"}, &made)
	s.service = made.Key
	for i := range 10 {
		p := person{name: fmt.Sprintf("user%d@chat.acme", i), password: fmt.Sprintf("password of %d", i)}
		var made struct{ User struct{ UserID int64 } }
		s.must(s.service, "POST", "/v1/users", map[string]any{"username": p.name, "password": p.password}, &made)
		p.id = made.User.UserID
		if i < 2 {
			s.anchors = append(s.anchors, p)
		} else {
			s.others = append(s.others, p)
		}
	}
	r := s.random("setup", 0)
	for range 6 {
		if err := s.create(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
	}
}

func refs(people ...person) []map[string]any {
	var list []map[string]any
	for _, p := range people {
		list = append(list, map[string]any{"userId": p.id})
	}
	return list
}

// create makes a conversation of the anchors and some others.
func (s *storm) create(ctx context.Context, r *rand.Rand) error {
	people := append([]person(nil), s.anchors...)
	for _, p := range s.others {
		if r.IntN(3) > 0 {
			people = append(people, p)
		}
	}
	var made struct{ Conversation struct{ UUID string } }
	err := s.call(ctx, s.service, "POST", "/v1/conversations", map[string]any{
		"participants": refs(people...), "publicJoin": true, "uber": r.IntN(2) == 0,
	}, &made)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conversations = append(s.conversations, made.Conversation.UUID)
	return nil
}

func (s *storm) somewhere(r *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conversations[r.IntN(len(s.conversations))]
}

// wire is an event as it is sent.
type wire struct {
	Type, Action, Conversation string
	Seq                        int64
	Message                    *struct{ ID string }
	ConversationData           *struct{ Participants []struct{ UserID int64 } }
	Participants               []struct{ UserID int64 }
}

func (w *wire) event() chaos.Event {
	ev := chaos.Event{Conversation: w.Conversation, Seq: w.Seq, Type: w.Type, Action: w.Action}
	if w.Message != nil {
		ev.Message = w.Message.ID
	}
	if w.Type == "createConversation" && w.ConversationData != nil {
		for _, p := range w.ConversationData.Participants {
			ev.Users = append(ev.Users, p.UserID)
		}
	}
	for _, p := range w.Participants {
		ev.Users = append(ev.Users, p.UserID)
	}
	return ev
}

func eventOf(payload []byte) (chaos.Event, error) {
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		return chaos.Event{}, fmt.Errorf("%w in %s", err, payload)
	}
	return w.event(), nil
}

// everything gives all conversations that there are: when a gateway is killed, the answer to a creation may be lost like any
// other.
func (s *storm) everything() []string {
	var list []string
	for cursor := ""; ; {
		var page struct {
			Conversations []struct{ UUID string }
			NextCursor    string
		}
		s.must(s.service, "GET", "/v1/conversations?limit=100&cursor="+cursor, nil, &page)
		for _, c := range page.Conversations {
			list = append(list, c.UUID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	for _, c := range s.conversations {
		if !slices.Contains(list, c) {
			s.t.Errorf("conversation %s was created and is not there", c)
		}
	}
	return list
}

// read gives the log of a conversation.
func (s *storm) read(conversation string) []chaos.Event {
	var head struct{ Conversation struct{ LastSeq int64 } }
	s.must(s.service, "GET", "/v1/conversations/"+conversation, nil, &head)
	var log []chaos.Event
	for int64(len(log)) < head.Conversation.LastSeq {
		var page struct{ Events []wire }
		s.must(s.service, "GET", fmt.Sprintf("/v1/conversations/%s/events?from=%d&count=100", conversation, len(log)+1), nil, &page)
		if len(page.Events) == 0 {
			s.t.Errorf("%s ends at %d, not %d", conversation, len(log), head.Conversation.LastSeq)
			break
		}
		for i := range page.Events {
			log = append(log, page.Events[i].event())
		}
	}
	return log
}

// publisher sends messages, each again and again until it is answered.
func (s *storm) publisher(ctx, last context.Context, n int) {
	r := s.random("publisher", n)
	who, version := s.anchors[n%2], byte(4)
	if n%2 == 1 { // a refusal can only be told from success in MQTT 5
		who, version = s.others[n%len(s.others)], 5
	}
	var client *chaos.Client
	drop := func() {
		if client != nil {
			client.Cut()
			client = nil
		}
	}
	defer drop()
	next := 0
	for ctx.Err() == nil {
		batch := make([]chaos.Publish, 1+r.IntN(6))
		for i := range batch {
			next++
			batch[i] = chaos.Publish{Conversation: s.somewhere(r), ID: fmt.Sprintf("p%d-%d", n, next)}
		}
		for open := true; open && last.Err() == nil; {
			if client == nil {
				client = s.dial(last, s.proc.Addr("mqtt"), chaos.Login{
					Version: version, User: who.name, Password: who.password, Device: fmt.Sprint("publisher-", n), Clean: true,
				})
				continue
			}
			if err := attempt(client, batch); err != nil {
				drop()
			}
			open = false
			for i := range batch {
				open = open || batch[i].Outcome == chaos.Unanswered
			}
			if open && r.IntN(20) == 0 {
				drop()
			}
		}
		s.mu.Lock()
		s.publishes = append(s.publishes, batch...)
		s.mu.Unlock()
		if r.IntN(40) == 0 {
			drop() // with what it had sent all answered: nothing may be stored twice
		}
		if !pause(ctx, millis(r, 0, 30)) {
			return
		}
	}
}

// dial connects a client; nil: it did not work out, and it may be tried again.
func (s *storm) dial(ctx context.Context, address string, l chaos.Login) *chaos.Client {
	if address != "" {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		client, err := chaos.Dial(ctx, address, l)
		if err == nil {
			return client
		}
		if errors.Is(err, chaos.ErrNoConnack) {
			s.t.Errorf("%s: %v", l.Device, err)
		}
		var refused *chaos.RefusedError
		if errors.As(err, &refused) && refused.Reason != 0x88 && refused.Reason != 3 && refused.Reason != 0x8b {
			s.t.Errorf("%s is refused: %v", l.Device, err)
		}
	}
	pause(ctx, 20*time.Millisecond)
	return nil
}

// attempt sends what is not answered, and waits for the answers.
func attempt(client *chaos.Client, batch []chaos.Publish) error {
	waiting := make(map[uint16]*chaos.Publish)
	for i := range batch {
		p := &batch[i]
		if p.Outcome != chaos.Unanswered {
			continue
		}
		if p.Begun.IsZero() {
			p.Begun = time.Now()
		}
		id := uint16(i + 1)
		waiting[id] = p
		p.Doubtful = true
		payload := fmt.Sprintf(`{"id":%q,"text":"hello from %s"}`, p.ID, p.ID)
		if err := client.Publish(id, "conversations/"+p.Conversation+"/messages", []byte(payload), false); err != nil {
			return err
		}
	}
	for len(waiting) > 0 {
		client.SetReadDeadline(time.Now().Add(patience))
		ack, err := client.Read()
		if err != nil {
			return err
		}
		p := waiting[ack.ID]
		if ack.Kind != chaos.KindPuback || p == nil {
			continue
		}
		delete(waiting, ack.ID)
		switch {
		case ack.Reason < 0x80:
			p.Outcome, p.Seq = chaos.Accepted, ack.Seq()
		case ack.Reason == 0x87 || ack.Reason == 0x83:
			p.Outcome = chaos.Refused
		case ack.Reason == 0x97:
			// Refused for now, and certainly not stored by this attempt; but earlier ones may have been.
		}
	}
	return nil
}

// members changes who takes part, by the service and by the users themselves.
func (s *storm) members(ctx context.Context) {
	r := s.random("members", 0)
	for pause(ctx, millis(r, 20, 200)) {
		p, c := s.others[r.IntN(len(s.others))], s.somewhere(r)
		path, body := "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(p)}
		switch r.IntN(8) {
		case 0, 1, 2:
			_ = s.call(ctx, s.service, "DELETE", path, body, nil)
		case 3, 4, 5, 6:
			_ = s.call(ctx, s.service, "POST", path, body, nil)
		case 7:
			if r.IntN(3) == 0 {
				_ = s.create(context.WithoutCancel(ctx), r)
			}
		}
	}
}

// leavers lets users leave and join by themselves.
func (s *storm) leavers(ctx context.Context) {
	r := s.random("leavers", 0)
	for pause(ctx, millis(r, 100, 600)) {
		p := s.others[r.IntN(len(s.others))]
		client := s.dial(ctx, s.proc.Addr("mqtt"), chaos.Login{Version: 5, User: p.name, Password: p.password, Device: "leaver", Clean: true})
		if client == nil {
			continue
		}
		for id := range uint16(4) {
			command := "commands/joinConversation"
			if r.IntN(2) == 0 {
				command = "commands/leaveConversation"
			}
			_ = client.Publish(id+1, command, fmt.Appendf(nil, `{"uuid":%q}`, s.somewhere(r)), false)
		}
		client.SetReadDeadline(time.Now().Add(patience))
		_, _ = client.Read()
		client.Cut()
	}
}

// weather makes things fail.
func (s *storm) weather(ctx context.Context, proxies []*chaos.Proxy) {
	r := s.random("weather", 0)
	for pause(ctx, millis(r, 1000, 4000)) {
		switch r.IntN(6) {
		case 0, 1:
			s.restart(ctx, "kill -9 of the gateway", s.proc.Kill9)
		case 2:
			s.restart(ctx, "restart of the gateway", s.proc.Stop)
		case 3, 4:
			if s.pg == nil {
				continue
			}
			s.fault("kill -9 of Postgres")
			begin := time.Now()
			if err := s.pg.Kill9(); err != nil {
				s.t.Error(err)
			}
			pause(ctx, millis(r, 0, 1500))
			if r.IntN(4) == 0 {
				s.outage = chaos.Period{From: begin, To: time.Now()}
				s.restart(ctx, "kill -9 of the gateway without Postgres", s.proc.Kill9)
			}
			if err := s.pg.Restart(context.WithoutCancel(ctx)); err != nil {
				s.t.Error(err)
			}
			s.outage = chaos.Period{From: begin, To: time.Now()}
			s.note("Postgres is back")
		case 5:
			s.fault("all phones lose their network")
			s.breaks.Add(1)
			for _, p := range proxies {
				p.Cut()
			}
		}
	}
}

func (s *storm) unsure(from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shaky = append(s.shaky, chaos.Period{From: from, To: to})
}

// restart ends the gateway and starts it again; without a store that takes several attempts.
func (s *storm) restart(ctx context.Context, what string, end func() error) {
	s.fault(what)
	s.breaks.Add(1)
	begin := time.Now()
	if err := end(); err != nil {
		s.t.Error(err)
	}
	if strings.HasPrefix(what, "kill") {
		begin = begin.Add(-flushed)
		if s.outage.To.After(begin) { // nothing was flushed meanwhile either
			begin = s.outage.From.Add(-flushed)
		}
	}
	ctx = context.WithoutCancel(ctx)
	for deadline := time.Now().Add(2 * patience); ; {
		err := s.proc.Start(ctx)
		if err == nil {
			break
		}
		if s.pg != nil && !s.pg.Running() {
			if err := s.pg.Restart(ctx); err != nil {
				s.t.Error(err)
			}
			continue
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
	s.unsure(begin, time.Now())
	s.note("the gateway serves again")
}

// long gives how long a storm lasts, and its seed.
func long(t *testing.T) (time.Duration, uint64) {
	t.Helper()
	length, seed := 25*time.Second, rand.Uint64()
	if v := os.Getenv("CHAOS"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		length = d
	}
	if v := os.Getenv("CHAOS_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	return length, seed
}

func TestNothingIsLostRepeatedOrLeakedInAStorm(t *testing.T) {
	// What each promise is worth shows when phones, gateways and stores fail together, as they do.
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			length, seed := long(t)
			t.Logf("repeat with CHAOS_SEED=%d CHAOS=%s", seed, length)
			s := &storm{t: t, seed: seed, faults: make(map[string]int)}
			url := "sqlite://" + t.TempDir() + "/parley.db"
			if name == "postgres" {
				s.pg = pgtest.New(t)
				var err error
				if url, err = s.pg.CreateDatabase(t.Context(), "storm"); err != nil {
					t.Fatal(err)
				}
			}
			s.proc = &chaos.Process{Binary: binary(t), Env: map[string]string{
				"STORE_URL": url, "ADMIN_KEY": adminKey, "LOGIN_ARGON2MEMORY": "64", "LOGIN_ARGON2ITERATIONS": "1",
			}}
			if err := s.proc.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.proc.Stop(); err != nil {
					t.Error(err)
				}
			})
			s.setUp()
			s.rage(length)
		})
	}
}

// rage lets everything happen at once for a time, then waits until everybody has everything, and judges.
func (s *storm) rage(length time.Duration) {
	ctx, cancel := context.WithTimeout(s.t.Context(), length)
	defer cancel()
	// Publishers and devices go on for a while when the storm is over, to end what they have begun.
	calm, end := context.WithCancel(s.t.Context())
	defer end()
	var durable []*durableDevice
	var live []*liveDevice
	var proxies []*chaos.Proxy
	for n := range 6 {
		d := s.newDurable(n)
		durable, proxies = append(durable, d), append(proxies, d.proxy)
	}
	for n := range 3 {
		live = append(live, s.newLive(n))
	}
	s.note("all devices have subscribed")
	var writers, readers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() { s.publisher(ctx, calm, n) })
	}
	writers.Go(func() { s.members(ctx) })
	writers.Go(func() { s.leavers(ctx) })
	writers.Go(func() { s.weather(ctx, proxies) })
	for _, d := range durable {
		readers.Go(func() { d.live(ctx) })
	}
	for _, d := range live {
		readers.Go(func() { d.live(ctx, calm) })
	}
	// What was given up could still be committed after its log was read.
	stop := time.AfterFunc(length+2*patience, end)
	defer stop.Stop()
	writers.Wait()
	s.note("the storm is over")
	s.conversations = s.everything()
	h := &chaos.History{Logs: make(map[string][]chaos.Event), Publishes: s.publishes, Shaky: s.shaky}
	for _, c := range s.conversations {
		h.Logs[c] = s.read(c)
	}
	var finals sync.WaitGroup
	for _, d := range live {
		due := chaos.Due(h, &d.Device)
		finals.Go(func() { d.await(due) })
	}
	finals.Wait()
	end()
	readers.Wait()
	for _, d := range durable {
		due := chaos.Due(h, &d.Device)
		finals.Go(func() { d.drain(due) })
	}
	finals.Wait()
	events, deliveries, connections := 0, 0, 0
	for _, log := range h.Logs {
		events += len(log)
	}
	for _, d := range durable {
		h.Devices = append(h.Devices, d.record())
	}
	for _, d := range live {
		h.Devices = append(h.Devices, d.record())
	}
	for _, d := range h.Devices {
		connections += len(d.Connections)
		for _, c := range d.Connections {
			deliveries += len(c.Deliveries)
		}
	}
	s.t.Logf("%d events in %d conversations, %d deliveries on %d connections, faults: %v",
		events, len(h.Logs), deliveries, connections, s.faults)
	if events < 100 || deliveries < events {
		s.t.Error("too little has happened for the run to mean anything")
	}
	problems := chaos.Check(h)
	for i, p := range problems {
		if i == 25 {
			s.t.Errorf("and %d more", len(problems)-i)
			break
		}
		s.t.Error(p)
	}
	log := s.proc.Log()
	for _, bad := range []string{"DATA RACE", "level=ERROR", "panic:"} {
		if strings.Contains(log, bad) {
			s.t.Errorf("the gateway's log has %q", bad)
		}
	}
	if s.t.Failed() {
		s.t.Logf("what was done:\n%s", strings.Join(s.notes, "\n"))
		if dir := os.Getenv("CHAOS_DIR"); dir != "" {
			_ = os.WriteFile(dir+"/"+strings.ReplaceAll(s.t.Name(), "/", "-")+".log", []byte(log), 0o600)
			b, _ := json.Marshal(h)
			_ = os.WriteFile(dir+"/"+strings.ReplaceAll(s.t.Name(), "/", "-")+".json", b, 0o600)
		}
	}
}
