package domain

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMembersOfMessagesAreThoseOfTheirTypes(t *testing.T) {
	// The list is written by hand, because messages are many; a field that is missing in it could never be sent.
	for _, v := range []any{&MessageOnTopic{}, &SendMessage{}} {
		var want members
		want.add(reflect.TypeOf(v).Elem())
		got := messageMembers()
		for _, name := range want.names {
			if !slices.Contains(got.names, name) {
				t.Errorf("%T: %s is missing", v, name)
			}
		}
		if _, command := v.(*SendMessage); command && len(got.names) != len(want.names) {
			t.Errorf("%d names, want %d", len(got.names), len(want.names))
		}
		slices.Sort(want.free)
		slices.Sort(got.free)
		if !slices.Equal(slices.Compact(want.free), got.free) {
			t.Errorf("%T: free are %v, want %v", v, got.free, want.free)
		}
	}
}

func TestNamesOfRequestsCanBeToldApart(t *testing.T) {
	// The speller relies on it: no two names of a request differ in letter case alone, none holds the application's JSON in
	// one place and ours in another, and there are few enough to be counted in a word.
	requests := []any{&UserRequest{}, &UserEdit{}}
	for _, name := range CommandNames() {
		c := NewCommand(name)
		if c == nil || c.Name() != name {
			t.Fatalf("%s makes %v", name, c)
		}
		requests = append(requests, c)
	}
	for _, v := range requests {
		m := membersOf(v)
		if len(m.names) > 64 {
			t.Errorf("%T has %d names", v, len(m.names))
		}
		for i, name := range m.names {
			if slices.ContainsFunc(m.names[:i], func(other string) bool { return strings.EqualFold(name, other) }) {
				t.Errorf("%T: %s has a double", v, name)
			}
		}
	}
	if NewCommand("") != nil || NewCommand("GetMe") != nil {
		t.Error("there are commands of no name")
	}
}

func TestKindsAreKnown(t *testing.T) {
	// The gateway takes one of a few ways with a command; one that takes none would never be answered.
	for _, name := range CommandNames() {
		if k := NewCommand(name).Kind(); k < Read || k > Willing {
			t.Errorf("%s is of kind %d", name, k)
		}
	}
}
