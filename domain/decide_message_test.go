package domain_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestSentMessageIsWhatEveryoneSees(t *testing.T) {
	// The event is the one thing that is stored, delivered and answered.
	content := domain.Content{
		Text: "hi", Payload: []domain.RawObject{domain.RawObject(`{"a":1}`)}, MessageType: 7,
		Parts: []domain.Part{{MimeType: "text/plain", Body: "x"}}, Attributes: domain.RawObject(`{"b":2}`),
		Mentions:     &domain.Mentions{Users: []domain.Username{"bob@chat.acme", "alice@chat.acme", "bob@chat.acme"}},
		Notification: &domain.Notification{Text: "psst", Sound: "ping.aiff"},
	}
	conv := room()
	c := &domain.SendMessage{
		Conversation: conv.ID,
		MessageRequest: domain.MessageRequest{
			ClientID: "m-1", Content: content,
			Options: &domain.Options{Receipt: true, Priority: "high", Push: domain.RawObject(`{"c":3}`)},
		},
		Meta: domain.Meta{RequestID: "r-1"},
	}
	d, err := newStore(conv).decide(t, user(bob), c)
	if err != nil {
		t.Fatal(err)
	}
	if d.Conversation != nil || d.Message != nil || d.Page != nil || len(d.Events) != 1 {
		t.Fatalf("a message changes nothing but the log: %+v", d)
	}
	e := d.Events[0]
	e.At(conv.ID, 8)
	want := &domain.Event{
		Type: domain.EventSendMessage, Conversation: conv.ID, Seq: 8, Time: now, Action: "sendMessage", RequestID: "r-1",
		Initiator: domain.Initiator{UserID: bob, Username: "bob@chat.acme", Device: "phone"},
		Sender:    domain.SenderID(bob), ClientID: "m-1", Mentioned: []domain.UserID{alice},
		Message: &domain.Message{
			ID: domain.NewMessageID(conv.ID, 8), Conversation: conv.ID, Seq: 8, ClientID: "m-1",
			Sender: &domain.Initiator{UserID: bob, Username: "bob@chat.acme"}, Time: now, Content: content,
			Receipt: true, Priority: "high", Push: domain.RawObject(`{"c":3}`),
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if d.Result.Message != e.Message {
		t.Error("the answer shows another message than the event")
	}
}

func TestBackendsPostAsThemselvesOrForAUser(t *testing.T) {
	send := &domain.SendMessage{
		Conversation: conversationID(1), MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}},
	}
	for _, tc := range []struct {
		p      domain.Principal
		sender domain.Initiator
	}{
		{service(), domain.Initiator{Service: "billing"}},
		{admin(), domain.Initiator{Service: "admin"}},
		{service().OnBehalfOf(person(bob)), domain.Initiator{UserID: bob, Username: "bob@chat.acme"}},
	} {
		d, err := newStore(room()).decide(t, tc.p, send)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&tc.sender, d.Events[0].Message.Sender); diff != "" {
			t.Errorf("sender (-want +got):\n%s", diff)
		}
	}
}

func TestNobodySpeaksWhereItTakesNoPart(t *testing.T) {
	// A backend sends on behalf of users, but does not put words into the mouth of who is not there.
	s := newStore(room())
	send := &domain.SendMessage{Conversation: conversationID(1), MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "x"}}}
	wantNumber(t, "a participant", s, service().OnBehalfOf(person(bob)), send, 0)
	wantNumber(t, "a stranger", s, service().OnBehalfOf(domain.User{ID: 99, Username: "zoe@chat.acme", Root: 1, Account: 1}), send, 19)
}

func TestPriorityComesBackAsGiven(t *testing.T) {
	// A client that compares what comes back with what it sent must find it, also where it spelt the default out.
	for given, want := range map[string]string{"": "", "normal": "normal", "low": "low", "high": "high"} {
		d, err := newStore(room()).decide(t, user(bob), &domain.SendMessage{
			Conversation: conversationID(1),
			MessageRequest: domain.MessageRequest{
				Content: domain.Content{Text: "hi"}, Options: &domain.Options{Priority: given},
			},
		})
		if err != nil || d.Events[0].Message.Priority != want {
			t.Errorf("%q: %+v, %v", given, d.Events[0].Message, err)
		}
	}
}

