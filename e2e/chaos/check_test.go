package chaos_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

const (
	alice = 1
	bob   = 2
)

// at gives a moment of a history, in seconds.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// clean gives a history without fault: bob is removed by event 6 and comes back by event 9; its device is away for a
// while, sees the gateway killed whose last words arrive only later, and goes on.
func clean() *chaos.History {
	log := []chaos.Event{{Conversation: "c", Seq: 1, Type: "createConversation", Action: "createConversation", Users: []int64{alice, bob}}}
	add := func(kind, action, message string, users ...int64) {
		log = append(log, chaos.Event{
			Conversation: "c", Seq: int64(len(log) + 1), Type: kind, Action: action, Message: message, Users: users,
		})
	}
	h := &chaos.History{}
	say := func(n int) {
		id := fmt.Sprint("m", n)
		h.Publishes = append(h.Publishes, chaos.Publish{
			Conversation: "c", ID: id, Text: id, Outcome: chaos.Accepted, Seq: int64(len(log) + 1), Begun: at(float64(n)),
		})
		add("sendMessage", "sendMessage", id)
		log[len(log)-1].Of, log[len(log)-1].Shows.Text = int64(len(log)), id
	}
	for n := 2; n <= 5; n++ {
		say(n)
	}
	add("editConversation", "removeParticipants", "", bob)
	say(7)
	say(8)
	add("editConversation", "addParticipants", "", bob)
	say(10)
	say(11)
	h.Publishes = append(h.Publishes, chaos.Publish{Conversation: "c", ID: "no", Outcome: chaos.Refused})
	h.Logs = map[string][]chaos.Event{"c": log}
	deliver := func(confirmed float64, seqs ...int) []chaos.Delivery {
		var list []chaos.Delivery
		for _, seq := range seqs {
			d := chaos.Delivery{Event: log[seq-1]}
			if confirmed > 0 {
				d.Confirmed = at(confirmed)
			}
			list = append(list, d)
		}
		return list
	}
	late := deliver(20.5, 5, 6)
	for i := range late {
		late[i].Acknowledged = at(16.5 + float64(i))
	}
	h.Devices = []chaos.Device{
		{
			Name: "bob's phone", User: bob, Durable: true, Complete: true, Start: map[string]int64{"c": 1},
			Connections: []chaos.Connection{
				{Opened: at(1), Subscribed: at(1.1), Deliveries: slices.Concat(deliver(2, 2, 3), deliver(0, 4, 5))},
				{Opened: at(6), Present: true, Deliveries: slices.Concat(deliver(7, 4), late)},
				{Opened: at(21), Present: true, Deliveries: deliver(22, 5, 6, 9, 10, 11)},
			},
		},
		{
			Name: "alice's desk", User: alice, Complete: true, Connections: []chaos.Connection{
				{Opened: at(2), Subscribed: at(2.1), Deliveries: deliver(0, 3, 4, 5, 6, 7, 8, 9, 10, 11)},
			},
		},
	}
	h.Shaky = []chaos.Period{{From: at(17), To: at(20)}}
	return h
}

