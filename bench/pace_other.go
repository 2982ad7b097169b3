//go:build !linux

package bench

import "time"

// pacer waits for instants.
type pacer struct{}

func newPacer() pacer { return pacer{} }

func (pacer) until(t time.Time) { <-time.After(time.Until(t)) }

func (pacer) stop() {}

// syncDisks does nothing where there is no such call.
func syncDisks() {}
