package persistence

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock takes the exclusive lock of a file, and reports whether nobody else had it. Closing the file gives it back.
func tryLock(f *os.File) (bool, error) {
	// A byte far behind the end, so that others can still read who has the lock.
	region := windows.Overlapped{Offset: 1 << 30}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &region)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