func kinds(problems []chaos.Problem) []chaos.Kind {
	var list []chaos.Kind
	for _, p := range problems {
		list = append(list, p.Kind)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestAHistoryWithoutFaultHasNoProblem(t *testing.T) {
	// A checker that complains about what is allowed would be silenced, and then be of no use.
	for _, p := range chaos.Check(clean()) {
		t.Error(p)
	}
}

func TestEachFaultIsFound(t *testing.T) {
	// A checker that cannot fail proves nothing, however long it is run.
	phone := func(h *chaos.History, n int) *[]chaos.Delivery { return &h.Devices[0].Connections[n].Deliveries }
	desk := func(h *chaos.History) *[]chaos.Delivery { return &h.Devices[1].Connections[0].Deliveries }
	without := func(list *[]chaos.Delivery, i int) { *list = slices.Delete(slices.Clone(*list), i, i+1) }
	faults := map[string]struct {
		want chaos.Kind
		do   func(h *chaos.History)
	}{
		"a hole in the log":                     {chaos.Gap, func(h *chaos.History) { h.Logs["c"] = slices.Delete(h.Logs["c"], 9, 10) }},
		"an acknowledged message is missing":    {chaos.Unstored, func(h *chaos.History) { h.Logs["c"] = h.Logs["c"][:10] }},
		"acknowledged with another number":      {chaos.Unstored, func(h *chaos.History) { h.Publishes[3].Seq = 99 }},
		"stored twice":                          {chaos.Twice, func(h *chaos.History) { h.Logs["c"][9].Message = "m11" }},
		"stored though refused":                 {chaos.Unasked, func(h *chaos.History) { h.Publishes[6].Outcome = chaos.Refused }},
		"lost while connected":                  {chaos.Lost, func(h *chaos.History) { without(phone(h, 0), 1) }},
		"lost between connections":              {chaos.Lost, func(h *chaos.History) { *phone(h, 2) = (*phone(h, 2))[3:] }},
		"lost at the first connection":          {chaos.Lost, func(h *chaos.History) { without(phone(h, 0), 0) }},
		"lost at the end":                       {chaos.Lost, func(h *chaos.History) { without(phone(h, 2), 4) }},
		"the last event, of removal, is lost":   {chaos.Lost, func(h *chaos.History) { without(phone(h, 2), 1) }},
		"the session is forgotten":              {chaos.Lost, func(h *chaos.History) { h.Devices[0].Connections[1].Present = false }},
		"lost by a live session":                {chaos.Lost, func(h *chaos.History) { without(desk(h), 3) }},
		"lost by a live session at the end":     {chaos.Lost, func(h *chaos.History) { without(desk(h), 8) }},
		"lost by a live session at the start":   {chaos.Lost, func(h *chaos.History) { without(desk(h), 0) }},
		"repeated while connected":              {chaos.Repeated, func(h *chaos.History) { *phone(h, 0) = append(*phone(h, 0), (*phone(h, 0))[1]) }},
		"repeated after its acknowledgement":    {chaos.Repeated, func(h *chaos.History) { *phone(h, 1) = append((*phone(h, 0))[1:2:2], *phone(h, 1)...) }},
		"repeated to a live session":            {chaos.Repeated, func(h *chaos.History) { *desk(h) = append(*desk(h), (*desk(h))[8]) }},
		"repeated, flushed long before a crash": {chaos.Repeated, func(h *chaos.History) { h.Shaky[0].From, h.Shaky[0].To = at(20.8), at(20.9) }},
		"out of order": {chaos.Reordered, func(h *chaos.History) {
			list := *phone(h, 2)
			list[3], list[4] = list[4], list[3]
		}},
		"out of order to a live session": {chaos.Reordered, func(h *chaos.History) {
			list := *desk(h)
			list[3], list[4] = list[4], list[3]
		}},
		"leaked while not a participant": {chaos.Leaked, func(h *chaos.History) {
			*phone(h, 2) = append(*phone(h, 2), chaos.Delivery{Event: h.Logs["c"][6]})
		}},
		"leaked to a stranger": {chaos.Leaked, func(h *chaos.History) { h.Devices[1].User = 3 }},
		"leaked of another conversation": {chaos.Leaked, func(h *chaos.History) {
			*desk(h) = append(*desk(h), chaos.Delivery{Event: chaos.Event{Conversation: "d", Seq: 1}})
		}},
		"another message than in the log": {chaos.Differs, func(h *chaos.History) { (*phone(h, 0))[0].Message = "m9" }},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			h := clean()
			fault.do(h)
			problems := chaos.Check(h)
			if !slices.Contains(kinds(problems), fault.want) {
				t.Errorf("found %v, want %q", problems, fault.want)
			}
		})
	}
}