func TestOnlyParticipantsAreMentioned(t *testing.T) {
	// A mention notifies: it must not be a way to reach people who take no part, nor to find out who exists.
	for _, tc := range []struct {
		users  []domain.Username
		number int
	}{
		{[]domain.Username{"alice@chat.acme", "bob@chat.acme"}, 0},
		{[]domain.Username{"bob@chat.acme", "bob@chat.acme"}, 0},
		{[]domain.Username{"alice@chat.acme", "carol@chat.acme"}, 19},
		{[]domain.Username{"mallory@chat.rival"}, 19},
		{[]domain.Username{"nobody@chat.acme"}, 19},
		{nil, 0},
	} {
		_, err := newStore(room()).decide(t, user(bob), &domain.SendMessage{
			Conversation: conversationID(1),
			MessageRequest: domain.MessageRequest{
				Content: domain.Content{Text: "hi", Mentions: &domain.Mentions{Users: tc.users}},
			},
		})
		if number(err) != tc.number {
			t.Errorf("mentioning %v: %v, want number %d", tc.users, err, tc.number)
		}
	}
}

// rangeRole is a reader of a log of n events.
type rangeRole struct {
	name string
	p    domain.Principal
	part bool // takes part now
	uber bool
	past []domain.Interval
}

// oracle says which numbers a range names, or with which number it is refused; written from protocol.md and not from
// the code.
func oracle(r rangeRole, n int64, from, to, count *int64) (refusal int, first, last int64) {
	given := 0
	for _, a := range []*int64{from, to, count} {
		if a != nil {
			given++
		}
	}
	if given > 2 {
		return 36, 0, 0
	}
	if given < 2 {
		return 41, 0, 0
	}
	if count != nil {
		if *count < 1 {
			return 21, 0, 0
		}
		if *count > 100 {
			return 22, 0, 0
		}
	}
	if from != nil && *from < 1 || to != nil && *to < 1 {
		return 24, 0, 0
	}
	if from != nil && to != nil {
		if *from > *to {
			return 28, 0, 0
		}
	}
	// Who left sees up to leaving.
	end := n
	if !r.part {
		end = int64(r.past[len(r.past)-1].To)
	}
	switch {
	case from != nil && *from > end, to != nil && *to > end:
		return 24, 0, 0
	case count == nil && *to-*from+1 > 101:
		return 22, 0, 0
	case count == nil:
		return 0, *from, *to
	case from != nil:
		last = *from
		for last < end && last-*from+1 < *count {
			last++
		}
		return 0, *from, last
	}
	first = *to
	for first > 1 && *to-first+1 < *count {
		first--
	}
	return 0, first, *to
}

func TestRetransmissionRanges(t *testing.T) {
	// Clients compute ranges on their own and at the edges of the log: every combination of small and of nearly too large
	// arguments is compared with an oracle.
	numbers := []*int64{nil}
	for n := int64(-1); n <= 8; n++ {
		numbers = append(numbers, ptr(n))
	}
	for n := int64(99); n <= 103; n++ {
		numbers = append(numbers, ptr(n))
	}
	readers := []rangeRole{
		{"participant", user(bob), true, false, []domain.Interval{{From: 1}}},
		{"latecomer", user(bob), true, false, []domain.Interval{{From: 4}}},
		{"uber, from the start", user(bob), true, true, []domain.Interval{{From: 1}}},
		{"uber, latecomer", user(bob), true, true, []domain.Interval{{From: 4}}},
		{"uber, with a gap", user(bob), true, true, []domain.Interval{{From: 1, To: 2}, {From: 5}}},
		{"uber, twice away", user(bob), true, true, []domain.Interval{{From: 1, To: 1}, {From: 3, To: 3}, {From: 6}}},
		{"uber, unknown since when", user(bob), true, true, nil},
		{"former, left at 5", user(carol), false, false, []domain.Interval{{From: 3, To: 5}}},
		{"former, came and went", user(carol), false, false, []domain.Interval{{From: 1, To: 2}, {From: 4, To: 6}}},
		{"former in uber", user(carol), false, true, []domain.Interval{{From: 2, To: 3}, {From: 5, To: 6}}},
		{"service", service(), true, false, nil},
		{"service in uber", service(), true, false, nil},
		{"admin", admin(), true, false, nil},
	}
	for _, length := range []int64{0, 1, 2, 3, 4, 5, 6, 7, 150} {
		for _, r := range readers {
			t.Run(fmt.Sprintf("%s, %d events", r.name, length), func(t *testing.T) {
				conv := room()
				conv.LastSeq, conv.Uber = domain.Seq(length), r.uber || r.name == "service in uber"
				past := map[domain.ConversationID][]domain.Interval{conv.ID: r.past}
				for _, from := range numbers {
					for _, to := range numbers {
						for _, count := range numbers {
							c := &domain.RetransmitEvents{Conversation: conv.ID, From: from, To: to, Count: count}
							h := &domain.Heads{Limits: domain.DefaultLimits(), Conversation: conv, Past: past}
							d, err := domain.Decide(h, r.p, c)
							refusal, first, last := oracle(r, length, from, to, count)
							if number(err) != refusal {
								t.Fatalf("%s: %v, want number %d", rangeText(c), err, refusal)
							}
							if err == nil {
								checkPage(t, c, d, r, first, last)
							}
						}
					}
				}
			})
		}
	}
}

