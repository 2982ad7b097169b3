package content_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/parley-im/parley/content"
)

const (
	accessKey = "AKIATEST"
	secretKey = "the secret of the tests"
	bucket    = "parley"
)

// s3Server is a store that speaks S3, with one bucket. It refuses requests that are not signed with the keys.
func s3Server(tb testing.TB) string {
	tb.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		tb.Fatal(err)
	}
	store := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isSigned(r) {
			http.Error(w, "<Error><Code>SignatureDoesNotMatch</Code></Error>", http.StatusForbidden)
			return
		}
		store.ServeHTTP(w, r)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// isSigned checks a signature of AWS Signature Version 4, in a header.
func isSigned(r *http.Request) bool {
	fields := make(map[string]string)
	list, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	for f := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if !ok || len(scope) != 5 || scope[0] != accessKey {
		return false
	}
	var canonical strings.Builder
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	canonical.WriteString(r.Method + "\n" + r.URL.EscapedPath() + "\n" + query + "\n")
	for name := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = ""
		}
		canonical.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	canonical.WriteString("\n" + fields["SignedHeaders"] + "\n" + r.Header.Get("X-Amz-Content-Sha256"))
	sum := sha256.Sum256([]byte(canonical.String()))
	key := []byte("AWS4" + secretKey)
	for _, part := range append(slices.Clone(scope[1:]), "AWS4-HMAC-SHA256\n"+r.Header.Get("X-Amz-Date")+"\n"+strings.Join(scope[1:], "/")+"\n"+hex.EncodeToString(sum[:])) {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return hex.EncodeToString(key) == fields["Signature"]
}

func openS3(tb testing.TB, server, secret string) (*content.S3, error) {
	tb.Helper()
	return content.OpenS3(tb.Context(), content.S3Options{
		URL:       "s3://" + bucket + "/some/prefix?region=eu-1&endpoint=" + url.QueryEscape(server),
		AccessKey: accessKey, SecretKey: secret,
	})
}

// kinds are the ways to keep pieces.
func kinds(t *testing.T) map[string]content.Blobs {
	t.Helper()
	dir := content.NewDir(filepath.Join(t.TempDir(), "not", "there", "yet"))
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	s3, err := openS3(t, s3Server(t), secretKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]content.Blobs{"directory": dir, "s3": s3}
}

func read(ctx context.Context, b content.Blobs, key string, offset, size int64) ([]byte, error) {
	r, err := b.Open(ctx, key, offset, size)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

func TestPiecesReadAsTheyWereWritten(t *testing.T) {
	// Everything above relies on it: a piece is there whole once it is committed, and not at all before.
	for name, blobs := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			data := make([]byte, 6<<20)
			_, _ = rand.Read(data)
			key := strings.ToLower(rand.Text())
			w, err := blobs.Create(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			if _, err := read(ctx, blobs, key, 0, 1); err == nil {
				t.Error("a piece that is not committed can be read")
			}
			if err := w.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			for _, part := range [][2]int64{{0, int64(len(data))}, {0, 1}, {1, 70_000}, {int64(len(data)) - 1, 1}} {
				got, err := read(ctx, blobs, key, part[0], part[1])
				if err != nil || !bytes.Equal(got, data[part[0]:part[0]+part[1]]) {
					t.Errorf("%d bytes from %d: %d bytes, %v", part[1], part[0], len(got), err)
				}
			}
			for range 2 {
				if err := blobs.Remove(ctx, key); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := read(ctx, blobs, key, 0, 1); err == nil {
				t.Error("a piece that was removed can be read")
			}
			given := strings.ToLower(rand.Text())
			if w, err = blobs.Create(ctx, given); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data[:10]); err != nil {
				t.Fatal(err)
			}
			w.Abort()
			if _, err := read(ctx, blobs, given, 0, 1); err == nil {
				t.Error("a piece that was given up can be read")
			}
		})
	}
}

func TestNoKeyLeavesTheDirectory(t *testing.T) {
	// Keys are made here, never by clients. Should that ever change, the file system is not theirs all the same.
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "secret12"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := content.NewDir(filepath.Join(top, "content"))
	t.Cleanup(func() { _ = dir.Close() })
	for _, key := range []string{"../secret12", "..", "", "/etc/passwd", "aa/../../secret12", "AAAAAAAAAA", "aaaaaaaa\x00", "short"} {
		if _, err := dir.Open(t.Context(), key, 0, 1); err == nil {
			t.Errorf("%q can be opened", key)
		}
		if w, err := dir.Create(t.Context(), key); err == nil {
			w.Abort()
			t.Errorf("%q can be made", key)
		}
		if err := dir.Remove(t.Context(), key); err == nil {
			t.Errorf("%q can be removed", key)
		}
	}
	// Not even by a link that somebody put there.
	linked := "sslinked"
	if err := os.MkdirAll(filepath.Join(top, "content", "ss"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(top, "secret12"), filepath.Join(top, "content", "ss", linked)); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(t.Context(), linked, 0, 1); err == nil {
		t.Error("a link leads out of the directory")
	}
}

func TestWhatACrashLeftIsSweptAfterADay(t *testing.T) {
	// A file that was being written when the power went is nobody's: but one that is young may be another gateway's.
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "incoming"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"oldoldold": 25 * time.Hour, "youngyoung": time.Hour} {
		file := filepath.Join(top, "incoming", name)
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	dir := content.NewDir(top)
	t.Cleanup(func() { _ = dir.Close() })
	w, err := dir.Create(t.Context(), "newnewnew")
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	left, err := os.ReadDir(filepath.Join(top, "incoming"))
	if err != nil || len(left) != 1 || left[0].Name() != "youngyoung" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAnS3StoreThatCannotBeUsedIsNoticedAtTheStart(t *testing.T) {
	// An operator wants to hear of a wrong key at once, and not from the first user.
	server := s3Server(t)
	if _, err := openS3(t, server, "another secret"); err == nil {
		t.Error("another secret is fine")
	}
	for _, bad := range []string{"s3://", "file:///x", "s3://b?endpoint=http://h/with/path", "s3://missing?region=eu-1&endpoint=" + url.QueryEscape(server)} {
		if _, err := content.OpenS3(t.Context(), content.S3Options{URL: bad, AccessKey: accessKey, SecretKey: secretKey}); err == nil {
			t.Errorf("%s is fine", bad)
		}
	}
}
