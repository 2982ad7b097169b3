package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
)

// external is external content as the API shows it.
type external struct {
	ID            string `json:"id"`
	MimeType      string `json:"mimeType"`
	Size          int64  `json:"size"`
	SHA256        string `json:"sha256"`
	Received      int64  `json:"received"`
	Complete      bool   `json:"complete"`
	URL           string `json:"url"`
	URLExpires    int64  `json:"urlExpires"`
	UploadURL     string `json:"uploadUrl"`
	UploadExpires int64  `json:"uploadExpires"`
}

// partsOf gives the parts of the message of an event.
func partsOf(tb testing.TB, raw []byte) []part {
	tb.Helper()
	var ev struct {
		Message struct{ Parts []part }
	}
	if err := json.Unmarshal(raw, &ev); err != nil {
		tb.Fatal(err)
	}
	return ev.Message.Parts
}

// random gives bytes that nothing compresses or repeats.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// announce announces an upload.
func announce(tb testing.TB, a api, mimeType string, size int, more ...string) external {
	tb.Helper()
	body := map[string]any{"mimeType": mimeType, "size": size}
	for i := 0; i < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	res := a.ok(tb, "POST", "/v1/content", body)
	if res.status != http.StatusCreated {
		tb.Fatalf("POST /v1/content: %d", res.status)
	}
	return contentIn(tb, res)
}

func contentIn(tb testing.TB, r response) external {
	tb.Helper()
	var answer struct{ Content external }
	r.into(tb, &answer)
	return answer.Content
}

// transfer makes a request with a signed URL, as programs do that know nothing of Parley.
func transfer(ctx context.Context, method, where string, body io.Reader, header ...string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, where, body)
	if err != nil {
		return response{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, answer}, err
}

func mustTransfer(tb testing.TB, method, where string, body io.Reader, header ...string) response {
	tb.Helper()
	res, err := transfer(tb.Context(), method, where, body, header...)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, where, err)
	}
	return res
}

// put uploads a whole content.
func put(tb testing.TB, x external, data []byte) external {
	tb.Helper()
	res := mustTransfer(tb, "PUT", x.UploadURL, bytes.NewReader(data), "Content-Type", x.MimeType)
	if res.status != http.StatusOK {
		tb.Fatalf("PUT: %d %s", res.status, res.body)
	}
	return contentIn(tb, res)
}

// uploaded announces and uploads.
func uploaded(tb testing.TB, a api, mimeType string, data []byte) external {
	tb.Helper()
	return put(tb, announce(tb, a, mimeType, len(data)), data)
}

// fetched downloads and compares.
func fetched(tb testing.TB, where string, want []byte) response {
	tb.Helper()
	res := mustTransfer(tb, "GET", where, nil)
	if res.status != http.StatusOK || !bytes.Equal(res.body, want) {
		tb.Fatalf("GET %s: %d, %d bytes, want %d", where, res.status, len(res.body), len(want))
	}
	return res
}

// isGone checks that a signed URL leads to nothing any more.
func isGone(tb testing.TB, where string) {
	tb.Helper()
	if res := mustTransfer(tb, "GET", where, nil); res.status != http.StatusNotFound {
		tb.Errorf("GET: %d %s, want 404", res.status, clipped(res.body))
	}
}

func clipped(b []byte) string { return string(b[:min(len(b), 300)]) }

func refusalIn(tb testing.TB, r response) refusal {
	tb.Helper()
	var p refusal
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		tb.Fatalf("%d with %s is no problem: %s", r.status, got, clipped(r.body))
	}
	r.into(tb, &p)
	return p
}

// keeping starts a gateway that keeps content in a directory.
func keeping(t *testing.T, s store, changes ...func(*configs.Config)) (w *world, dir string) {
	t.Helper()
	dir = t.TempDir()
	g := start(t, s.empty(t), append([]func(*configs.Config){func(c *configs.Config) {
		c.Content.URL, c.Content.Cleanup = "file://"+filepath.ToSlash(dir), 20*time.Millisecond
	}}, changes...)...)
	return newWorld(t, g), dir
}

// files counts the files below a directory.
func files(tb testing.TB, dir string) int {
	tb.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return n
}

