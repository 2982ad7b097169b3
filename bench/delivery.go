package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// cursors measures what it costs the store to remember how far everybody is: the group set-up at full load, in turns with
// sessions that end with their connections and with durable ones. It compares the time that the store spends on positions
// and delivered marks with the time that it spends on commits.
func cursors(ctx context.Context, o Options, st *Store, r *Report) error {
	s, err := st.scene(ctx, groups*groupSize, groupMembers())
	if err != nil {
		return err
	}
	defer s.stop()
	var live, durable cursorCost
	for turn := range 2 {
		// What a device missed in an earlier turn is none of this one's business.
		another := func(ctx context.Context, addr, id, name, token string, filters ...string) (*client, error) {
			return dialDurable(ctx, addr, id+"-"+strconv.Itoa(turn), name, token, filters...)
		}
		if err := errors.Join(s.cursorCost(ctx, o, dial, &live), s.cursorCost(ctx, o, another, &durable)); err != nil {
			return err
		}
	}
	r.add(Figure{Scenario: "cursors", Name: "live-only sessions, committed sends", Value: live.acked / 2, Unit: "sends/s"})
	r.add(Figure{Scenario: "cursors", Name: "durable sessions, committed sends", Value: durable.acked / 2, Unit: "sends/s"})
	r.add(Figure{
		Scenario: "cursors", Name: "durable, of live-only ones", Value: 100 * durable.acked / live.acked, Unit: "%",
	})
	r.add(Figure{
		Scenario: "cursors", Name: "store's time for marks, of that for commits", Value: 100 * live.flush / live.commit, Unit: "%",
	})
	r.add(Figure{
		Scenario: "cursors", Name: "store's time for positions and marks", Value: 100 * durable.flush / durable.commit, Unit: "%",
		Goal: 10, AtMost: true,
	})
	return nil
}

// cursorCost is what was sent per second, and how long the store took to write positions and marks and to commit, in
// seconds.
type cursorCost struct{ acked, flush, commit float64 }

// cursorCost adds a turn at full load to c.
func (s *scene) cursorCost(ctx context.Context, o Options, dial dialer, c *cursorCost) error {
	clients, senders, err := s.connectGroups(ctx, dial)
	if err != nil {
		return err
	}
	spent := func() (flush, commit float64, err error) {
		flush, err1 := s.metric(ctx, "parley_position_flush_duration_seconds_sum")
		commit, err2 := s.metric(ctx, "parley_commit_duration_seconds_sum")
		return flush, commit, errors.Join(err1, err2)
	}
	f0, c0, err := spent()
	if err != nil {
		return err
	}
	acked, _, err := saturate(clients, senders, senderWin, o.Duration)
	if err != nil {
		return err
	}
	f1, c1, err := spent()
	c.acked, c.flush, c.commit = c.acked+acked, c.flush+f1-f0, c.commit+c1-c0
	return err
}

// The catchup scenario: so many devices, each in so many conversations of groupSize, in each of which so many messages wait
// for it; and beside them users in conversations of their own, in which so much is said per second.
const (
	returning      = 200
	returningTalks = 5
	waiting        = 400
	liveUsers      = 100
	liveRate       = 200
)

