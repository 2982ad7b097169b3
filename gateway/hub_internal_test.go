package gateway

import (
	"runtime"
	"testing"

	"github.com/parley-im/parley/domain"
)

// heapInUse gives the memory that is reachable.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAbsentParticipantsCostTheHubNothing(t *testing.T) {
	// Most users are away most of the time. What the gateway keeps besides the heads themselves must be for those who are
	// there, or its memory is that of everybody who was ever added to anything.
	const conversations, members = 100, 500
	h := newHub(1 << 40)
	heads := make([]*domain.Conversation, conversations)
	for i := range heads {
		heads[i] = &domain.Conversation{ID: domain.ConversationID{0: byte(i), 15: 1}, Version: 1, LastSeq: 1}
		for j := range members {
			heads[i].Participants = append(heads[i].Participants, domain.Participant{
				UserID: domain.UserID(1 + i*members + j), Permissions: domain.Permissions{CanRead: true},
			})
		}
	}
	s := &Session{principal: domain.Principal{User: 7}, g: &Gateway{}}
	if _, err := h.enter(s); err != nil {
		t.Fatal(err)
	}
	before := heapInUse()
	for _, head := range heads {
		st := h.stream(head.ID)
		st.open(head)
		h.settle(st, head)
		h.done(st)
	}
	if each := (heapInUse() - before) / (conversations * members); each > 8 {
		t.Errorf("%d bytes for each participant who is away", each)
	}
	if n := len(h.users); n != 1 {
		t.Errorf("the hub keeps %d users, and one is there", n)
	}
	st := h.peek(heads[0].ID)
	if len(st.online) != 1 || st.online[0] != s {
		t.Errorf("%d sessions take part, want that of the one who is there", len(st.online))
	}
	h.leave(s)
	if len(h.users) != 0 || len(st.online) != 0 {
		t.Errorf("%d users and %d sessions are left", len(h.users), len(st.online))
	}
	runtime.KeepAlive(heads)
}
