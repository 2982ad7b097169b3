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
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// cutUpload begins an upload of size bytes, sends n of them and cuts the connection.
func cutUpload(tb testing.TB, where string, size int, data []byte, header ...string) {
	tb.Helper()
	u, err := url.Parse(where)
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", u.Host)
	if err != nil {
		tb.Fatal(err)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", u.RequestURI(), u.Host, size)
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&head, "%s: %s\r\n", header[i], header[i+1])
	}
	if _, err := conn.Write(append([]byte(head.String()+"\r\n"), data...)); err != nil {
		tb.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		tb.Fatal(err)
	}
}

// offset asks how far an upload has come.
func offset(ctx context.Context, x external) (int64, error) {
	res, err := transfer(ctx, "HEAD", x.UploadURL, nil)
	if err != nil {
		return 0, err
	}
	if res.status != http.StatusOK || res.header.Get("Upload-Length") != strconv.FormatInt(x.Size, 10) {
		return 0, fmt.Errorf("HEAD: %d %v", res.status, res.header)
	}
	return strconv.ParseInt(res.header.Get("Upload-Offset"), 10, 64)
}

func TestUploadsGoOnWhereTheyWereCut(t *testing.T) {
	// Phones lose their connection. What has arrived is not sent again, by whatever way of resuming a client knows.
	onBothStores(t, func(t *testing.T, s store) {
		w, dir := keeping(t, s)
		ann := w.as(t, w.user(t, "ann"))
		data := random(20 << 20)
		sum := sha256.Sum256(data)
		x := announce(t, ann, "application/zip", len(data), "sha256", hex.EncodeToString(sum[:]))
		came := func(at int64) {
			t.Helper()
			eventually(t, "what came is kept", func() error {
				n, err := offset(t.Context(), x)
				if err == nil && n != at {
					err = fmt.Errorf("the upload has come to %d, want %d", n, at)
				}
				return err
			})
		}
		// More than a piece, and some.
		cutUpload(t, x.UploadURL, len(data), data[:9<<20])
		came(9 << 20)
		// The owner can ask again for all that it needs.
		again := contentIn(t, ann.ok(t, "GET", "/v1/content/"+x.ID, nil))
		if again.Received != 9<<20 || again.Complete || again.UploadURL == "" {
			t.Errorf("asked for again: %+v", again)
		}
		x.UploadURL = again.UploadURL
		// From the wrong place: nothing happens, and the right place is told.
		for _, at := range []int64{0, 5, 9<<20 + 1} {
			res := mustTransfer(t, "PUT", fmt.Sprintf("%s&offset=%d", x.UploadURL, at), bytes.NewReader(data[at:at+100]))
			if p := refusalIn(t, res); p.Status != 409 || res.header.Get("Upload-Offset") != strconv.Itoa(9<<20) {
				t.Errorf("from %d: %+v %v", at, p, res.header)
			}
		}
		cutUpload(t, x.UploadURL+"&offset="+strconv.Itoa(9<<20), len(data)-9<<20, data[9<<20:12<<20])
		came(12 << 20)
		res := mustTransfer(t, "PUT", x.UploadURL, bytes.NewReader(data[12<<20:15<<20]), "Content-Range",
			fmt.Sprintf("bytes %d-%d/%d", 12<<20, 15<<20-1, len(data)))
		if res.status != http.StatusAccepted || contentIn(t, res).Received != 15<<20 {
			t.Fatalf("a chunk: %d %s", res.status, clipped(res.body))
		}
		res = mustTransfer(t, "PUT", x.UploadURL, bytes.NewReader(data[15<<20:]), "Content-Range",
			fmt.Sprintf("bytes %d-%d/*", 15<<20, len(data)-1))
		done := contentIn(t, res)
		if res.status != http.StatusOK || !done.Complete {
			t.Fatalf("the rest: %d %s", res.status, clipped(res.body))
		}
		fetched(t, done.URL, data)
		if res := mustTransfer(t, "GET", done.URL, nil, "Range", fmt.Sprintf("bytes=%d-%d", 8<<20-10, 12<<20+10)); !bytes.Equal(res.body, data[8<<20-10:12<<20+11]) {
			t.Error("a range across pieces differs")
		}
		// Said again: it is there.
		if res := mustTransfer(t, "PUT", x.UploadURL, nil, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", 0, len(data)-1, len(data)), "Content-Length", "0"); res.status != http.StatusOK && res.status != http.StatusBadRequest {
			t.Errorf("complete, and again: %d %s", res.status, clipped(res.body))
		}
		// Begun anew: what was there is forgotten, on disk too.
		y := announce(t, ann, "text/plain", 1000)
		text := random(1000)
		cutUpload(t, y.UploadURL, 1000, random(700))
		eventually(t, "what came is kept", func() error {
			if n, err := offset(t.Context(), y); err != nil || n != 700 {
				return fmt.Errorf("%d, %w", n, err)
			}
			return nil
		})
		fetched(t, put(t, y, text).URL, text)
		eventually(t, "what was forgotten is removed", func() error {
			if n := files(t, dir); n != 5+1 {
				return fmt.Errorf("%d files", n)
			}
			return nil
		})
	})
}

