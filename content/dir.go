package content

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// Dir keeps pieces as files of a directory. Several gateways may share one on a network file system.
type Dir struct {
	path string

	mu sync.Mutex
	// opened is the directory once it is used. No path leaves it, whatever a key is.
	opened *os.Root
}

// incoming is where pieces are written; what a crash leaves there is removed after some time.
const (
	incoming      = "incoming"
	incomingStays = 24 * time.Hour
)

// NewDir gives a directory, which is made when it is first used. What crashes left in it a day ago or earlier is removed
// then. The caller closes it.
func NewDir(path string) *Dir { return &Dir{path: path} }

func (d *Dir) root() (*os.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened != nil {
		return d.opened, nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, err
	}
	if err := sweep(root, time.Now().Add(-incomingStays)); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d.opened = root
	return root, nil
}

// sweep removes files that were being written before a time.
func sweep(root *os.Root, before time.Time) error {
	if err := root.Mkdir(incoming, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	list, err := fs.ReadDir(root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, e := range list {
		// Another gateway may be faster.
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			if err := root.Remove(path.Join(incoming, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Close gives the directory up.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		return nil
	}
	return d.opened.Close()
}

// place gives the directory, and the folder of it where a piece is: some file systems are slow with many files in one.
func (d *Dir) place(key string) (root *os.Root, folder string, err error) {
	if len(key) < 8 || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return nil, "", errors.New("content: a key that was not made here")
	}
	root, err = d.root()
	return root, key[:2], err
}

// Create implements [Blobs].
func (d *Dir) Create(_ context.Context, key string) (Writer, error) {
	root, _, err := d.place(key)
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(path.Join(incoming, key), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &dirWriter{File: f, dir: d, key: key}, nil
}

// dirWriter writes a file that gets its place when it is whole.
type dirWriter struct {
	*os.File
	dir *Dir
	key string
}

// Commit implements [Writer].
func (w *dirWriter) Commit(context.Context) error {
	err := errors.Join(w.Sync(), w.File.Close())
	if err == nil {
		err = w.dir.keep(w.key)
	}
	if err != nil {
		w.remove()
	}
	return err
}

// Abort implements [Writer].
func (w *dirWriter) Abort() {
	_ = w.File.Close() // it is not wanted any more
	w.remove()
}

// remove removes a file that did not get its place. If that fails a later start does it.
func (w *dirWriter) remove() {
	if root, err := w.dir.root(); err == nil {
		_ = root.Remove(path.Join(incoming, w.key))
	}
}

// keep moves a piece to where it stays, so that a crash cannot undo it.
func (d *Dir) keep(key string) error {
	root, in, err := d.place(key)
	if err != nil {
		return err
	}
	switch err := root.Mkdir(in, 0o700); {
	case err == nil:
		if err := syncFolder(root, "."); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := root.Rename(path.Join(incoming, key), path.Join(in, key)); err != nil {
		return err
	}
	return syncFolder(root, in)
}

func syncFolder(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(f), f.Close())
}

// Open implements [Blobs].
func (d *Dir) Open(_ context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	root, in, err := d.place(key)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(path.Join(in, key))
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, size), f}, nil
}

// Remove implements [Blobs].
func (d *Dir) Remove(_ context.Context, key string) error {
	root, in, err := d.place(key)
	if err != nil {
		return err
	}
	if err := root.Remove(path.Join(in, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
