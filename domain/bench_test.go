package domain_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

// twoHundred is the message of the benchmarks: 200 bytes of text, with what a client adds.
func twoHundred() string {
	return `{"id":"m-17","text":"` + strings.Repeat("word ", 40) + `","requestId":"r-17"}`
}

// crowded gives a conversation of n, in which bob comes last.
func crowded(n int) *domain.Conversation {
	c := room()
	c.Participants = nil
	for i := 1; i < n; i++ {
		id := domain.UserID(1000 + i)
		c.Participants = append(c.Participants, domain.Participant{
			UserID: id, Username: domain.Username(fmt.Sprintf("user-%d@chat.acme", id)), Permissions: domain.DefaultPermissions(),
		})
	}
	c.Participants = append(c.Participants, participant(bob, domain.DefaultPermissions()))
	return c
}

func BenchmarkDecidePerParticipants(b *testing.B) {
	req := publish(messagesTopic(), twoHundred())
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("sendMessage/%d", n), func(b *testing.B) {
			h := &domain.Heads{Now: now, Limits: domain.DefaultLimits(), Conversation: crowded(n)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := domain.Decide(h, user(bob), req.Command); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("createConversation/1000", func(b *testing.B) {
		users, parts := crowd(999)
		h := &domain.Heads{Now: now, Limits: domain.DefaultLimits(), Users: append(users, person(alice)), NewID: conversationID(1)}
		c := &domain.CreateConversation{Participants: parts}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := domain.Decide(h, user(alice), c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mentions/1000", func(b *testing.B) {
		conv := crowded(1000)
		c := &domain.SendMessage{Conversation: conv.ID}
		c.Text, c.Mentions = "x", &domain.Mentions{}
		for i := range 1000 {
			c.Mentions.Users = append(c.Mentions.Users, conv.Participants[i].Username)
		}
		h := &domain.Heads{Now: now, Limits: domain.DefaultLimits(), Conversation: conv}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := domain.Decide(h, user(bob), c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodePublish(b *testing.B) {
	for name, pub := range map[string]*domain.Publish{
		"message": {Topic: messagesTopic(), Payload: []byte(twoHundred()), Version: 5, QoS: 1},
		"message with Response Topic": {
			Topic: messagesTopic(), Payload: []byte(twoHundred()), Version: 5, QoS: 1, ResponseTopic: replies, Correlation: []byte("r-17"),
		},
		"command":      {Topic: "commands/retransmitEvents", Payload: []byte(`{"conversation":"` + conversationID(1).String() + `","from":1,"count":100,"requestId":"r"}`), Version: 5, QoS: 1},
		"raw":          {Topic: rawTopic(), Payload: []byte(strings.Repeat("word ", 40)), Version: 5, QoS: 1},
		"64 KiB":       {Topic: messagesTopic(), Payload: []byte(`{"payload":[{"a":"` + strings.Repeat("x", 65000) + `"}]}`), Version: 5, QoS: 1},
		"worst 64 KiB": {Topic: messagesTopic(), Payload: []byte(`{"payload":[` + strings.TrimSuffix(strings.Repeat(`{},`, 21000), ",") + `]}`), Version: 5, QoS: 1},
	} {
		b.Run(name, func(b *testing.B) {
			p := user(alice)
			b.ReportAllocs()
			for b.Loop() {
				if req := domain.DecodePublish(p, pub, domain.DefaultLimits()); req.Err != nil {
					b.Fatal(req.Err)
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		pub := &domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"text":"x","payload":[{},5],"requestId":"r"}`), Version: 5, QoS: 1}
		for b.Loop() {
			if req := domain.DecodePublish(user(alice), pub, domain.DefaultLimits()); req.Err == nil {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("refused 64 KiB", func(b *testing.B) {
		// A client can make refusals expensive by putting what is wrong where it is found last.
		pub := &domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"payload":[` + strings.Repeat(`{},`, 21000) + `5]}`), Version: 5, QoS: 1}
		for b.Loop() {
			if req := domain.DecodePublish(user(alice), pub, domain.DefaultLimits()); req.Err == nil {
				b.Fatal("accepted")
			}
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	req := publish(messagesTopic(), twoHundred())
	h := &domain.Heads{Now: now, Limits: domain.DefaultLimits(), Conversation: crowded(10)}
	d, err := domain.Decide(h, user(bob), req.Command)
	if err != nil {
		b.Fatal(err)
	}
	e := d.Events[0]
	e.At(conversationID(1), 8)
	stored, err := e.MarshalStored()
	if err != nil {
		b.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"json":            func() error { _, err := json.Marshal(e); return err },
		"marshalStored":   func() error { _, err := e.MarshalStored(); return err },
		"unmarshalStored": func() error { _, err := domain.UnmarshalStored(e.Conversation, 8, stored); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTopics(b *testing.B) {
	for _, s := range []string{messagesTopic(), replies, "conversations/+/events"} {
		b.Run(strings.NewReplacer("/", "_").Replace(s), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := domain.ParseFilter(s); !ok {
					if _, ok := domain.ParseTopic(s); !ok {
						b.Fatal(s)
					}
				}
			}
		})
	}
}
