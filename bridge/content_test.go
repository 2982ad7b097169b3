package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

// fakeContents keeps one content in memory; every URL is good whose signature is "good".
type fakeContents struct {
	x    domain.ExternalContent
	data []byte
}

const theContent = "0123456789abcdef0123456789abcdef"

func newContents(mimeType string, size int64) *fakeContents {
	return &fakeContents{x: domain.ExternalContent{ID: theContent, MimeType: mimeType, Size: size}}
}

func (f *fakeContents) Create(context.Context, domain.Principal, domain.ContentRequest) (domain.ExternalContent, error) {
	return f.x, nil
}

func (f *fakeContents) VerifyDownload(_ domain.ContentID, _, signature string) error {
	if signature != "good" {
		return domain.Errorf(domain.AccessDenied, "no")
	}
	return nil
}

func (f *fakeContents) VerifyUpload(id domain.ContentID, expires, signature string) error {
	return f.VerifyDownload(id, expires, signature)
}

func (f *fakeContents) State(context.Context, domain.ContentID) (domain.ExternalContent, error) {
	return f.x, nil
}

func (f *fakeContents) Receive(_ context.Context, _ domain.ContentID, _ domain.ContentPiece, body io.ReadCloser) (domain.ExternalContent, error) {
	var err error
	f.data, err = io.ReadAll(body)
	f.x.Received = int64(len(f.data))
	f.x.Complete = f.x.Received == f.x.Size
	return f.x, err
}

func (f *fakeContents) Reader(context.Context, domain.ContentID) (domain.ExternalContent, io.ReadSeekCloser, error) {
	return f.x, struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(f.data), io.NopCloser(nil)}, nil
}

const transferPath = "/v1/content/" + theContent + "/data?expires=1&signature=good"

func TestUploadsAreCutWhenTheyStandStillAndNotWhenTheyAreSlow(t *testing.T) {
	// A phone in a train sends a few bytes at a time, for minutes. A connection that sends nothing is one that was lost.
	const idle = 2 * time.Second // a busy machine is slow itself
	f := newContents("a/b", 40)
	w := newWorld(t, func(o *bridge.Options) { o.Contents, o.Idle = f, idle })
	server := httptest.NewUnstartedServer(w.handler)
	server.Config.ReadTimeout, server.Config.WriteTimeout = idle, idle // shorter than the upload takes
	server.Start()
	t.Cleanup(server.Close)
	put := func(send func(conn net.Conn)) string {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 40\r\n\r\n", transferPath)
		if err != nil {
			t.Fatal(err)
		}
		send(conn)
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	slowly := time.NewTicker(idle / 4)
	defer slowly.Stop()
	answer := put(func(conn net.Conn) {
		for range 8 {
			<-slowly.C
			if _, err := conn.Write([]byte("ababa")); err != nil {
				t.Fatal(err)
			}
		}
	})
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || string(f.data) != strings.Repeat("ababa", 8) {
		t.Errorf("slow, but steady: %s", answer)
	}
	answer = put(func(conn net.Conn) {
		if _, err := conn.Write([]byte("ab")); err != nil {
			t.Fatal(err)
		}
	})
	if !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "Upload-Offset: 2") {
		t.Errorf("standing still: %s", answer)
	}
}

func TestDownloadsAreWhatTheySayAndNothingMore(t *testing.T) {
	// What strangers uploaded must not act in a browser as if it were a page of ours.
	for mimeType, disposition := range map[string]string{
		"image/png": "inline", "IMAGE/JPEG": "inline", "video/mp4; codecs=x": "inline", "audio/ogg": "inline", "text/plain": "inline",
		"text/html": "attachment", "image/svg+xml": "attachment", "application/pdf": "attachment", "application/xhtml+xml": "attachment",
		"image/png;a=b,text/html": "attachment", "image/png; a, text/html": "attachment", "image/png;": "inline",
		"text/javascript": "attachment", "text/html; x=image/png": "attachment", "multipart/x-mixed-replace": "attachment",
	} {
		f := newContents(mimeType, 6)
		f.data, f.x.Complete, f.x.SHA256 = []byte("<html>"), true, "abc"
		w := newWorld(t, func(o *bridge.Options) { o.Contents = f })
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", transferPath, nil))
		h := rec.Header()
		if rec.Code != http.StatusOK || rec.Body.String() != "<html>" {
			t.Errorf("%s: %d %s", mimeType, rec.Code, rec.Body)
		}
		for name, want := range map[string]string{
			"Content-Type": mimeType, "Content-Disposition": disposition, "X-Content-Type-Options": "nosniff", "Etag": `"abc"`,
			"Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", mimeType, name, got, want)
			}
		}
	}
}

func TestSignedURLsWithoutASignatureSayNothing(t *testing.T) {
	// Nor do paths that are none: nothing that a client writes into a URL gets any further.
	w := newWorld(t, func(o *bridge.Options) { o.Contents = newContents("a/b", 1) })
	for path, status := range map[string]int{
		"/v1/content/" + theContent + "/data":                                   403,
		"/v1/content/" + theContent + "/data?expires=1&signature=bad":           403,
		transferPath + "&x=1":                                                   400,
		transferPath + "&expires=2":                                             400,
		"/v1/content/..%2f..%2fetc%2fpasswd/data?expires=1&signature=good":      404,
		"/v1/content/0123456789ABCDEF0123456789ABCDEF/data?signature=good":      404,
		"/v1/content/" + theContent + "x/data?expires=1&signature=good":         404,
		"/v1/content/" + theContent + "/data/..?expires=1&signature=good":       404,
		"/v1/content/" + theContent + "/data%00?expires=1&signature=good":       404,
		"/v1/content/" + theContent + "/data?expires=1&signature=good;y=%zz":    400,
		"/v1/content/%2e%2e/data?expires=1&signature=good":                      404,
		"/v1/content/" + theContent + "%2f..%2fx/data?expires=1&signature=good": 404,
	} {
		for _, method := range []string{"GET", "PUT"} {
			rec := httptest.NewRecorder()
			w.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader("x")))
			if rec.Code != status || rec.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s: %d %s", method, path, rec.Code, rec.Body)
			}
		}
	}
}
