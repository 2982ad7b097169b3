package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

// change is a change of the participants that was answered: by an event up to the number given.
type change struct {
	conversation    string
	seq             int64
	user            int64
	asked, answered time.Time
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

// members changes who takes part, by the service and by the users themselves.
func (s *storm) members(ctx context.Context) {
	r := s.random("members", 0)
	for pause(ctx, millis(r, 20, 200)) {
		p, c := s.others[r.IntN(len(s.others))], s.somewhere(r)
		with := refs(p)
		switch n := r.IntN(14); n {
		case 0, 1, 2:
			s.change(ctx, "DELETE", c, p, with)
		case 3, 4, 5, 6, 7:
			if n == 7 {
				with[0]["permissions"] = map[string]any{"canRead": false}
			}
			s.change(ctx, "POST", c, p, with)
		case 8, 9, 10, 11, 12:
			with[0]["permissions"] = map[string]any{"canRead": n > 9}
			s.change(ctx, "PATCH", c, p, with)
		case 13:
			if r.IntN(2) == 0 {
				_ = s.create(context.WithoutCancel(ctx), r)
			}
		}
	}
}

// change changes a participant, and keeps when.
func (s *storm) change(ctx context.Context, method, conversation string, p person, participants []map[string]any) {
	var made struct{ Conversation struct{ LastSeq int64 } }
	asked := time.Now()
	err := s.call(ctx, s.service, method, "/v1/conversations/"+conversation+"/participants",
		map[string]any{"participants": participants}, &made)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, change{conversation, made.Conversation.LastSeq, p.id, asked, time.Now()})
}

// date says of the events of logs when they were asked for and answered, where that is known. The answer to a change that was
// found to be committed already tells a later number than its own: such ones are passed over.
func (s *storm) date(logs map[string][]chaos.Event) {
	for _, ch := range s.changes {
		log := logs[ch.conversation]
		if ch.seq < 1 || ch.seq > int64(len(log)) {
			s.t.Errorf("a change of %s was answered as event %d of %d", ch.conversation, ch.seq, len(log))
			continue
		}
		if ev := &log[ch.seq-1]; ev.Action != ev.Type && slices.Contains(ev.Users, ch.user) {
			ev.Asked, ev.Answered = ch.asked, ch.answered
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