func TestUploadedContentIsNamedByPartsAndReadByURL(t *testing.T) {
	// What is too large for a message is uploaded once, named by a part, and read by everybody who may read the message: in
	// the shape of section 4, without any further login.
	onBothStores(t, func(t *testing.T, s store) {
		w, _ := keeping(t, s)
		users := w.users(t, "ann", "ben", "eve")
		c := w.conversation(t, users[:2]...)
		ann, ben := w.as(t, users[0]), w.as(t, users[1])
		data := random(300_000)
		x := announce(t, ann, "video/mp4", len(data))
		if x.UploadURL == "" || x.URL != "" || x.Complete || x.Size != int64(len(data)) || x.UploadExpires < time.Now().UnixMilli() {
			t.Fatalf("announced: %+v", x)
		}
		done := put(t, x, data)
		sum := sha256.Sum256(data)
		if !done.Complete || done.URL == "" || done.UploadURL != "" || done.SHA256 != hex.EncodeToString(sum[:]) {
			t.Fatalf("uploaded: %+v", done)
		}

		for i, named := range []map[string]any{
			{"mimeType": "video/mp4", "content": x.ID},
			{"mimeType": "video/mp4", "content": x.ID, "size": len(data)},
			{"mimeType": "Video/MP4; codecs=h264", "url": done.URL, "size": len(data)},
			{"mimeType": "video/mp4", "content": x.ID, "url": done.URL, "urlExpires": done.URLExpires},
		} {
			for _, version := range []byte{4, 5} {
				sender, reader := w.online(t, users[0], version), w.online(t, users[1], version)
				sender.say(t, c, map[string]any{"parts": []any{
					map[string]any{"mimeType": "text/plain", "body": "look"}, named, map[string]any{"mimeType": "image/png", "url": "https://elsewhere.example/x.png", "size": 7},
				}})
				for _, d := range []*device{sender, reader} {
					parts := partsOf(t, d.hear(t, c).raw)
					if len(parts) != 3 || parts[0].Body != "look" || parts[2].URL != "https://elsewhere.example/x.png" || parts[2].Size != 7 {
						t.Fatalf("case %d: parts %+v", i, parts)
					}
					p := parts[1]
					if p.MimeType != named["mimeType"] || p.Size != int64(len(data)) || p.Content != x.ID || !strings.HasPrefix(p.URL, "http://"+w.addrs.HTTP+"/") {
						t.Fatalf("case %d: part %+v", i, p)
					}
					fetched(t, p.URL, data)
				}
				sender.leave()
				reader.leave()
			}
		}

		// History and unread carry URLs as well; GET gives a fresh one, to those who may have it.
		var page struct{ Events []json.RawMessage }
		ben.ok(t, "GET", "/v1/conversations/"+c+"/events?from=2&count=1", nil).into(t, &page)
		fetched(t, partsOf(t, page.Events[0])[1].URL, data)
		var unread struct {
			Unread []struct{ LastMessage struct{ Parts []part } }
		}
		ben.ok(t, "GET", "/v1/unread", nil).into(t, &unread)
		fetched(t, unread.Unread[0].LastMessage.Parts[1].URL, data)
		fetched(t, contentIn(t, ben.ok(t, "GET", "/v1/content/"+x.ID, nil)).URL, data)
		fetched(t, contentIn(t, w.service.ok(t, "GET", "/v1/content/"+x.ID, nil)).URL, data)
		d := w.online(t, users[1], 5)
		var answer struct{ Content external }
		d.command(t, "getContent", map[string]any{"content": x.ID}).into(t, &answer)
		fetched(t, answer.Content.URL, data)
		if p := w.as(t, users[2]).refused(t, "GET", "/v1/content/"+x.ID, nil); p.Code != "not-found" || p.Status != 404 {
			t.Errorf("somebody who takes no part: %+v", p)
		}
		if p := newWorld(t, w.gateway).service.refused(t, "GET", "/v1/content/"+x.ID, nil); p.Code != "not-found" {
			t.Errorf("a service of another account: %+v", p)
		}

		// Ranges, HEAD, and headers that keep browsers from taking it for something else.
		res := mustTransfer(t, "GET", done.URL, nil, "Range", "bytes=1000-1999")
		if res.status != http.StatusPartialContent || !bytes.Equal(res.body, data[1000:2000]) || res.header.Get("Content-Range") != fmt.Sprintf("bytes 1000-1999/%d", len(data)) {
			t.Errorf("a range: %d %v, %d bytes", res.status, res.header, len(res.body))
		}
		if res := mustTransfer(t, "GET", done.URL, nil, "Range", "bytes=-5"); res.status != http.StatusPartialContent || !bytes.Equal(res.body, data[len(data)-5:]) {
			t.Errorf("the end: %d", res.status)
		}
		many := "bytes=0-0" + strings.Repeat(",0-0", 8)
		if res := mustTransfer(t, "GET", done.URL, nil, "Range", many); res.status != http.StatusOK || !bytes.Equal(res.body, data) {
			t.Errorf("nine ranges: status %d, %d bytes", res.status, len(res.body))
		}
		res = mustTransfer(t, "GET", done.URL, nil, "Range", "bytes=400000-")
		if p := refusalIn(t, res); p.Status != http.StatusRequestedRangeNotSatisfiable || res.header.Get("Content-Range") != "bytes */300000" {
			t.Errorf("a range beyond: %+v %v", p, res.header)
		}
		etag := mustTransfer(t, "HEAD", done.URL, nil).header.Get("Etag")
		if res := mustTransfer(t, "GET", done.URL, nil, "If-None-Match", etag); res.status != http.StatusNotModified || etag == "" {
			t.Errorf("the same again: %d, %s", res.status, etag)
		}
		if p := refusalIn(t, mustTransfer(t, "GET", done.URL, nil, "If-Match", `"another"`)); p.Status != http.StatusPreconditionFailed {
			t.Errorf("another content: %+v", p)
		}
		res = mustTransfer(t, "HEAD", done.URL, nil)
		for name, want := range map[string]string{
			"Content-Length": strconv.Itoa(len(data)), "Content-Type": "video/mp4", "X-Content-Type-Options": "nosniff",
			"Content-Disposition": "inline", "Accept-Ranges": "bytes",
		} {
			if got := res.header.Get(name); got != want {
				t.Errorf("HEAD: %s is %q, want %q", name, got, want)
			}
		}
		for _, active := range []string{"text/html", "image/svg+xml", "application/javascript"} {
			y := uploaded(t, ann, active, []byte("<script>alert(1)</script>"))
			res := fetched(t, y.URL, []byte("<script>alert(1)</script>"))
			if res.header.Get("Content-Disposition") != "attachment" || res.header.Get("Content-Type") != active {
				t.Errorf("%s: %v", active, res.header)
			}
		}
	})
}

