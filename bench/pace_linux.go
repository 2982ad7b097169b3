package bench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pacer waits for instants more exactly than the runtime's timers, which are good to about a millisecond in a quiet
// process: too coarse for latencies below one.
type pacer struct{}

// newPacer keeps the calling goroutine on a thread of its own until stop.
func newPacer() pacer {
	runtime.LockOSThread()
	return pacer{}
}

func (pacer) until(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // interrupted early: the loop sleeps again
	}
}

func (pacer) stop() { runtime.UnlockOSThread() }

// syncDisks waits until everything that was written on the machine is on its disks.
func syncDisks() { unix.Sync() }
