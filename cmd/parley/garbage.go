package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// spareMemory is how much garbage a small heap may gather, in bytes.
const spareMemory = 64 << 20

// collectSeldom has the garbage collector of a process with a small heap wait until there is spare garbage. By itself it
// waits until there is as much garbage as there is in use: with a few hundred sessions that is several times a second
// under load, and each time events wait for some milliseconds. A heap that is larger than spare is collected as ever. What
// the operator has set, GOGC or GOMEMLIMIT, holds instead.
func collectSeldom(spare uint64) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, set := os.LookupEnv(name); set {
			return
		}
	}
	p := &collections{spare: spare}
	p.pace()
	p.watch()
}

// collections paces the garbage collector.
type collections struct {
	spare   uint64
	percent int
}

// watch has pace called after every collection.
func (p *collections) watch() {
	type sentinel struct{ _ *int }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		p.pace()
		p.watch()
	})
}

// pace sets after how much growth the next collection comes, in percent of what is in use.
func (p *collections) pace() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := int(100 * p.spare / max(live[0].Value.Uint64(), 4<<20))
	// Setting it stops the world for a moment, so it is not done for little.
	if percent = max(percent, 100); percent != p.percent && (percent == 100 || abs(percent-p.percent) > percent/8) {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
}

func abs(n int) int { return max(n, -n) }
