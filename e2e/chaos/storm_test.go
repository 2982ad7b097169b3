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
	rewrites      []chaos.Rewrite
	reads         []chaos.Read
	revocations   []chaos.Revocation
	changes       []change
	notes         []string
	faults        map[string]int
}

type person struct {
	id                    int64
	name, password, token string
}

// statusError is an answer that refuses.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.status, e.text) }

// outcomeOf gives what is known when a request has ended in this way. Whoever is told that something is not available does not
// know whether it happened.
func outcomeOf(err error) chaos.Outcome {
	var refused *statusError
	switch {
	case err == nil:
		return chaos.Accepted
	case errors.As(err, &refused) && refused.status < 500:
		return chaos.Refused
	}
	return chaos.Unanswered
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
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return err
		}
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
		return fmt.Errorf("%s %s: %w", method, path, &statusError{res.StatusCode, string(answer)})
	case into == nil:
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (s *storm) must(key, method, path string, body, into any) {
	s.t.Helper()
	s.insist(func() error { return s.call(s.t.Context(), key, method, path, body, into) })
}

// insist does something until it works out.
func (s *storm) insist(do func() error) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := do()
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
		s.insist(func() (err error) {
			p.token, err = s.logIn(s.t.Context(), p)
			return err
		})
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

func (s *storm) logIn(ctx context.Context, p person) (token string, err error) {
	var made struct{ AccessToken string }
	err = s.call(ctx, s.service, "POST", "/v1/login", map[string]any{"username": p.name, "password": p.password}, &made)
	return made.AccessToken, err
}

func (s *storm) somewhere(r *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conversations[r.IntN(len(s.conversations))]
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
	for n := range desks {
		live = append(live, s.newLive(n))
	}
	s.note("all devices have subscribed")
	var writers, readers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() { s.publisher(ctx, calm, n) })
	}
	for n := range 2 {
		writers.Go(func() { s.rewriter(ctx, n) })
	}
	writers.Go(func() { s.reader(ctx) })
	writers.Go(func() { s.revoker(ctx) })
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
	h := &chaos.History{
		Logs: make(map[string][]chaos.Event), Publishes: s.publishes, Rewrites: s.rewrites, Revocations: s.revocations, Shaky: s.shaky,
	}
	for _, c := range s.conversations {
		h.Logs[c] = s.read(c)
	}
	s.date(h.Logs)
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
	h.Reads = append(s.reads, s.readAll(h.Logs)...)
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
	done := make(map[string]int)
	for _, w := range h.Rewrites {
		if w.Outcome == chaos.Accepted {
			done[map[bool]string{true: "removals", false: "edits"}[w.Removal]]++
		}
	}
	done["changes of participants"], done["revocations"], done["reads of the past"] = len(s.changes), len(h.Revocations), len(h.Reads)
	s.t.Logf("%d events in %d conversations, %d deliveries on %d connections, %v, faults: %v",
		events, len(h.Logs), deliveries, connections, done, s.faults)
	for _, what := range []string{"edits", "removals", "changes of participants", "revocations", "reads of the past"} {
		if events < 100 || deliveries < events || done[what] == 0 {
			s.t.Errorf("too little has happened for the run to mean anything: %d %s", done[what], what)
		}
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
