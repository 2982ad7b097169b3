package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/parley-im/parley/e2e/chaos"
)

// rival is one of the connections that want to be the device's.
type rival struct {
	client *chaos.Client
	conn   chaos.Connection
	failed error
	// survives is closed when it is known to be the one that stays, ended when it has been ended.
	survives chan struct{}
	ended    chan struct{}

	mu      sync.Mutex
	highest map[string]int64
	arrived chan struct{}
}

// run records everything, and acknowledges it once this is the connection that stays.
func (r *rival) run(tb testing.TB) {
	defer close(r.ended)
	var held []uint16
	var open []int
	var pinged [][]int
	probed := false
	for {
		p, err := r.client.Read()
		if err != nil {
			return
		}
		switch p.Kind {
		case chaos.KindPublish:
			var ev event
			if err := json.Unmarshal(p.Payload, &ev); err != nil {
				tb.Error(err)
			}
			d := chaos.Delivery{Event: chaos.Event{Conversation: ev.Conversation, Seq: ev.Seq, Type: ev.Type, Action: ev.Action}}
			if ev.Message != nil {
				d.Message = ev.Message.ID
			}
			r.mu.Lock()
			r.conn.Deliveries = append(r.conn.Deliveries, d)
			open = append(open, len(r.conn.Deliveries)-1)
			r.highest[ev.Conversation] = max(r.highest[ev.Conversation], ev.Seq)
			r.mu.Unlock()
			held = append(held, p.ID)
			select {
			case r.arrived <- struct{}{}:
			default:
			}
		case chaos.KindPingresp:
			if !probed { // by [contend], before anything was acknowledged
				probed = true
				break
			}
			if len(pinged) > 0 {
				r.mu.Lock()
				for _, i := range pinged[0] {
					r.conn.Deliveries[i].Confirmed = time.Now()
				}
				r.mu.Unlock()
				pinged = pinged[1:]
			}
		}
		select {
		case <-r.survives:
			if len(held) > 0 {
				_ = r.client.Ack(held...)
				_ = r.client.Ping()
				pinged = append(pinged, open)
				held, open = nil, nil
			}
		default:
		}
	}
}