func TestAStalledUploadGivesWayToTheNext(t *testing.T) {
	// A phone that changes networks leaves a connection behind that looks alive. It must not have to wait for that to end.
	onBothStores(t, func(t *testing.T, s store) {
		w, _ := keeping(t, s)
		data := random(50_000)
		x := announce(t, w.service, "audio/ogg", len(data))
		slow, feed := io.Pipe()
		stalled := make(chan response, 1)
		go func() {
			res, err := transfer(t.Context(), "PUT", x.UploadURL, slow)
			if err == nil {
				stalled <- res
			}
			close(stalled)
		}()
		if _, err := feed.Write(data[:20_000]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the first is being served", func() error {
			if w.metric(t, "parley_content_uploads_in_flight") != 1 {
				return errors.New("no upload is under way")
			}
			return nil
		})
		var at int64
		eventually(t, "the next takes over", func() error {
			// What the stalled one brought may only be kept when it ends: then the right offset is another.
			res, err := transfer(t.Context(), "PUT", fmt.Sprintf("%s&offset=%d", x.UploadURL, at), bytes.NewReader(data[at:]))
			if err == nil && res.status == http.StatusConflict {
				at, err = strconv.ParseInt(res.header.Get("Upload-Offset"), 10, 64)
				return errors.Join(err, errors.New("not yet"))
			}
			if err == nil && res.status != http.StatusOK {
				err = fmt.Errorf("%d %s", res.status, clipped(res.body))
			}
			return err
		})
		_ = feed.Close()
		if res, ok := <-stalled; ok && res.status != http.StatusConflict {
			t.Errorf("the stalled upload: %d %s", res.status, clipped(res.body))
		}
		fetched(t, contentIn(t, w.service.ok(t, "GET", "/v1/content/"+x.ID, nil)).URL, data)
	})
}

