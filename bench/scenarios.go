package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what to measure.
type Options struct {
	// StoreURL is the store of the gateways under test; every scenario gets tables of its own only if it is empty,
	// which starts a private Postgres (or, where there is none, uses SQLite files).
	StoreURL string
	// Scenarios limits the run to these: send, group, latency, cursors, catchup, idle. Empty: all.
	Scenarios []string
	// Duration is how long each load runs after its warm-up.
	Duration time.Duration
	// Idle is the number of sessions of the idle scenario.
	Idle     int
	Progress io.Writer
}

const warmUp = 2 * time.Second

// text is the content of every message: 200 bytes.
func text() string { return strings.Repeat("The quick brown fox jumps. ", 8)[:200] }

// Run measures what the options ask for.
func Run(ctx context.Context, o Options, st *Store) (*Report, error) {
	r := &Report{Machine: machine(), Store: st.Name, Time: time.Now().UTC().Format(time.RFC3339), progress: o.Progress}
	_, _ = fmt.Fprintf(o.Progress, "%s\nstore: %s\n\n", r.Machine, st.Name)
	wants := func(name string) bool {
		return len(o.Scenarios) == 0 || strings.Contains(","+strings.Join(o.Scenarios, ",")+",", ","+name+",")
	}
	direct, single, err := storeFloor(ctx, st, o.Duration)
	if err != nil {
		return nil, err
	}
	r.add(Figure{Scenario: "store", Name: "rows/s, append statement alone, batches of 200", Value: direct, Unit: "rows/s"})
	r.add(Figure{Scenario: "store", Name: "median of a bare single-row commit", Value: millis(single), Unit: "ms"})
	for _, s := range []struct {
		name string
		run  func() error
	}{
		{"send", func() error { return send(ctx, o, st, r, direct) }},
		{"group", func() error { return group(ctx, o, st, r) }},
		{"latency", func() error { return latency(ctx, o, st, r, single) }},
		{"cursors", func() error { return cursors(ctx, o, st, r) }},
		{"catchup", func() error { return catchup(ctx, o, st, r) }},
		{"idle", func() error { return idle(ctx, o, st, r) }},
	} {
		if !wants(s.name) {
			continue
		}
		if err := s.run(); err != nil {
			return r, fmt.Errorf("scenario %s: %w", s.name, err)
		}
	}
	return r, nil
}

func message() []byte {
	b, _ := json.Marshal(map[string]string{"text": text()}) // a map of strings always encodes
	return b
}

// saturate lets the senders keep window publishes each unacknowledged, and gives the rates of acknowledgements and
// deliveries after the warm-up.
func saturate(clients, senders []*client, window int, d time.Duration) (acked, delivered float64, err error) {
	var failed atomic.Pointer[error]
	var readers sync.WaitGroup
	for _, c := range clients {
		readers.Go(func() {
			err := c.run()
			failed.CompareAndSwap(nil, &err)
		})
	}
	for _, c := range senders {
		c.refill.Store(true)
		for range window {
			c.publish(c.topic, c.payload, time.Now())
		}
		if err := c.flush(); err != nil {
			return 0, 0, err
		}
	}
	<-time.After(warmUp)
	count := func() (a, b int64) {
		for _, c := range clients {
			a, b = a+c.acked.Load(), b+c.delivered.Load()
		}
		return a, b
	}
	begin := time.Now()
	a0, d0 := count()
	<-time.After(d)
	a1, d1 := count()
	elapsed := time.Since(begin).Seconds()
	if e := failed.Load(); e != nil {
		return 0, 0, fmt.Errorf("a client was disconnected under load: %w", *e)
	}
	for _, c := range clients {
		_ = c.close()
	}
	readers.Wait()
	return float64(a1-a0) / elapsed, float64(d1-d0) / elapsed, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		_ = c.close()
	}
}

