package storetest

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

func reopenedStoreGoesOn(t *testing.T, b Backend) {
	// A restart is the most ordinary of all faults.
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 3)
	log := s.Committers()[0]
	c := w.Group(log, 1, 2)
	w.Send(log, w.Draft(c, 0, "a", "text"))
	must(t, s.Close())
	must(t, s.Close())
	for range 3 {
		s = place.Open(t)
		w.Store = s
		must(t, s.Ping(t.Context()))
		equal(t, "next", w.Send(s.Committers()[0], w.Draft(c, 1, rand.Text(), "text"))[0].Seq, w.Head(c.ID).LastSeq)
		w.Verify()
		must(t, s.Close())
	}
}

// childURL is the environment variable that makes a test process a child, which only writes.
const childURL = "PARLEY_STORETEST_CHILD"

// Child is what the suite starts in a process of its own, to be killed. Whoever calls [Run] calls it from a test named
// TestChild; open opens a store by its URL. Outside of such a process it does nothing.
func Child(t *testing.T, open func(t *testing.T, url string) Store) {
	t.Helper()
	url := os.Getenv(childURL)
	if url == "" {
		return
	}
	s := open(t, url)
	w := NewWorld(t, s, 3)
	log := s.Committers()[0]
	heads := []*domain.Conversation{w.Group(log, 1), w.Group(log, 1, 2)}
	for n := 0; ; n++ {
		var lines strings.Builder
		var batch []domain.Draft
		for i := range 1 + n%20 {
			batch = append(batch, w.Draft(heads[(n+i)%2], i%2, fmt.Sprint(n, "-", i), strings.Repeat("text ", 40)))
		}
		for i, p := range w.Send(log, batch...) {
			e := batch[i].Event
			fmt.Fprintln(&lines, "ack", e.Conversation, int64(e.Sender), e.ClientID, int64(p.Seq))
		}
		if n%5 == 4 {
			r := w.Retitle(heads[0].ID, fmt.Sprint("title ", n))
			e := w.Try(log, r)[0].Decision.Events[0]
			heads[0] = e.ConversationData
			fmt.Fprintln(&lines, "ack", e.Conversation, int64(e.Sender), r.Key, int64(e.Seq))
		}
		// Only what has left the process counts as acknowledged.
		if _, err := os.Stdout.WriteString(lines.String()); err != nil {
			return
		}
	}
}

func acknowledgedEventsSurviveKill9(t *testing.T, b Backend) {
	// Acknowledged means kept: the process may be gone the next moment.
	place := b.New(t)
	must(t, place.Open(t).Close())
	var w *World
	for round := range 3 {
		acked := killChild(t, place.URL, 400+300*round)
		s := place.Open(t)
		if w == nil {
			w = NewWorld(t, s, 0)
		}
		w.Store = s
		for _, line := range acked {
			var id string
			var sender, seq int64
			var client string
			if _, err := fmt.Sscanf(line, "ack %s %d %s %d", &id, &sender, &client, &seq); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			conversation, err := domain.ParseConversationID(id)
			must(t, err)
			if w.acked[conversation] == nil {
				w.acked[conversation] = make(map[ack]domain.Seq)
			}
			w.acked[conversation][ack{domain.SenderID(sender), client}] = domain.Seq(seq)
		}
		if len(w.acked) != 2*(round+1) {
			t.Errorf("%d conversations were written to after round %d", len(w.acked), round)
		}
		w.Verify()
		must(t, s.Close())
	}
}

// killChild runs a child until it has acknowledged so many events, kills it, and gives the lines that it wrote.
func killChild(t *testing.T, url string, lines int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.timeout=60s") //nolint:noctx // It is killed below.
	cmd.Env = append(os.Environ(), childURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var acked, others []string
	r := bufio.NewReader(out)
	killed := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		// A last line without its end is not read; all others were written before the kill.
		if strings.HasPrefix(line, "ack ") {
			acked = append(acked, line)
		} else {
			others = append(others, line)
		}
		if len(acked) >= lines && !killed {
			killed = true
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || !killed {
		t.Fatalf("the child ended by itself: %v\n%s", err, strings.Join(others, ""))
	}
	return acked
}
