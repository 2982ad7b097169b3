package domain_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

func anyConversation() *rapid.Generator[domain.ConversationID] {
	return rapid.Custom(func(t *rapid.T) domain.ConversationID {
		var id domain.ConversationID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		return id
	})
}

func TestMessageIDsLeadBackToTheirMessages(t *testing.T) {
	// There is neither a column nor an index for them: what editMessage is given is all there is. They are UUIDs of
	// version 8, and no id leads into a conversation that it is not of.
	rapid.Check(t, func(rt *rapid.T) {
		c, other := anyConversation().Draw(rt, "conversation"), anyConversation().Draw(rt, "other")
		seq := domain.Seq(rapid.Int64Range(1, 1<<48-1).Draw(rt, "seq"))
		id := domain.NewMessageID(c, seq)
		if got, ok := id.Seq(c); !ok || got != seq {
			rt.Fatalf("%s of message %d leads to %d, %t", id, seq, got, ok)
		}
		if _, ok := id.Seq(other); ok && other != c {
			rt.Fatalf("%s of %s leads into %s", id, c, other)
		}
		if id[6]>>4 != 8 || id[8]>>6 != 2 || id.String()[14] != '8' || !strings.ContainsRune("89ab", rune(id.String()[19])) {
			rt.Fatalf("%s is no UUID of version 8", id)
		}
		if id != domain.NewMessageID(c, seq) {
			rt.Fatal("the id is another one each time")
		}
		forged := id
		forged[rapid.IntRange(0, 15).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if got, ok := forged.Seq(c); ok && got == seq {
			rt.Fatalf("%s is taken for %s", forged, id)
		}
	})
	for _, id := range []domain.MessageID{{}, domain.MessageID(conversationID(1)), domain.NewMessageID(conversationID(1), 0)} {
		if seq, ok := id.Seq(conversationID(1)); ok {
			t.Errorf("%s leads to message %d", id, seq)
		}
	}
}

func TestMessageIDsDoNotCollide(t *testing.T) {
	seen := make(map[domain.MessageID]bool)
	for conv := range byte(100) {
		for seq := domain.Seq(1); seq <= 1000; seq++ {
			id := domain.NewMessageID(conversationID(conv), seq)
			if seen[id] {
				t.Fatalf("message %d of conversation %d has another one's id", seq, conv)
			}
			seen[id] = true
		}
	}
}

func TestUUIDsHaveOneForm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := anyConversation().Draw(rt, "conversation")
		for _, s := range []string{c.String(), strings.ToUpper(c.String())} {
			if got, err := domain.ParseConversationID(s); err != nil || got != c {
				rt.Fatalf("%s: %s, %v", s, got, err)
			}
			if got, err := domain.ParseMessageID(s); err != nil || got != domain.MessageID(c) {
				rt.Fatalf("%s: %s, %v", s, got, err)
			}
		}
		b, err := json.Marshal(c)
		var back domain.ConversationID
		if err != nil || string(b) != `"`+strings.ToLower(c.String())+`"` || json.Unmarshal(b, &back) != nil || back != c {
			rt.Fatalf("JSON %s, %v", b, err)
		}
	})
	for _, s := range []string{
		"", "018bcfe5", "018bcfe5680170008000000000000001", "{018bcfe5-6801-7000-8000-000000000001}", "018bcfe5-6801-7000-8000-00000000000g",
		"018bcfe5-6801-7000-8000-0000000000011", "018bcfe56-801-7000-8000-000000000001", "018bcfe5_6801_7000_8000_000000000001",
		"urn:uuid:018bcfe5-6801-7000-8000-000000000001", " 018bcfe5-6801-7000-8000-000000000001",
	} {
		if id, err := domain.ParseConversationID(s); err == nil || !id.IsZero() {
			t.Errorf("%q reads as %s", s, id)
		}
		if id, err := domain.ParseMessageID(s); err == nil || !id.IsZero() {
			t.Errorf("%q reads as message %s", s, id)
		}
	}
	if !(domain.ConversationID{}).IsZero() || conversationID(1).IsZero() || domain.UserID(7).String() != "7" {
		t.Error("zero or decimal forms")
	}
}