func TestUploadsAreHeldToWhatWasAnnounced(t *testing.T) {
	// Size and type are what quotas, parts and readers go by.
	onBothStores(t, func(t *testing.T, s store) {
		w, _ := keeping(t, s, func(c *configs.Config) {
			c.Content.MaxSize, c.Content.Quota, c.Content.Uploads = 1*configs.MiB, 2*configs.MiB, 4
		})
		users := w.users(t, "ann", "ben")
		ann := w.as(t, users[0])
		for _, bad := range []map[string]any{
			{"mimeType": "nonsense", "size": 5},
			{"mimeType": "a/b"},
			{"mimeType": "a/b", "size": -1},
			{"size": 5},
			{"mimeType": "a/b", "size": 5, "sha256": "abc"},
			{"mimeType": "a/b", "size": 5, "name": "x"},
		} {
			if p := ann.refused(t, "POST", "/v1/content", bad); p.Status != 400 || p.Number != 1 {
				t.Errorf("%v: %+v", bad, p)
			}
		}
		if p := ann.refused(t, "POST", "/v1/content", map[string]any{"mimeType": "a/b", "size": 1<<20 + 1}); p.Status != 413 {
			t.Errorf("too large: %+v", p)
		}
		if p := w.admin.refused(t, "POST", "/v1/content", map[string]any{"mimeType": "a/b", "size": 1}); p.Status != 403 {
			t.Errorf("by the admin key: %+v", p)
		}

		data := random(1000)
		x := announce(t, ann, "image/jpeg", len(data))
		for name, try := range map[string]struct {
			body   io.Reader
			header []string
			query  string
			status int
		}{
			"too short":     {body: bytes.NewReader(data[:999]), status: 400},
			"too long":      {body: bytes.NewReader(append(data, 0)), status: 400},
			"much too long": {body: io.MultiReader(bytes.NewReader(data), io.LimitReader(endless{}, 1<<20)), status: 413},
			"another type":  {body: bytes.NewReader(data), header: []string{"Content-Type", "text/html"}, status: 415},
			"compressed":    {body: bytes.NewReader(data), header: []string{"Content-Encoding", "gzip"}, status: 415},
			"another total": {body: bytes.NewReader(data[:10]), header: []string{"Content-Range", "bytes 0-9/999"}, status: 400},
			"not its range": {body: bytes.NewReader(data[:10]), header: []string{"Content-Range", "bytes 0-10/1000"}, status: 400},
			"no range":      {body: bytes.NewReader(data[:10]), header: []string{"Content-Range", "0-9"}, status: 400},
			"beyond":        {body: bytes.NewReader(data), query: "&offset=1", status: 409},
			"negative":      {body: bytes.NewReader(data), query: "&offset=-1", status: 400},
			"unknown":       {body: bytes.NewReader(data), query: "&x=1", status: 400},
		} {
			res := mustTransfer(t, "PUT", x.UploadURL+try.query, try.body, try.header...)
			if p := refusalIn(t, res); p.Status != try.status {
				t.Errorf("%s: %+v", name, p)
			}
			if n, err := offset(t.Context(), x); err != nil || n != 0 {
				t.Errorf("%s: the upload has come to %d (%v)", name, n, err)
			}
		}

		// What is not complete cannot be named, nor read.
		c := w.conversation(t, users...)
		send := func(a api, p map[string]any) refusal {
			t.Helper()
			return a.refused(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{"parts": []any{p}})
		}
		if p := send(ann, map[string]any{"mimeType": "image/jpeg", "content": x.ID}); p.Number != 1 || !strings.Contains(p.Detail, "0 of 1000") {
			t.Errorf("named before it is complete: %+v", p)
		}
		if p := w.service.refused(t, "GET", "/v1/content/"+x.ID, nil); p.Status != 404 {
			t.Errorf("read before it is complete: %+v", p)
		}
		done := put(t, x, data)
		for _, p := range []map[string]any{
			{"mimeType": "image/png", "content": x.ID},
			{"mimeType": "image/jpeg", "content": x.ID, "size": 999},
			{"mimeType": "image/jpeg", "content": x.ID, "body": "x"},
			{"mimeType": "image/jpeg", "content": x.ID, "url": "https://elsewhere.example/"},
			{"mimeType": "image/png", "url": done.URL},
		} {
			if got := send(ann, p); got.Number != 1 || got.Status != 400 {
				t.Errorf("part %v: %+v", p, got)
			}
		}
		for _, id := range []string{strings.Repeat("0", 32), "../../etc/passwd", "x"} {
			if got := send(ann, map[string]any{"mimeType": "image/jpeg", "content": id}); got.Code != "not-found" {
				t.Errorf("content %q: %+v", id, got)
			}
		}
		{
			p := ann.refused(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{
				"parts": []any{map[string]any{"mimeType": "image/jpeg", "content": x.ID}}, "options": map[string]any{"transient": true},
			})
			if p.Number != 1 {
				t.Errorf("in a transient message: %+v", p)
			}
		}

		// A digest that was announced must be met.
		sum := sha256.Sum256(data)
		y := announce(t, ann, "a/b", 1000, "sha256", strings.ToUpper(hex.EncodeToString(sum[:])))
		if p := refusalIn(t, mustTransfer(t, "PUT", y.UploadURL, bytes.NewReader(random(1000)))); p.Number != 1 {
			t.Errorf("another digest: %+v", p)
		}
		fetched(t, put(t, y, data).URL, data)

		// Quotas of users, not of services.
		for range 4 {
			announce(t, ann, "a/b", 10)
		}
		if p := ann.refused(t, "POST", "/v1/content", map[string]any{"mimeType": "a/b", "size": 1}); p.Status != 429 {
			t.Errorf("a fifth upload that is not complete: %+v", p)
		}
		ben := w.as(t, users[1])
		uploaded(t, ben, "a/b", random(1<<20))
		uploaded(t, ben, "a/b", random(1<<20-5))
		if p := ben.refused(t, "POST", "/v1/content", map[string]any{"mimeType": "a/b", "size": 6}); p.Status != 413 {
			t.Errorf("more than the quota: %+v", p)
		}
		for range 6 {
			announce(t, w.service, "a/b", 1<<20)
		}
	})
}

