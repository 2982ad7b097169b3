package gateway

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/parley-im/parley/domain"
)

const (
	// typingPause is for how long nothing more is told of somebody's typing in a conversation.
	typingPause = 2 * time.Second
	// sweepAfter is how many allowances there are at least before those that are whole are dropped.
	sweepAfter = 1024
)

// throttle bounds what is only told to those who are there: such commands are not slowed down by a commit.
type throttle struct {
	mu      sync.Mutex
	typists map[typist]*typing
	// allowances are what users may still send to those online only in this second.
	allowances map[domain.UserID]*rate.Limiter
	sweep      int
}

// typist is somebody who types in a conversation.
type typist struct {
	conversation domain.ConversationID
	sender       domain.SenderID
}

// typing is what was told lately of a typist. It is forgotten when there was nothing new for a while.
type typing struct {
	told domain.TypingState
	// next is a change since, to be told when the pause is over; nil: there is none.
	next  *domain.Signal
	timer *time.Timer
}

// typing reports whether a typing signal is to be told now. If not, and if it is news, it is told later unless the news are
// out of date by then.
func (t *throttle) typing(who typist, sig *domain.Signal, over func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.typists[who]
	if state == nil {
		if t.typists == nil {
			t.typists = make(map[typist]*typing)
		}
		t.typists[who] = &typing{told: sig.State, timer: time.AfterFunc(typingPause, over)}
		return true
	}
	state.next = nil
	if sig.State != state.told {
		state.next = sig
	}
	return false
}

// over ends a pause, and gives what is to be told now; then another pause begins.
func (t *throttle) over(who typist) *domain.Signal {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.typists[who]
	if state == nil || state.next == nil {
		delete(t.typists, who)
		return nil
	}
	sig := state.next
	state.told, state.next = sig.State, nil
	state.timer.Reset(typingPause)
	return sig
}

// close forgets all typists.
func (t *throttle) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, state := range t.typists {
		state.timer.Stop()
	}
	t.typists = nil
}

// allows reports whether a user may send one more message to those online.
func (t *throttle) allows(user domain.UserID, perSecond float64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.allowances[user]
	if l == nil {
		if len(t.allowances) >= max(t.sweep, sweepAfter) {
			for id, l := range t.allowances {
				if l.Tokens() >= float64(l.Burst()) {
					delete(t.allowances, id)
				}
			}
			t.sweep = 2 * len(t.allowances)
		}
		if t.allowances == nil {
			t.allowances = make(map[domain.UserID]*rate.Limiter)
		}
		l = rate.NewLimiter(rate.Limit(perSecond), max(int(2*perSecond), 1))
		t.allowances[user] = l
	}
	return l.Allow()
}
