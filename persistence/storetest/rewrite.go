package storetest

import (
	"bytes"
	"testing"

	"github.com/parley-im/parley/domain"
)

func rewrittenMessages(t *testing.T, b Backend) {
	// "Removed" must mean that it cannot be found any more, wherever one looks.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 2)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	quiet := func(want ...string) {
		t.Helper()
		there := make(map[string]bool)
		for _, cell := range place.Dump(t) {
			for _, secret := range []string{"secret-one", "secret-two", "secret-three", "kept-secret"} {
				there[secret] = there[secret] || bytes.Contains(cell, []byte(secret))
			}
		}
		for secret, found := range there {
			expected := false
			for _, s := range want {
				expected = expected || s == secret
			}
			if found != expected {
				t.Errorf("%q is there: %v, want %v", secret, found, expected)
			}
		}
	}
	texts := func(want ...string) {
		t.Helper()
		for i, e := range w.Log(c.ID) {
			got := ""
			if e.Message != nil {
				got = string(e.Type) + " " + e.Message.Text
				if e.Message.Removed {
					got += "removed"
				}
				if e.Message.ID != domain.NewMessageID(c.ID, e.Message.Seq) {
					t.Errorf("event %d is about message %s", e.Seq, e.Message.ID)
				}
			}
			if i < len(want) && got != want[i] {
				t.Errorf("event %d reads %q, want %q", e.Seq, got, want[i])
			}
		}
	}
	rewrite := func(seq domain.Seq, text string) domain.Changed {
		t.Helper()
		changed := w.Try(log, w.Rewrite(c.ID, seq, text))[0]
		if changed.Err != nil {
			t.Fatal(changed.Err)
		}
		return changed
	}

	w.Send(log, w.Draft(c, 0, "m", "secret-one"), w.Draft(c, 1, "n", "kept-secret"))
	quiet("secret-one", "kept-secret")
	if changed := rewrite(2, "secret-two"); changed.Decision.Events[0].Seq != 4 || changed.Before.LastSeq != 3 {
		t.Errorf("edited: %+v", changed)
	}
	quiet("secret-two", "kept-secret")
	texts("", "sendMessage secret-two", "sendMessage kept-secret", "editMessage secret-two")
	rewrite(2, "secret-three")
	quiet("secret-three", "kept-secret")
	// Not a draft that repeats the message, nor one decided on the head before, brings it back or is lost.
	got, err := w.Append(t.Context(), log, w.Draft(c, 0, "m", "secret-one"), w.Draft(c, 0, "o", "another"))
	must(t, err)
	equal(t, "placements", got, []domain.Placement{{Status: domain.Known, Seq: 2}, {Seq: 6}})
	quiet("secret-three", "kept-secret")
	rewrite(2, "")
	quiet("kept-secret")
	texts("", "sendMessage removed", "sendMessage kept-secret", "editMessage removed", "editMessage removed", "sendMessage another",
		"removeMessage ")
	for _, seq := range []domain.Seq{1, 4, 7, 99} {
		refused(t, "no message", w.Try(log, w.Rewrite(c.ID, seq, "x"))[0].Err, domain.MessageNotFound)
	}
	head := w.Head(c.ID)
	if head.Version != c.Version || head.LastSeq != 7 {
		t.Errorf("version %d, last number %d", head.Version, head.LastSeq)
	}
	w.Verify()
}
