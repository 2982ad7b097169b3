package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-im/parley/configs"
)

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