func checkPage(t *testing.T, c *domain.RetransmitEvents, d domain.Decision, r rangeRole, first, last int64) {
	t.Helper()
	if d.Page == nil || d.Result.From != domain.Seq(first) || d.Result.To != domain.Seq(last) || d.Result.Events == nil {
		t.Fatalf("%s: answers %d to %d with page %+v, want %d to %d", rangeText(c), d.Result.From, d.Result.To, d.Page, first, last)
	}
	for seq := int64(-1); seq <= 160; seq++ {
		want := seq >= first && seq <= last
		if r.uber {
			present := false
			for _, i := range r.past {
				present = present || seq >= int64(i.From) && (i.To == 0 || seq <= int64(i.To))
			}
			want = want && present
		}
		if d.Page.Shows(domain.Seq(seq)) != want {
			t.Fatalf("%s: shows event %d: want %t", rangeText(c), seq, want)
		}
	}
}

func rangeText(c *domain.RetransmitEvents) string {
	s := "retransmit"
	for _, a := range []struct {
		name string
		n    *int64
	}{{"from", c.From}, {"to", c.To}, {"count", c.Count}} {
		if a.n != nil {
			s += fmt.Sprintf(" %s %d", a.name, *a.n)
		}
	}
	return s
}

func TestHugeRangesDoNotOverflow(t *testing.T) {
	// The numbers come from the client: sums of them must not turn negative and get around the checks.
	const most, least = math.MaxInt64, math.MinInt64
	for _, tc := range []struct {
		from, to, count *int64
		number          int
	}{
		{ptr(int64(most)), nil, ptr(int64(100)), 24},
		{ptr(int64(most)), nil, ptr(int64(1)), 24},
		{ptr(int64(most - 50)), nil, ptr(int64(100)), 24},
		{nil, ptr(int64(most)), ptr(int64(100)), 24},
		{ptr(int64(1)), ptr(int64(most)), nil, 24},
		{ptr(int64(least)), ptr(int64(most)), nil, 24},
		{ptr(int64(most)), ptr(int64(least)), nil, 24},
		{ptr(int64(1)), nil, ptr(int64(most)), 22},
		{ptr(int64(1)), nil, ptr(int64(least)), 21},
	} {
		c := &domain.RetransmitEvents{Conversation: conversationID(1), From: tc.from, To: tc.to, Count: tc.count}
		if _, err := newStore(room()).decide(t, user(bob), c); number(err) != tc.number {
			t.Errorf("%s: %v, want number %d", rangeText(c), err, tc.number)
		}
	}
}

func TestWithoutTheRightToReadNothingIsRetransmitted(t *testing.T) {
	conv := room()
	conv.Participants[1].Permissions.CanRead = false
	c := &domain.RetransmitEvents{Conversation: conv.ID, From: ptr(int64(1)), To: ptr(int64(1))}
	if _, err := newStore(conv).decide(t, user(bob), c); number(err) != 12 {
		t.Errorf("%v", err)
	}
}
