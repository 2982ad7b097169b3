//go:build !linux

package pgtest

import "syscall"

// dieWithParent does nothing where the system has no such thing: a killed test process leaves its server running.
func dieWithParent(*syscall.SysProcAttr) {}
