package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestStatusIsSetByBoolOrState(t *testing.T) {
	// Clients of one system know a bool, those of another the states.
	for _, tc := range []struct {
		payload string
		state   domain.State
		online  bool
		number  int
	}{
		{`{"online":true}`, domain.Available, true, 0},
		{`{"online":false}`, domain.Invisible, false, 0},
		{`{"state":"available"}`, domain.Available, true, 0},
		{`{"state":"away"}`, domain.Away, true, 0},
		{`{"state":"busy"}`, domain.Busy, true, 0},
		{`{"state":"invisible"}`, domain.Invisible, false, 0},
		{`{"state":"offline"}`, "", false, 1},
		{`{"state":""}`, "", false, 1},
		{`{"state":"Busy"}`, "", false, 1},
		{`{}`, "", false, 1},
		{`{"online":null}`, "", false, 1},
		{`{"online":true,"state":"busy"}`, "", false, 1},
		{`{"online":1}`, "", false, 1},
	} {
		req := domain.DecodePublish(user(alice), &domain.Publish{
			Topic: "commands/setStatus", Payload: []byte(tc.payload), Version: 4, QoS: 1,
		}, domain.DefaultLimits())
		if number(req.Err) != tc.number {
			t.Errorf("%s: %v, want number %d", tc.payload, req.Err, tc.number)
		}
		if req.Err != nil {
			continue
		}
		d, err := newStore().decide(t, user(alice), req.Command)
		want := &domain.Status{UserID: alice, State: tc.state, Online: tc.online, LastSeen: now}
		if diff := cmp.Diff(want, d.Status); err != nil || diff != "" || !cmp.Equal(want, d.Result.Status) {
			t.Errorf("%s: %v, (-want +got):\n%s", tc.payload, err, diff)
		}
	}
}