func TestSignedURLsAreGoodForOneThingAndSomeTime(t *testing.T) {
	// A URL that leaks is good for what it says, and not for ever.
	onBothStores(t, func(t *testing.T, s store) {
		w, _ := keeping(t, s, func(c *configs.Config) { c.Content.URLTTL = 8 * time.Second })
		users := w.users(t, "ann", "ben")
		ann := w.as(t, users[0])
		data := random(100)
		x := announce(t, ann, "a/b", len(data))
		done := put(t, x, data)
		y := uploaded(t, ann, "a/b", data)
		for name, where := range map[string]string{
			"an upload's URL for reading": strings.Replace(x.UploadURL, "?", "?", 1),
			"another content":             strings.Replace(done.URL, x.ID, y.ID, 1),
			"a later end":                 strings.Replace(done.URL, strconv.FormatInt(done.URLExpires, 10), strconv.FormatInt(done.URLExpires+1, 10), 1),
			"no signature":                done.URL[:strings.Index(done.URL, "&signature")],
			"another signature":           done.URL + "x",
		} {
			res := mustTransfer(t, "GET", where, nil)
			if name == "an upload's URL for reading" {
				if bytes.Equal(res.body, data) {
					t.Errorf("%s gives the content", name)
				}
				continue
			}
			if p := refusalIn(t, res); p.Status != 403 {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if p := refusalIn(t, mustTransfer(t, "PUT", done.URL, bytes.NewReader(data))); p.Status != 403 {
			t.Errorf("a download's URL for writing: %+v", p)
		}
		if res := mustTransfer(t, "DELETE", done.URL, nil); res.status != http.StatusMethodNotAllowed {
			t.Errorf("DELETE: %d", res.status)
		}

		// Events that are kept in memory are shown with URLs that are still good.
		c := w.conversation(t, users...)
		reader := w.online(t, users[1], 5)
		w.online(t, users[0], 5).say(t, c, map[string]any{"parts": []any{map[string]any{"mimeType": "a/b", "content": x.ID}}})
		first := partsOf(t, reader.hear(t, c).raw)[0].URL
		eventually(t, "the URL ends", func() error {
			res, err := transfer(t.Context(), "GET", first, nil)
			if err == nil && res.status != http.StatusForbidden {
				err = fmt.Errorf("%d", res.status)
			}
			return err
		})
		fetched(t, contentIn(t, w.as(t, users[1]).ok(t, "GET", "/v1/content/"+x.ID, nil)).URL, data)
		fetched(t, partsOf(t, mustJSON(t, w.log(t, c)[1]))[0].URL, data)
	})
}

func TestContentOfOthersIsNotThere(t *testing.T) {
	// Who learns an id has no right by it: only what one may read can be passed on.
	onBothStores(t, func(t *testing.T, s store) {
		w, _ := keeping(t, s)
		users := w.users(t, "ann", "ben", "eve")
		data := random(64)
		x := uploaded(t, w.as(t, users[0]), "a/b", data)
		named := map[string]any{"parts": []any{map[string]any{"mimeType": "a/b", "content": x.ID}}}
		private := w.conversation(t, users[0], users[1])
		others := w.conversation(t, users[1], users[2])
		eve, ben := w.as(t, users[2]), w.as(t, users[1])
		for _, a := range []api{eve, ben, newWorld(t, w.gateway).service} {
			if p := a.refused(t, "GET", "/v1/content/"+x.ID, nil); p.Code != "not-found" {
				t.Errorf("GET by somebody else: %+v", p)
			}
		}
		if p := ben.refused(t, "POST", "/v1/conversations/"+others+"/messages", named); p.Code != "not-found" {
			t.Errorf("named by somebody else: %+v", p)
		}
		by := map[string]any{"parts": []any{map[string]any{"mimeType": "a/b", "url": x.URL}}}
		if p := ben.refused(t, "POST", "/v1/conversations/"+others+"/messages", by); p.Code != "not-found" {
			t.Errorf("named by its URL by somebody else: %+v", p)
		}
		// Passing on what one has got is fine, and then others may as well.
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+private+"/messages", named)
		if p := eve.refused(t, "GET", "/v1/content/"+x.ID, nil); p.Code != "not-found" {
			t.Errorf("GET by who takes no part: %+v", p)
		}
		ben.ok(t, "POST", "/v1/conversations/"+others+"/messages", named)
		fetched(t, contentIn(t, eve.ok(t, "GET", "/v1/content/"+x.ID, nil)).URL, data)
		// Who has left keeps what was said before, and no more; in an uber conversation only what was said in its presence.
		for _, uber := range []bool{false, true} {
			ann := w.as(t, users[0])
			c := w.conversationWith(t, map[string]any{"uber": uber}, users[0], users[2])
			share := func() string {
				t.Helper()
				y := uploaded(t, ann, "a/b", data)
				ann.ok(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{"parts": []any{map[string]any{"mimeType": "a/b", "content": y.ID}}})
				return y.ID
			}
			before := share()
			ann.ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(users[1])})
			during := share()
			ann.ok(t, "DELETE", "/v1/conversations/"+c+"/participants?username="+users[1].Name, nil)
			after := share()
			for id, may := range map[string]bool{before: !uber, during: true, after: false} {
				if res := ben.any(t, "GET", "/v1/content/"+id, nil); (res.status == http.StatusOK) != may {
					t.Errorf("uber: %t, content from before %t, during %t: %d", uber, id == before, id == during, res.status)
				}
			}
			// Without the permission to read there is nothing to be had.
			ann.ok(t, "PATCH", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []any{
				map[string]any{"username": users[2].Name, "permissions": map[string]any{"canRead": false}},
			}})
			eve.refused(t, "GET", "/v1/content/"+during, nil)
		}
	})
}

