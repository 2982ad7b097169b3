package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// growth tells after how much growth of the heap the collector runs, in percent.
func growth() int {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return percent
}

func TestWhatTheOperatorSaysOfTheCollectorHolds(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	t.Setenv("GOMEMLIMIT", "1GiB")
	collectSeldom(spareMemory)
	runtime.GC()
	if percent := growth(); percent != 123 {
		t.Errorf("the collector runs after a growth of %d %%, want 123", percent)
	}
}

func TestTheCollectorWaitsWhileTheHeapIsSmall(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "") // puts it back afterwards
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	before := growth()
	defer debug.SetGCPercent(before)
	collectSeldom(spareMemory)
	await := func(what string, ok func(percent int) bool) {
		t.Helper()
		for range 1000 {
			if ok(growth()) {
				return
			}
			runtime.GC() // then it is adjusted, in its own time
		}
		t.Errorf("with %s it runs after a growth of %d %%", what, growth())
	}
	seldom := func(percent int) bool { return percent >= 200 }
	await("a small heap", seldom)
	held := make([]byte, 2*spareMemory)
	await("a large heap", func(percent int) bool { return percent == 100 })
	runtime.KeepAlive(held)
	held = nil
	_ = held
	await("a small heap again", seldom)
}