// catchup measures what those who are there notice when 200 devices come back at once, each 2,000 events behind.
func catchup(ctx context.Context, o Options, st *Store, r *Report) error {
	s, err := st.scene(ctx, returning+liveUsers, catchupMembers())
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.fallBehind(ctx, s.population); err != nil {
		return err
	}
	if err := st.settle(ctx); err != nil {
		return err
	}
	talk, err := s.startTalk(ctx, s.population)
	if err != nil {
		return err
	}
	defer talk.stop()
	quiet, err := talk.during(func() error { <-time.After(warmUp + o.Duration); return nil }, warmUp)
	if err != nil {
		return err
	}
	var took time.Duration
	stormy, err := talk.during(func() (err error) {
		took, err = s.comeBack(ctx, s.dir, s.population)
		return err
	}, 0)
	if err != nil {
		return err
	}
	before, meanwhile := quantile(quiet, .99), quantile(stormy, .99)
	const events = returning * returningTalks * waiting
	r.add(Figure{Scenario: "catchup", Name: "events caught up with", Value: events / took.Seconds(), Unit: "events/s"})
	r.add(Figure{Scenario: "catchup", Name: "live publish to delivery, p50, quiet", Value: millis(quantile(quiet, .5)), Unit: "ms"})
	r.add(Figure{Scenario: "catchup", Name: "live publish to delivery, p99, quiet", Value: millis(before), Unit: "ms"})
	r.add(Figure{Scenario: "catchup", Name: "the same meanwhile, p50", Value: millis(quantile(stormy, .5)), Unit: "ms"})
	r.add(Figure{Scenario: "catchup", Name: "the same meanwhile, p99", Value: millis(meanwhile), Unit: "ms"})
	r.add(Figure{
		Scenario: "catchup", Name: "p99, of the quiet one", Value: float64(meanwhile) / float64(before), Unit: "times",
		Goal: 2, AtMost: true,
	})
	return nil
}

// catchupMembers puts each returning user in returningTalks conversations with ever others, and the live users in one each.
func catchupMembers() [][]int {
	var members [][]int
	for _, step := range [returningTalks]int{1, 3, 7, 9, 11} { // without a common factor with returning
		for g := range returning / groupSize {
			var m []int
			for i := range groupSize {
				m = append(m, (g*groupSize+i)*step%returning)
			}
			members = append(members, m)
		}
	}
	for g := range liveUsers / groupSize {
		var m []int
		for i := range groupSize {
			m = append(m, returning+g*groupSize+i)
		}
		members = append(members, m)
	}
	return members
}

// device is a returning user's client id.
func device(user int) string { return "back-" + strconv.Itoa(user) }

