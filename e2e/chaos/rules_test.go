package chaos_test

import (
	"slices"
	"testing"

	"github.com/parley-im/parley/e2e/chaos"
)

// rewritten gives a history without fault in which messages are edited and removed, and bob may not read from event 7 on
// until event 10. Event 2 is edited by event 4 and 5, event 3 is removed by event 6.
//
// Bob's phone is away when that happens. It comes back twice: while it may not read, and is sent nothing, and when it may
// again, and gets what it had missed. Bob's tablet is connected all the time, and slow: what it had not been sent by event 7 is withheld
// until event 10.
func rewritten() *chaos.History {
	log := []chaos.Event{{Type: "createConversation", Action: "createConversation", Users: []int64{alice, bob}, Uber: true}}
	say := func(kind string, of int64, shows chaos.Content) {
		log = append(log, chaos.Event{Type: kind, Action: kind, Of: of, Shows: shows})
		if kind != "removeMessage" {
			log[len(log)-1].Message = []string{"", "", "two", "three", "", "", "", "", "eight", "nine", "", "eleven"}[of]
		}
	}
	twice, gone := chaos.Content{Text: "second edit", Edits: 2}, chaos.Content{Removed: true}
	say("sendMessage", 2, twice)
	say("sendMessage", 3, gone)
	say("editMessage", 2, twice)
	say("editMessage", 2, twice)
	say("removeMessage", 3, chaos.Content{})
	log = append(log, chaos.Event{
		Type: "editConversation", Action: "editParticipants", Users: []int64{bob}, Blind: []int64{bob}, Asked: at(7), Answered: at(7.1),
	})
	say("sendMessage", 8, chaos.Content{Text: "eight"})
	say("sendMessage", 9, chaos.Content{Text: "nine"})
	log = append(log, chaos.Event{
		Type: "editConversation", Action: "editParticipants", Users: []int64{bob}, Asked: at(10), Answered: at(10.1),
	})
	say("sendMessage", 11, chaos.Content{Text: "eleven"})
	for i := range log {
		log[i].Conversation, log[i].Seq = "c", int64(i+1)
	}
	h := &chaos.History{Logs: map[string][]chaos.Event{"c": log}}
	for _, seq := range []int64{2, 3, 8, 9, 11} {
		id := log[seq-1].Message
		h.Publishes = append(h.Publishes, chaos.Publish{
			Conversation: "c", ID: id, Text: id, Outcome: chaos.Accepted, Seq: seq, Begun: at(float64(seq)),
		})
	}
	h.Revocations = []chaos.Revocation{{User: bob, Asked: at(1.5), Answered: at(1.6)}, {User: alice, Asked: at(8.5), Answered: at(8.6)}}
	h.Rewrites = []chaos.Rewrite{
		{Conversation: "c", Of: 2, Text: "first edit", Outcome: chaos.Accepted, Edits: 1, Asked: at(4), Answered: at(4.1)},
		{Conversation: "c", Of: 2, Text: "second edit", Outcome: chaos.Unanswered, Asked: at(5)},
		{Conversation: "c", Of: 3, Removal: true, Outcome: chaos.Accepted, Asked: at(6), Answered: at(6.1)},
		{Conversation: "c", Of: 8, Text: "never", Outcome: chaos.Refused, Asked: at(8.1), Answered: at(8.2)},
	}
	deliver := func(arrived float64, seqs ...int) (list []chaos.Delivery) {
		for _, seq := range seqs {
			list = append(list, chaos.Delivery{Event: log[seq-1], Arrived: at(arrived), Acknowledged: at(arrived), Confirmed: at(arrived + 0.1)})
		}
		return list
	}
	live := deliver(2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	live[0].Shows, live[1].Shows = chaos.Content{Text: "two"}, chaos.Content{Text: "three"}
	live[2].Shows = chaos.Content{Text: "first edit", Edits: 1}
	h.Devices = []chaos.Device{
		{Name: "bob's phone", User: bob, Durable: true, Complete: true, Start: map[string]int64{"c": 1}, Connections: []chaos.Connection{
			{Opened: at(1), Subscribed: at(1.1)},
			{Opened: at(8), Present: true},
			{Opened: at(10.5), Present: true, Deliveries: deliver(10.6, 2, 3, 4, 5, 6, 7, 10, 11)},
		}},
		{Name: "bob's tablet", User: bob, Durable: true, Complete: true, Start: map[string]int64{"c": 1}, Connections: []chaos.Connection{
			{Opened: at(1), Subscribed: at(1.1), Deliveries: slices.Concat(deliver(3, 2, 3), deliver(11, 4, 5, 6, 7, 10, 11))},
		}},
		{Name: "alice's desk", User: alice, Complete: true, Connections: []chaos.Connection{
			{Opened: at(1), Subscribed: at(1.1), Deliveries: live},
		}},
		{Name: "alice's tablet", User: alice, Connections: []chaos.Connection{
			{Opened: at(1), Subscribed: at(1.1), Token: at(0.5), Deliveries: slices.Clone(live[:7])},
		}},
	}
	h.Devices[1].Connections[0].Deliveries[1].Shows = chaos.Content{Text: "three"}
	show := func(user int64, final bool, when float64, seqs ...int) {
		r := chaos.Read{User: user, Conversation: "c", Final: final, Asked: at(when), Answered: at(when + 0.1)}
		for _, seq := range seqs {
			r.Events = append(r.Events, log[seq-1])
		}
		h.Reads = append(h.Reads, r)
	}
	show(0, false, 4.5, 2, 3, 4)
	for i := range h.Reads[0].Events {
		h.Reads[0].Events[i].Shows = chaos.Content{Text: "first edit", Edits: 1}
	}
	h.Reads[0].Events[1].Shows = chaos.Content{Text: "three"}
	show(bob, false, 6.5, 1, 2, 3, 4, 5, 6)
	show(bob, false, 8)
	show(bob, true, 12, 1, 2, 3, 4, 5, 6, 7, 10, 11)
	show(alice, true, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	show(3, true, 12)
	return h
}

func TestAHistoryOfChangesWithoutFaultHasNoProblem(t *testing.T) {
	// What is withheld, shown anew or not shown any more by the rules must not be taken for a fault.
	for _, p := range chaos.Check(rewritten()) {
		t.Error(p)
	}
	h := rewritten()
	for _, p := range chaos.Check(h) {
		t.Error(p)
	}
	// Who is connected when the permission is given back goes on from there.
	h.Devices[0].Connections[1].Deliveries = h.Devices[0].Connections[2].Deliveries
	h.Devices[0].Connections[2].Deliveries = nil
	for _, p := range chaos.Check(h) {
		t.Error(p)
	}
	// So does who leaves and comes back meanwhile.
	for i, action := range map[int]string{8: "leaveConversation", 9: "joinConversation"} {
		h.Logs["c"][i] = chaos.Event{
			Conversation: "c", Seq: int64(i + 1), Type: "editConversation", Action: action, Users: []int64{bob},
		}
	}
	h.Publishes = slices.Delete(h.Publishes, 3, 4)
	for _, list := range [][]chaos.Delivery{h.Devices[0].Connections[1].Deliveries[6:7], h.Devices[1].Connections[0].Deliveries[6:7]} {
		list[0].Event = h.Logs["c"][9]
	}
	copy(h.Reads[3].Events[7:], h.Logs["c"][9:])
	copy(h.Reads[4].Events[8:], h.Logs["c"][8:])
	h.Devices[2].Connections[0].Deliveries[7].Event = h.Logs["c"][8]
	h.Devices[2].Connections[0].Deliveries[8].Event = h.Logs["c"][9]
	for _, p := range chaos.Check(h) {
		t.Error(p)
	}
	// And who may not read in the end is due nothing of what it had missed.
	h = rewritten()
	h.Logs["c"] = h.Logs["c"][:9]
	h.Publishes, h.Reads = h.Publishes[:4], h.Reads[:3]
	h.Devices[0].Connections = h.Devices[0].Connections[:2]
	h.Devices[1].Connections[0].Deliveries = h.Devices[1].Connections[0].Deliveries[:2]
	h.Devices[2].Connections[0].Deliveries = h.Devices[2].Connections[0].Deliveries[:8]
	for _, p := range chaos.Check(h) {
		t.Error(p)
	}
}

func TestEachFaultOfChangesIsFound(t *testing.T) {
	// A checker that excuses too much proves as little as one that finds nothing.
	log := func(h *chaos.History, seq int) *chaos.Event { return &h.Logs["c"][seq-1] }
	given := func(h *chaos.History, device, connection int) *[]chaos.Delivery {
		return &h.Devices[device].Connections[connection].Deliveries
	}
	without := func(list *[]chaos.Delivery, from, to int) { *list = slices.Delete(*list, from, to) }
	faults := map[string]struct {
		want chaos.Kind
		do   func(h *chaos.History)
	}{
		"an accepted edit is not in the log": {chaos.Unstored, func(h *chaos.History) {
			h.Rewrites[1].Outcome = chaos.Accepted
			h.Rewrites = append(h.Rewrites, h.Rewrites[1])
		}},
		"an accepted removal is not in the log": {chaos.Unstored, func(h *chaos.History) { log(h, 6).Type = "editConversation" }},
		"an edit is in the log twice":           {chaos.Twice, func(h *chaos.History) { h.Rewrites = slices.Delete(h.Rewrites, 1, 2) }},
		"a refused edit is in the log": {chaos.Unasked, func(h *chaos.History) {
			h.Rewrites[1].Outcome = chaos.Refused
			h.Rewrites[0].Outcome = chaos.Unanswered
		}},
		"a refused removal is in the log":           {chaos.Unasked, func(h *chaos.History) { h.Rewrites[2].Outcome = chaos.Refused }},
		"a message is removed twice":                {chaos.Twice, func(h *chaos.History) { log(h, 5).Type, log(h, 5).Of = "removeMessage", 3 }},
		"what is no message is edited":              {chaos.Unasked, func(h *chaos.History) { log(h, 5).Of = 1 }},
		"the log shows what was removed":            {chaos.Stale, func(h *chaos.History) { log(h, 3).Shows = chaos.Content{Text: "three"} }},
		"the removal shows what it was":             {chaos.Stale, func(h *chaos.History) { log(h, 6).Shows = chaos.Content{Text: "three"} }},
		"a removed message has content":             {chaos.Stale, func(h *chaos.History) { log(h, 3).Shows.Text = "three" }},
		"the log shows what was edited":             {chaos.Stale, func(h *chaos.History) { log(h, 4).Shows = chaos.Content{Text: "first edit", Edits: 1} }},
		"the log shows what nobody wrote":           {chaos.Unasked, func(h *chaos.History) { log(h, 2).Shows.Text = "hello" }},
		"the log shows an edit as removed":          {chaos.Differs, func(h *chaos.History) { log(h, 2).Shows = chaos.Content{Removed: true} }},
		"a delivery shows another text":             {chaos.Differs, func(h *chaos.History) { (*given(h, 2, 0))[0].Shows.Text = "eight" }},
		"an edit is delivered as another message's": {chaos.Differs, func(h *chaos.History) { (*given(h, 2, 0))[3].Of = 3 }},
		"a delivery shows an edit that was not made": {chaos.Differs, func(h *chaos.History) {
			(*given(h, 2, 0))[3].Shows = chaos.Content{Text: "first edit", Edits: 3}
		}},
		"an edit's delivery shows what was before it": {chaos.Stale, func(h *chaos.History) { (*given(h, 2, 0))[2].Shows = chaos.Content{Text: "two"} }},
		"a later connection is shown what was removed": {chaos.Stale, func(h *chaos.History) {
			(*given(h, 0, 2))[1].Shows = chaos.Content{Text: "three"}
		}},
		"a later connection is shown what was edited": {chaos.Stale, func(h *chaos.History) {
			(*given(h, 0, 2))[0].Shows = chaos.Content{Text: "two"}
		}},
		"who asks is shown what was edited": {chaos.Stale, func(h *chaos.History) { h.Reads[0].Events[0].Shows = chaos.Content{Text: "two"} }},
		"who asks in the end is shown what was removed": {chaos.Stale, func(h *chaos.History) {
			h.Reads[4].Events[2].Shows = chaos.Content{Text: "three"}
		}},
		"an edit is lost":    {chaos.Lost, func(h *chaos.History) { without(given(h, 2, 0), 2, 3) }},
		"a removal is lost":  {chaos.Lost, func(h *chaos.History) { without(given(h, 0, 2), 4, 5) }},
		"read without right": {chaos.Leaked, func(h *chaos.History) { (*given(h, 1, 0))[6] = chaos.Delivery{Event: *log(h, 9)} }},
		"caught up without right": {chaos.Leaked, func(h *chaos.History) {
			list := slices.Clone((*given(h, 0, 2))[:3])
			for i := range list {
				list[i].Arrived = at(8.1)
			}
			*given(h, 0, 1) = list
		}},
		"the loss of the right is not told":               {chaos.Lost, func(h *chaos.History) { without(given(h, 1, 0), 5, 6) }},
		"what was withheld of a connected device is lost": {chaos.Lost, func(h *chaos.History) { without(given(h, 1, 0), 2, 5) }},
		"all that was withheld of it is lost":             {chaos.Lost, func(h *chaos.History) { without(given(h, 1, 0), 2, 6) }},
		"the loss is told before what is withheld": {chaos.Lost, func(h *chaos.History) {
			list := *given(h, 1, 0)
			list[2], list[5] = list[5], list[2]
		}},
		"a connection that begins without the right is given what follows it alone": {chaos.Lost, func(h *chaos.History) {
			*given(h, 0, 1), *given(h, 0, 2) = (*given(h, 0, 2))[6:], nil
		}},
		"what was missed before the right was lost is lost": {chaos.Lost, func(h *chaos.History) { without(given(h, 0, 2), 1, 5) }},
		"all that was missed is lost":                       {chaos.Lost, func(h *chaos.History) { without(given(h, 0, 2), 0, 6) }},
		"what follows the return of the right is lost":      {chaos.Lost, func(h *chaos.History) { without(given(h, 1, 0), 6, 7) }},
		"what comes after it is lost":                       {chaos.Lost, func(h *chaos.History) { without(given(h, 1, 0), 7, 8) }},
		"a session outlasts its token": {chaos.Leaked, func(h *chaos.History) {
			*given(h, 3, 0) = slices.Clone((*given(h, 2, 0))[:8])
		}},
		"a token that was revoked is good for a login": {chaos.Leaked, func(h *chaos.History) {
			h.Devices[3].Connections[0] = chaos.Connection{Opened: at(8.8), Token: at(8.4), Deliveries: (*given(h, 2, 0))[7:8]}
		}},
		"the past is shown without right": {chaos.Leaked, func(h *chaos.History) { h.Reads[2].Events = h.Reads[1].Events }},
		"the past of others is shown":     {chaos.Leaked, func(h *chaos.History) { h.Reads[3].Events = h.Reads[4].Events }},
		"the past is shown to strangers":  {chaos.Leaked, func(h *chaos.History) { h.Reads[5].Events = h.Reads[4].Events }},
		"the own past is withheld":        {chaos.Withheld, func(h *chaos.History) { h.Reads[3].Events = h.Reads[3].Events[:8] }},
		"another past is withheld": {chaos.Withheld, func(h *chaos.History) {
			for i := range h.Logs["c"] {
				h.Logs["c"][i].Uber = false
			}
		}},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			h := rewritten()
			fault.do(h)
			problems := chaos.Check(h)
			if !slices.Contains(kinds(problems), fault.want) {
				t.Errorf("found %v, want %q", problems, fault.want)
			}
		})
	}
}
