package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

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
			id := fmt.Sprintf("p%d-%d", n, next)
			batch[i] = chaos.Publish{Conversation: s.somewhere(r), ID: id, Text: "hello from " + id}
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
		payload := fmt.Sprintf(`{"id":%q,"text":%q}`, p.ID, p.Text)
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
