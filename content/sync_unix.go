//go:build unix

package content

import "os"

// syncDir makes the entries of a directory durable.
func syncDir(f *os.File) error { return f.Sync() }