// send measures senders alone: nobody is subscribed.
func send(ctx context.Context, o Options, st *Store, r *Report, direct float64) error {
	var members [][]int
	for i := range 200 {
		members = append(members, []int{i, (i + 1) % 200})
	}
	s, err := st.scene(ctx, 200, members)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, load := range []struct {
		name        string
		connections int
		window      int
	}{
		{"1 connection, window 64", 1, 64},
		{"200 connections, window 1", 200, 1},
	} {
		var clients []*client
		for i := range load.connections {
			c, err := dial(ctx, s.mqtt, "send-"+strconv.Itoa(i), s.names[i], s.tokens[i])
			if err != nil {
				closeAll(clients)
				return err
			}
			c.topic, c.payload = "conversations/"+s.conversations[i]+"/messages", message()
			clients = append(clients, c)
		}
		cpu := s.cpu()
		acked, _, err := saturate(clients, clients, load.window, o.Duration)
		if err != nil {
			return err
		}
		cpu = s.cpu() - cpu
		r.add(Figure{Scenario: "send", Name: load.name, Value: acked, Unit: "sends/s"})
		r.add(Figure{
			Scenario: "send", Name: load.name + ", of the store alone", Value: 100 * acked / direct, Unit: "%", Goal: 25,
		})
		r.add(Figure{
			Scenario: "send", Name: load.name + ", gateway CPU",
			Value: cpu.Seconds() / (o.Duration + warmUp).Seconds(), Unit: "cores",
		})
	}
	return nil
}

const (
	groups    = 100
	groupSize = 10
	senderWin = 16
)

func groupMembers() [][]int {
	members := make([][]int, groups)
	for g := range members {
		for i := range groupSize {
			members[g] = append(members[g], g*groupSize+i)
		}
	}
	return members
}

// group measures fan-out: 1,000 users in 100 conversations of 10, 100 of them sending, all subscribed; and the same
// load on a bare broker that stores nothing, in the same run.
func group(ctx context.Context, o Options, st *Store, r *Report) error {
	s, err := st.scene(ctx, groups*groupSize, groupMembers())
	if err != nil {
		return err
	}
	defer s.stop()
	clients, senders, err := s.connectGroups(ctx, dial)
	if err != nil {
		return err
	}
	cpu := s.cpu()
	acked, delivered, err := saturate(clients, senders, senderWin, o.Duration)
	if err != nil {
		return err
	}
	cpu = s.cpu() - cpu
	s.stop()
	bare, bareDelivered, err := bareGroup(ctx, s.dir, o.Duration)
	if err != nil {
		return err
	}
	r.add(Figure{Scenario: "group", Name: "committed sends", Value: acked, Unit: "sends/s"})
	r.add(Figure{Scenario: "group", Name: "deliveries", Value: delivered, Unit: "deliveries/s"})
	r.add(Figure{
		Scenario: "group", Name: "gateway CPU",
		Value: cpu.Seconds() / (o.Duration + warmUp).Seconds(), Unit: "cores",
	})
	r.add(Figure{Scenario: "group", Name: "bare broker, nothing stored", Value: bare, Unit: "sends/s"})
	r.add(Figure{Scenario: "group", Name: "bare broker, deliveries", Value: bareDelivered, Unit: "deliveries/s"})
	r.add(Figure{Scenario: "group", Name: "of the bare broker", Value: 100 * acked / bare, Unit: "%", Goal: 30})
	return nil
}

// dialer is dial or dialDurable.
type dialer func(ctx context.Context, addr, clientID, username, password string, filters ...string) (*client, error)

// connectGroups connects and subscribes everybody.
func (s *scene) connectGroups(ctx context.Context, dial dialer) (clients, senders []*client, err error) {
	for u := range groups * groupSize {
		c, err := s.connect(ctx, dial, u)
		if err != nil {
			closeAll(clients)
			return nil, nil, err
		}
		clients = append(clients, c)
		if u%groupSize == 0 {
			c.topic, c.payload = "conversations/"+s.conversations[u/groupSize]+"/messages", message()
			senders = append(senders, c)
		}
	}
	return clients, senders, nil
}