func TestTakeOverLeavesExactlyOneLiveSession(t *testing.T) {
	// Phones reconnect before the old connection is known to be dead, sometimes twice at once. One of the connections must
	// get everything, with nothing lost or shown twice, and the others must be ended.
	onBothStores(t, func(t *testing.T, s store) {
		const phones, rounds = 4, 125 // 1,000 on the two stores together
		g := start(t, s.empty(t))
		w := newWorld(t, g)
		names := make([]string, phones+1)
		for i := range names {
			names[i] = fmt.Sprint("user", i)
		}
		users := w.users(t, names...)
		c := w.conversation(t, users...)
		records := make([]chaos.Device, phones)
		last := make([]*rival, phones)
		var group errgroup.Group
		for i := range phones {
			records[i] = chaos.Device{Name: names[i], User: users[i].ID, Durable: true, Complete: true, Start: map[string]int64{c: 1}}
			p := w.phone(t, users[i], lasting(5, "phone"))
			p.follow(t, 1, allEvents)
			p.goodbye(t)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		as := w.as(t, users[phones])
		var talking sync.WaitGroup
		talking.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// The context is not for the request, whose outcome must be known.
				if _, err := as.try(context.WithoutCancel(ctx), "POST", "/v1/conversations/"+c+"/messages",
					map[string]any{"id": fmt.Sprint("m", n), "text": "hello"}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for i := range phones {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			group.Go(func() error {
				var err error
				for round := 0; round < rounds && err == nil; round++ {
					last[i], err = contend(t, g, users[i], &records[i], r, last[i])
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := g.metric(t, "parley_sessions"); n != phones {
			t.Errorf("%v sessions are counted, and %d devices are connected", n, phones)
		}
		cancel()
		talking.Wait()
		h := &chaos.History{Logs: map[string][]chaos.Event{c: nil}}
		for _, ev := range w.log(t, c) {
			e := chaos.Event{Conversation: c, Seq: ev.Seq, Type: ev.Type, Action: ev.Action}
			if ev.Message != nil {
				e.Message = ev.Message.ID
				h.Publishes = append(h.Publishes, chaos.Publish{Conversation: c, ID: e.Message, Outcome: chaos.Accepted, Seq: ev.Seq})
			}
			if ev.ConversationData != nil {
				for _, p := range ev.ConversationData.Participants {
					e.Users = append(e.Users, p.UserID)
				}
			}
			h.Logs[c] = append(h.Logs[c], e)
		}
		end := int64(len(h.Logs[c]))
		for i, r := range last {
			deadline := time.After(patience)
			for done := false; !done; {
				r.mu.Lock()
				done = r.highest[c] >= end
				r.mu.Unlock()
				if done {
					break
				}
				select {
				case <-r.arrived:
				case <-deadline:
					t.Errorf("%s is deaf", names[i])
					done = true
				}
			}
			r.client.Cut()
			<-r.ended
			records[i].Connections = append(records[i].Connections, r.conn)
		}
		h.Devices = records
		for n, p := range chaos.Check(h) {
			if n < 20 {
				t.Error(p)
			}
		}
		eventually(t, "nobody is connected", func() error {
			if n := g.metric(t, "parley_sessions"); n != 0 {
				return fmt.Errorf("%v sessions are counted", n)
			}
			return nil
		})
		t.Logf("%d events", end)
	})
}

// contend lets several connections of a device be opened at once, while it has one, and gives the one that stays.
func contend(t *testing.T, g *gateway, u user, record *chaos.Device, r *rand.Rand, last *rival) (*rival, error) {
	rivals := make([]*rival, 1+r.IntN(4))
	var group errgroup.Group
	begin := time.Now()
	for i := range rivals {
		v := &rival{
			survives: make(chan struct{}), ended: make(chan struct{}), highest: make(map[string]int64), arrived: make(chan struct{}, 1),
		}
		rivals[i] = v
		version := byte(4 + r.IntN(2))
		delay := time.Duration(r.IntN(3000)) * time.Microsecond * time.Duration(r.IntN(2))
		group.Go(func() error {
			timer := time.NewTimer(delay)
			defer timer.Stop()
			<-timer.C
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			l := lasting(version, "phone")
			l.User, l.Password = u.Name, u.password
			v.conn.Opened = begin
			// One that is taken over while it logs in sees its connection end.
			client, err := chaos.Dial(ctx, g.addrs.MQTT, l)
			if err != nil {
				v.failed = err
				close(v.ended)
				return nil
			}
			v.client, v.conn.Present = client, client.Present
			go v.run(t)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if last != nil {
		select {
		case <-last.ended:
		case <-time.After(patience):
			return nil, fmt.Errorf("%s: a connection that was taken over lives", u.Name)
		}
		last.client.Cut()
		record.Connections = append(record.Connections, last.conn)
	}
	// All but one are ended.
	left := make(chan *rival, len(rivals))
	for _, v := range rivals {
		go func() {
			<-v.ended
			left <- v
		}()
	}
	gone := make(map[*rival]bool)
	timeout := time.After(patience)
	for len(gone) < len(rivals)-1 {
		select {
		case v := <-left:
			gone[v] = true
		case <-timeout:
			return nil, fmt.Errorf("%s: %d of %d connections live", u.Name, len(rivals)-len(gone), len(rivals))
		}
	}
	var stays *rival
	for _, v := range rivals {
		if !gone[v] {
			stays = v
			continue
		}
		if v.client != nil {
			v.client.Cut()
			record.Connections = append(record.Connections, v.conn)
		}
	}
	if stays.client == nil {
		return nil, fmt.Errorf("%s: none of %d connections is let in: %w", u.Name, len(rivals), stays.failed)
	}
	if err := stays.client.Ping(); err != nil {
		return nil, err
	}
	close(stays.survives)
	// It must not be deaf: it gets something, unless it is ended, which is a defect.
	if r.IntN(4) > 0 {
		select {
		case <-stays.arrived:
		case <-stays.ended:
			return nil, fmt.Errorf("%s: all connections were ended", u.Name)
		case <-time.After(patience):
			return nil, fmt.Errorf("%s: the connection that stays is deaf", u.Name)
		}
	}
	return stays, nil
}