func TestRemovedMessagesTakeTheirContentAlong(t *testing.T) {
	// A message that was removed has no content anywhere: not behind an old URL either, nor on disk.
	onBothStores(t, func(t *testing.T, s store) {
		w, dir := keeping(t, s)
		users := w.users(t, "ann", "ben")
		ann := w.as(t, users[0])
		c := w.conversation(t, users...)
		send := func(ids ...string) string {
			t.Helper()
			parts := []any{}
			for _, id := range ids {
				parts = append(parts, map[string]any{"mimeType": "a/b", "content": id})
			}
			var made struct{ Message struct{ UUID string } }
			ann.ok(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{"text": "x", "parts": parts}).into(t, &made)
			return made.Message.UUID
		}
		data := random(100)
		x, y, z := uploaded(t, ann, "a/b", data), uploaded(t, ann, "a/b", data), uploaded(t, ann, "a/b", data)
		first, second := send(x.ID, y.ID), send(y.ID)
		remove := func(uuid string) { ann.ok(t, "DELETE", "/v1/conversations/"+c+"/messages/"+uuid, nil) }
		onDisk := func(n int) {
			t.Helper()
			eventually(t, "the files", func() error {
				if got := files(t, dir); got != n {
					return fmt.Errorf("%d files, want %d", got, n)
				}
				return nil
			})
		}
		onDisk(3)
		remove(first)
		isGone(t, x.URL)
		fetched(t, y.URL, data) // another message has it
		if p := ann.refused(t, "GET", "/v1/content/"+x.ID, nil); p.Code != "not-found" {
			t.Errorf("of a removed message: %+v", p)
		}
		onDisk(2)
		// An edit that takes a part out takes its content out.
		ann.ok(t, "PATCH", "/v1/conversations/"+c+"/messages/"+second, map[string]any{
			"parts": []any{map[string]any{"mimeType": "a/b", "content": z.ID}, map[string]any{"mimeType": "text/plain", "body": "x"}},
		})
		isGone(t, y.URL)
		fetched(t, z.URL, data)
		onDisk(1)
		parts := partsOf(t, mustJSON(t, w.log(t, c)[2]))
		if len(parts) != 2 || parts[0].Content != z.ID {
			t.Fatalf("edited: %+v", parts)
		}
		fetched(t, parts[0].URL, data)
		if p := ann.refused(t, "PATCH", "/v1/conversations/"+c+"/messages/"+second, map[string]any{
			"parts": []any{map[string]any{"mimeType": "a/b", "content": x.ID}},
		}); p.Code != "not-found" {
			t.Errorf("edited to what is gone: %+v", p)
		}
		remove(second)
		isGone(t, z.URL)
		onDisk(0)
	})
}