func bareGroup(ctx context.Context, dir string, d time.Duration) (acked, delivered float64, err error) {
	s, err := startBareBroker(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	defer s.stop()
	var clients, senders []*client
	for u := range groups * groupSize {
		topic := "groups/" + strconv.Itoa(u/groupSize)
		c, err := dial(ctx, s.mqtt, "bare-"+strconv.Itoa(u), "", "", topic)
		if err != nil {
			closeAll(clients)
			return 0, 0, err
		}
		clients = append(clients, c)
		if u%groupSize == 0 {
			c.topic, c.payload = topic, message()
			senders = append(senders, c)
		}
	}
	return saturate(clients, senders, senderWin, d)
}

// latency measures the time from when a publish is due to its acknowledgement, at 200 sends/s in the group set-up.
func latency(ctx context.Context, o Options, st *Store, r *Report, single time.Duration) error {
	s, err := st.scene(ctx, groups*groupSize, groupMembers())
	if err != nil {
		return err
	}
	defer s.stop()
	clients, senders, err := s.connectGroups(ctx, dial)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var times []time.Duration
	measuring := atomic.Bool{}
	var readers sync.WaitGroup
	for _, c := range clients {
		c.onAck = func(d time.Duration) {
			if !measuring.Load() {
				return
			}
			mu.Lock()
			times = append(times, d)
			mu.Unlock()
		}
		readers.Go(func() { _ = c.run() })
	}
	const rate = 200
	pace := newPacer()
	defer pace.stop()
	begin := time.Now()
	for sent := 0; sent < rate*int((o.Duration+warmUp)/time.Second); sent++ {
		// Open loop: a publish is late from the instant at which it was due.
		due := begin.Add(time.Duration(sent) * time.Second / rate)
		pace.until(due)
		measuring.Store(due.Sub(begin) > warmUp)
		c := senders[sent%len(senders)]
		c.publish(c.topic, c.payload, due)
		if err := c.flush(); err != nil {
			return err
		}
	}
	pace.until(time.Now().Add(500 * time.Millisecond)) // the last acknowledgements
	measuring.Store(false)
	closeAll(clients)
	readers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(times) < int(o.Duration.Seconds()*rate*9/10) {
		return fmt.Errorf("only %d of about %d publishes were acknowledged", len(times), int(o.Duration.Seconds()*rate))
	}
	p50, p99 := quantile(times, .5), quantile(times, .99)
	r.add(Figure{Scenario: "latency", Name: "publish to ack at 200 sends/s, p50", Value: millis(p50), Unit: "ms"})
	r.add(Figure{Scenario: "latency", Name: "publish to ack at 200 sends/s, p99", Value: millis(p99), Unit: "ms"})
	r.add(Figure{
		Scenario: "latency", Name: "p50, in bare single-row commits", Value: float64(p50) / float64(single), Unit: "times",
		Goal: 6, AtMost: true,
	})
	r.add(Figure{
		Scenario: "latency", Name: "p99, in bare single-row commits", Value: float64(p99) / float64(single), Unit: "times",
		Goal: 20, AtMost: true,
	})
	return nil
}

// idle measures the memory of sessions that are connected and subscribed and quiet, of users with 20 conversations.
func idle(ctx context.Context, o Options, st *Store, r *Report) error {
	n := o.Idle
	var members [][]int
	for i := range n * 20 / groupSize {
		var m []int
		for j := range groupSize {
			m = append(m, (i+j*n/groupSize)%n)
		}
		members = append(members, m)
	}
	s, err := st.scene(ctx, n, members)
	if err != nil {
		return err
	}
	// A fresh process: what creating all that left behind is not the sessions' memory.
	s.stop()
	if s.server, err = startGateway(ctx, s.dir, s.url); err != nil {
		return err
	}
	defer s.stop()
	before, err := s.rss()
	if err != nil {
		return err
	}
	var clients []*client
	defer func() { closeAll(clients) }()
	for u := range n {
		c, err := s.connect(ctx, dial, u)
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	after, err := s.rss()
	if err != nil {
		return err
	}
	for _, c := range clients {
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
		var timeout interface{ Timeout() bool }
		if _, _, err := c.read(); !errors.As(err, &timeout) || !timeout.Timeout() {
			return fmt.Errorf("an idle session was not left alone: %w", err)
		}
	}
	r.add(Figure{
		Scenario: "idle", Name: strconv.Itoa(n) + " sessions, 20 conversations each, RSS", Unit: "KiB each",
		Value: float64(after-before) / float64(n) / 1024, Goal: 40, AtMost: true,
	})
	return nil
}
