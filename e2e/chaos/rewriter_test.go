package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

// page asks for events as somebody: of a user, 0 is a backend.
func (s *storm) page(ctx context.Context, key string, user int64, conversation, which string) ([]wire, chaos.Read, error) {
	var page struct{ Events []wire }
	read := chaos.Read{User: user, Conversation: conversation, Asked: time.Now()}
	err := s.call(ctx, key, "GET", "/v1/conversations/"+conversation+"/events?"+which, nil, &page)
	read.Answered = time.Now()
	for i := range page.Events {
		read.Events = append(read.Events, page.Events[i].event())
	}
	return page.Events, read, err
}

// rewriter edits and removes messages, most of them while they are being delivered: as a backend or as their senders.
func (s *storm) rewriter(ctx context.Context, n int) {
	r := s.random("rewriter", n)
	tokens := make(map[int64]string)
	for _, p := range append(s.anchors, s.others...) {
		tokens[p.id] = p.token
	}
	for next := 0; pause(ctx, millis(r, 20, 150)); next++ {
		c := s.somewhere(r)
		var head struct{ Conversation struct{ LastSeq int64 } }
		if s.call(ctx, s.service, "GET", "/v1/conversations/"+c, nil, &head) != nil {
			continue
		}
		from := max(1, head.Conversation.LastSeq-int64(1+r.IntN(40)))
		events, read, err := s.page(ctx, s.service, 0, c, fmt.Sprintf("from=%d&count=10", from))
		if err != nil || len(events) == 0 {
			continue
		}
		s.mu.Lock()
		s.reads = append(s.reads, read)
		s.mu.Unlock()
		ev := events[r.IntN(len(events))]
		removal, key := r.IntN(4) == 0, s.service
		if ev.Type != "sendMessage" || ev.Message == nil || ev.Message.Removed {
			continue
		}
		if r.IntN(2) == 0 && tokens[ev.Initiator.UserID] != "" {
			key = tokens[ev.Initiator.UserID]
		}
		s.rewrite(ctx, key, &ev, removal, fmt.Sprintf("edit %d by %d of %s", next, n, ev.Message.ID))
	}
}

func (s *storm) rewrite(ctx context.Context, key string, ev *wire, removal bool, text string) {
	path := "/v1/conversations/" + ev.Conversation + "/messages/" + ev.Message.UUID
	w := chaos.Rewrite{Conversation: ev.Conversation, Of: ev.Seq, Asked: time.Now()}
	var err error
	if removal {
		w.Removal = true
		err = s.call(ctx, key, http.MethodDelete, path, nil, nil)
	} else {
		w.Text = text
		var made struct{ Message struct{ EditCount int } }
		err = s.call(ctx, key, http.MethodPatch, path, map[string]any{"text": text}, &made)
		w.Edits = made.Message.EditCount
	}
	w.Answered, w.Outcome = time.Now(), outcomeOf(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewrites = append(s.rewrites, w)
}

// reader lets users ask for the past.
func (s *storm) reader(ctx context.Context) {
	r := s.random("reader", 0)
	for pause(ctx, millis(r, 50, 300)) {
		p, c := s.others[r.IntN(len(s.others))], s.somewhere(r)
		_, read, err := s.page(ctx, p.token, p.id, c, fmt.Sprintf("from=%d&count=50", 1+r.IntN(200)))
		if outcomeOf(err) == chaos.Unanswered {
			continue
		}
		s.mu.Lock()
		s.reads = append(s.reads, read)
		s.mu.Unlock()
	}
}

// readAll lets some users ask for everything, now that nothing happens any more.
func (s *storm) readAll(logs map[string][]chaos.Event) []chaos.Read {
	r := s.random("readAll", 0)
	var reads []chaos.Read
	tokens := make([]string, len(s.others))
	for n, p := range s.others {
		s.insist(func() (err error) {
			tokens[n], err = s.logIn(s.t.Context(), p)
			return err
		})
	}
	for _, c := range s.conversations {
		for _, n := range r.Perm(len(s.others))[:4] {
			all := chaos.Read{User: s.others[n].id, Conversation: c, Final: true, Asked: time.Now()}
			for from := 1; from <= len(logs[c]); from += 100 {
				_, read, err := s.page(s.t.Context(), tokens[n], all.User, c, fmt.Sprintf("from=%d&count=100", from))
				if outcomeOf(err) == chaos.Unanswered {
					s.t.Error(err)
				}
				if err != nil { // denied, or what may be read ends before
					break
				}
				all.Events = append(all.Events, read.Events...)
			}
			all.Answered = time.Now()
			reads = append(reads, all)
		}
	}
	return reads
}