func TestContentThatNobodyNamesIsRemoved(t *testing.T) {
	// Uploads that came to nothing must not fill the disk: neither complete ones, nor those that were given up.
	onBothStores(t, func(t *testing.T, s store) {
		w, dir := keeping(t, s, func(c *configs.Config) { c.Content.UnusedTTL = 6 * time.Second })
		users := w.users(t, "ann", "ben")
		ann := w.as(t, users[0])
		c := w.conversation(t, users...)
		data := random(1000)
		kept := uploaded(t, ann, "a/b", data)
		ann.ok(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{"id": "m1", "parts": []any{map[string]any{"mimeType": "a/b", "content": kept.ID}}})
		lost := uploaded(t, ann, "a/b", data)
		cut := announce(t, ann, "a/b", len(data))
		cutUpload(t, cut.UploadURL, len(data), data[:500])
		eventually(t, "what nobody names is removed", func() error {
			for _, where := range []string{lost.URL, cut.UploadURL} {
				if res, err := transfer(t.Context(), "HEAD", where, nil); err != nil || res.status != http.StatusNotFound {
					return fmt.Errorf("%d, %w", res.status, err)
				}
			}
			if n := files(t, dir); n != 1 {
				return fmt.Errorf("%d files", n)
			}
			return nil
		})
		fetched(t, kept.URL, data)
		// The same message again is the same message, whatever became of what it named meanwhile.
		w.service.ok(t, "GET", "/v1/content/"+kept.ID, nil)
		res := ann.any(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{"id": "m1", "parts": []any{map[string]any{"mimeType": "a/b", "content": lost.ID}}})
		if res.status != http.StatusOK {
			t.Errorf("a repeated message: %d %s", res.status, res.body)
		}
	})
}
