package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/configs"
)

func TestContentLivesInAnS3Store(t *testing.T) {
	// Several gateways without a common disk keep content in an object store: clients see no difference.
	onBothStores(t, func(t *testing.T, s store) {
		backend := s3mem.New()
		if err := backend.CreateBucket("content"); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(gofakes3.New(backend).Server())
		t.Cleanup(server.Close)
		objects := func() int {
			t.Helper()
			list, err := backend.ListBucket("content", nil, gofakes3.ListBucketPage{})
			if err != nil {
				t.Fatal(err)
			}
			return len(list.Contents)
		}
		in := func(c *configs.Config) {
			c.Content.URL = "s3://content/parley?region=eu-1&endpoint=" + url.QueryEscape(server.URL)
			c.Content.AccessKey, c.Content.SecretKey, c.Content.Cleanup = "key", "secret", 20*time.Millisecond
		}
		where := s.empty(t)
		gateways := []*gateway{start(t, where, in)}
		if s.name == "postgres" {
			gateways = append(gateways, start(t, where, in))
		}
		last := gateways[len(gateways)-1]
		w := newWorld(t, gateways[0])
		users := w.users(t, "ann", "ben")
		c := w.conversation(t, users...)
		data := random(17 << 20)
		x := announce(t, w.as(t, users[0]), "video/mp4", len(data))
		cutUpload(t, x.UploadURL, len(data), data[:10<<20])
		eventually(t, "what came is kept", func() error {
			if n, err := offset(t.Context(), x); err != nil || n != 10<<20 {
				return errors.Join(err, fmt.Errorf("%d", n))
			}
			return nil
		})
		// Another gateway goes on where the first was.
		x = contentIn(t, last.api(w.token(t, users[0])).ok(t, "GET", "/v1/content/"+x.ID, nil))
		res := mustTransfer(t, "PUT", fmt.Sprintf("%s&offset=%d", x.UploadURL, x.Received), bytes.NewReader(data[x.Received:]))
		done := contentIn(t, res)
		if res.status != 200 || !done.Complete {
			t.Fatalf("the rest: %d %s", res.status, clipped(res.body))
		}
		fetched(t, done.URL, data)
		reader := last.online(t, users[1], 5)
		w.online(t, users[0], 5).say(t, c, map[string]any{"parts": []any{map[string]any{"mimeType": "video/mp4", "content": x.ID}}})
		ev := partsOf(t, mustJSON(t, w.log(t, c)[1]))[0]
		fetched(t, ev.URL, data)
		if got := mustTransfer(t, "GET", done.URL, nil, "Range", "bytes=8388600-10485770").body; !bytes.Equal(got, data[8388600:10485771]) {
			t.Errorf("a range across pieces: %d bytes", len(got))
		}
		reader.leave()
		if n := objects(); n < 3 {
			t.Errorf("%d objects", n)
		}
		w.service.ok(t, "DELETE", "/v1/conversations/"+c+"/messages/"+w.log(t, c)[1].Message.UUID, nil)
		isGone(t, done.URL)
		eventually(t, "the objects are removed", func() error {
			if n := objects(); n > 0 {
				return fmt.Errorf("%d objects", n)
			}
			return nil
		})
		// A store that cannot be reached at the start is an error that the operator sees.
		server.Close()
		cfg := testConfig(s.empty(t))
		in(&cfg)
		if a, err := app.New(t.Context(), cfg, app.Options{}); err == nil {
			t.Errorf("a gateway starts without its store for content: %v", a.Stop(t.Context()))
		}
	})
}