// endless never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

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

func TestUploadsSurviveTheGatewayThatTookThem(t *testing.T) {
	// A gateway that is killed, or restarted by its operator, costs a phone some seconds and not its upload.
	onBothStores(t, func(t *testing.T, s store) {
		where, dir := s.empty(t), t.TempDir()
		setting := "PARLEY_CONTENT_URL=file://" + filepath.ToSlash(dir)
		gw := spawn(t, where, setting)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "ann", "ben")
		data := random(20 << 20)
		x := announce(t, w.as(t, users[0]), "a/b", len(data))
		token := w.token(t, users[0])
		for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			at, err := offset(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			slow, feed := io.Pipe()
			over := make(chan int, 1) // the status of the answer; 0: there was none
			go func() {
				res, _ := transfer(t.Context(), "PUT", x.UploadURL+"&offset="+strconv.FormatInt(at, 10), slow)
				over <- res.status
			}()
			if _, err := feed.Write(data[at : at+9<<20]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a piece has come", func() error {
				if n, err := offset(t.Context(), x); err != nil || n < at+8<<20 {
					return fmt.Errorf("%d, %w", n, err)
				}
				return nil
			})
			gw.signal(t, end)
			gw.exit(t)
			_ = feed.CloseWithError(io.ErrUnexpectedEOF)
			if status := <-over; status != map[syscall.Signal]int{syscall.SIGKILL: 0, syscall.SIGTERM: 503}[end] {
				t.Errorf("%v: the upload was answered with %d", end, status)
			}
			gw = spawn(t, where, setting)
			// The port is another, so are the URLs.
			x = contentIn(t, gw.api(token).ok(t, "GET", "/v1/content/"+x.ID, nil))
			if least := at + 8<<20; x.Received < least {
				t.Fatalf("after %v the upload has come to %d, it had come to %d", end, x.Received, least)
			}
		}
		res := mustTransfer(t, "PUT", x.UploadURL+"&offset="+strconv.FormatInt(x.Received, 10), bytes.NewReader(data[x.Received:]))
		if res.status != http.StatusOK {
			t.Fatalf("the rest: %d %s", res.status, clipped(res.body))
		}
		fetched(t, contentIn(t, res).URL, data)
	})
}
