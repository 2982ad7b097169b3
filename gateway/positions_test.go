package gateway_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/gateway"
)

func TestAPositionCountsAsWrittenByWhoWroteIt(t *testing.T) {
	// The flush of a second hangs in the store. Meanwhile more is acknowledged, the device goes, and its last flush fails. When
	// the first one succeeds after all, what only the last one had is still to be written.
	synctest.Test(t, func(t *testing.T) {
		var kept *ledger
		w := newWorld(t, func(o *gateway.Options) {
			kept = newLedger(o.History.(*memory))
			o.Sessions = kept
		})
		id := w.converse(1, 2)
		phone := w.subscriber(2, durable(3600))
		hung := newGate()
		kept.set(hung.wait, nil)
		w.do(1, message(id, "first", "")) // 2
		w.pass(1500 * time.Millisecond)
		<-hung.arrived
		w.do(1, message(id, "second", ""))
		w.settle()
		phone.wantSeqs(id, span(2, 3))
		kept.set(broken, nil)
		phone.hangUp()
		w.settle()
		hung.open()
		w.settle()
		if got := kept.position(2, "phone", id); got != 2 {
			t.Errorf("the first flush wrote %d, want 2", got)
		}
		kept.set(nil, nil)
		w.pass(5 * time.Second)
		if got := kept.position(2, "phone", id); got != 3 {
			t.Errorf("the device is known to be at %d, want 3", got)
		}
	})
}

// broken is a store that is away.
func broken(context.Context) error { return errGone() }