// fallBehind lets the returning devices subscribe and go, and fills their conversations.
func (s *server) fallBehind(ctx context.Context, p *population) error {
	for u := range returning {
		c, err := dialDurable(ctx, s.mqtt, device(u), p.names[u], p.tokens[u], "conversations/+/events")
		if err != nil {
			return err
		}
		if err := c.leave(); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(20)
	for i, members := range p.members {
		if members[0] >= returning {
			continue
		}
		group.Go(func() error {
			u := members[0]
			c, err := dial(ctx, s.mqtt, "fill-"+strconv.Itoa(i), p.names[u], p.tokens[u])
			if err != nil {
				return err
			}
			done := make(chan struct{})
			var acked atomic.Int64
			c.onAck = func(time.Duration) {
				if acked.Add(1) == waiting {
					close(done)
				}
			}
			go func() { _ = c.run() }()
			// No more than the gateway's Receive Maximum at a time.
			c.topic, c.payload = "conversations/"+p.conversations[i]+"/messages", message()
			for n := range waiting {
				for int64(n)-acked.Load() >= 32 {
					<-time.After(100 * time.Microsecond)
				}
				c.publish(c.topic, c.payload, time.Now())
				if err := c.flush(); err != nil {
					return err
				}
			}
			select {
			case <-done:
				return c.close()
			case <-time.After(time.Minute):
				return fmt.Errorf("only %d of %d messages were acknowledged", acked.Load(), waiting)
			}
		})
	}
	return group.Wait()
}

// crowd is what the process of the returning devices is told.
type crowd struct {
	Address       string
	Names, Tokens []string
}

// comeBack lets all returning devices connect at once, from a process of their own, and waits until each has what it missed.
func (s *server) comeBack(ctx context.Context, dir string, p *population) (time.Duration, error) {
	text, err := json.Marshal(crowd{Address: s.mqtt, Names: p.names[:returning], Tokens: p.tokens[:returning]})
	if err != nil {
		return 0, err
	}
	file := filepath.Join(dir, "crowd.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, self, "bench", "--crowd", file).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(string(out)))
}

// Crowd is that process: it connects the devices named in the file, and says how long it took until each had what it missed.
func Crowd(ctx context.Context, file string, out io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c crowd
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	begin := time.Now()
	var group errgroup.Group
	for u := range c.Names {
		group.Go(func() error { return catchUp(ctx, c.Address, device(u), c.Names[u], c.Tokens[u]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, time.Since(begin))
	return err
}

func catchUp(ctx context.Context, addr, device, name, token string) error {
	c, err := dialDurable(ctx, addr, device, name, token)
	if err != nil {
		return err
	}
	late := time.AfterFunc(3*time.Minute, func() { _ = c.close() })
	defer late.Stop()
	c.onEvent = func([]byte) {
		if c.delivered.Load() == returningTalks*waiting {
			_ = c.conn.SetReadDeadline(time.Now()) // ends run
		}
	}
	err = c.run()
	if n := c.delivered.Load(); n < returningTalks*waiting {
		return fmt.Errorf("a device got only %d of %d events: %w", n, returningTalks*waiting, err)
	}
	return c.close()
}

// talk is what goes on all the time between the live users, liveRate messages per second, each to groupSize of them.
type talk struct {
	clients []*client
	readers sync.WaitGroup
	end     chan struct{}
	failed  chan error

	mu sync.Mutex
	// since is the time from which on publishes count; zero: none do.
	since time.Time
	times []time.Duration
}

// stamp marks a text with the instant at which its publish was due.
const stamp = "due at "

func (s *server) startTalk(ctx context.Context, p *population) (*talk, error) {
	t := &talk{end: make(chan struct{}), failed: make(chan error, 1)}
	var senders []*client
	for i := range liveUsers {
		u := returning + i
		c, err := dial(ctx, s.mqtt, "live", p.names[u], p.tokens[u], "conversations/+/events")
		if err != nil {
			closeAll(t.clients)
			return nil, err
		}
		c.onEvent = t.note
		t.clients = append(t.clients, c)
		if i%groupSize == 0 {
			c.topic = "conversations/" + p.conversations[returning*returningTalks/groupSize+i/groupSize] + "/messages"
			senders = append(senders, c)
		}
	}
	for _, c := range t.clients {
		t.readers.Go(func() { _ = c.run() })
	}
	t.readers.Go(func() {
		pace := newPacer()
		defer pace.stop()
		begin := time.Now()
		for n := 0; ; n++ {
			select {
			case <-t.end:
				return
			default:
			}
			// Open loop: a publish is late from the instant at which it was due.
			due := begin.Add(time.Duration(n) * time.Second / liveRate)
			pace.until(due)
			c := senders[n%len(senders)]
			body, _ := json.Marshal(map[string]string{ // a map of strings always encodes
				"text": stamp + strconv.FormatInt(due.UnixNano(), 10) + " " + text()[:170],
			})
			c.publish(c.topic, body, due)
			if err := c.flush(); err != nil {
				t.failed <- err
				return
			}
		}
	})
	return t, nil
}

// note takes the time from when a publish was due to its delivery.
func (t *talk) note(payload []byte) {
	_, digits, found := bytes.Cut(payload, []byte(stamp))
	if !found {
		return
	}
	digits, _, _ = bytes.Cut(digits, []byte(" "))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return
	}
	due := time.Unix(0, n)
	took := time.Since(due)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.since.IsZero() && due.After(t.since) {
		t.times = append(t.times, took)
	}
}

// during gives the times of the publishes that were due while f ran, but for a time at its beginning.
func (t *talk) during(f func() error, but time.Duration) ([]time.Duration, error) {
	t.mu.Lock()
	t.since, t.times = time.Now().Add(but), nil
	t.mu.Unlock()
	err := f()
	t.mu.Lock()
	defer t.mu.Unlock()
	times := t.times
	t.since, t.times = time.Time{}, nil
	select {
	case failed := <-t.failed:
		err = errors.Join(err, failed)
	default:
	}
	if err == nil && len(times) < 100 {
		err = fmt.Errorf("only %d deliveries to live sessions were measured", len(times))
	}
	return times, err
}

func (t *talk) stop() {
	close(t.end)
	closeAll(t.clients)
	t.readers.Wait()
}
