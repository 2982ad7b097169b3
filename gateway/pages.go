package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

const (
	// pageLife is for how long a page is shared. Another gateway may edit or remove what it shows without this one knowing.
	pageLife = 2 * time.Second
	// maxPages bounds the memory of all shared pages, in bytes as entries count them.
	maxPages = 8 << 20
)

// pages are parts of logs that were read lately. Those who take part in a conversation often come back together, after an
// outage or in the morning: what they all missed is then read and encoded once.
type pages struct {
	mu    sync.Mutex
	of    map[domain.ConversationID]map[domain.Seq]*page // by where their part of the log ends
	order []*page                                        // that are read, the oldest first
	size  int
}

// page is what the log has from one event to another, both included. Pages end at multiples of pageEvents, or with what
// there was to read.
type page struct {
	id         domain.ConversationID
	from, upto domain.Seq
	// read is closed when entries and err are known. failed: they are of no use to others.
	read    chan struct{}
	entries []*entry
	err     error
	failed  bool
	size    int
}

// pageEnd gives where the page that an event is in ends.
func pageEnd(seq domain.Seq) domain.Seq { return (seq-1)/pageEvents*pageEvents + pageEvents }

// get gives the events from..upto, which are within one page. If nobody has read them lately, load does.
func (ps *pages) get(
	ctx context.Context, id domain.ConversationID, from, upto domain.Seq, load func() ([]*entry, error),
) ([]*entry, error) {
	for {
		p, mine := ps.find(id, from, upto)
		if mine {
			return ps.load(p, load)
		}
		select {
		case <-p.read:
		case <-ctx.Done():
			return nil, domain.Because(domain.Unavailable, ctx.Err(), "the store was not waited for")
		}
		if !p.failed {
			return p.within(from, upto), nil
		}
	}
}

// load reads a page for all who wait for it.
func (ps *pages) load(p *page, load func() ([]*entry, error)) ([]*entry, error) {
	p.err = domain.Errorf(domain.Internal, "events could not be read") // unless load returns
	defer ps.loaded(p)
	p.entries, p.err = load()
	return p.entries, p.err
}

// find gives the page that has these events, or will have them; mine: the caller is to read it.
func (ps *pages) find(id domain.ConversationID, from, upto domain.Seq) (p *page, mine bool) {
	end := pageEnd(from)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.of[id][end]; p != nil && p.from <= from && p.upto >= upto {
		return p, false
	}
	p = &page{id: id, from: from, upto: upto, read: make(chan struct{})}
	if ps.of == nil {
		ps.of = make(map[domain.ConversationID]map[domain.Seq]*page)
	}
	if ps.of[id] == nil {
		ps.of[id] = make(map[domain.Seq]*page, 1)
	}
	ps.of[id][end] = p
	return p, true
}

// loaded lets others have what was read.
func (ps *pages) loaded(p *page) {
	for _, e := range p.entries {
		p.size += e.size
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	defer close(p.read)
	if p.failed = p.err != nil; p.failed || !ps.has(p) {
		ps.remove(p)
		return
	}
	ps.order = append(ps.order, p)
	ps.size += p.size
	for ps.size > maxPages {
		ps.forget(ps.order[0])
	}
	time.AfterFunc(pageLife, func() {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.forget(p)
	})
}

// has reports whether p is still what others are given. The caller holds mu.
func (ps *pages) has(p *page) bool { return ps.of[p.id][pageEnd(p.from)] == p }

// remove has others read p's events again. The caller holds mu.
func (ps *pages) remove(p *page) {
	if !ps.has(p) {
		return
	}
	delete(ps.of[p.id], pageEnd(p.from))
	if len(ps.of[p.id]) == 0 {
		delete(ps.of, p.id)
	}
}

// forget drops a page that was read, and what it takes. The caller holds mu.
func (ps *pages) forget(p *page) {
	i := slices.Index(ps.order, p)
	if i < 0 {
		return
	}
	ps.order = slices.Delete(ps.order, i, i+1)
	ps.size -= p.size
	ps.remove(p)
}

// outdate has everybody read a conversation again. What is just being read is only for those who wait for it already.
func (ps *pages) outdate(id domain.ConversationID) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.of[id] {
		ps.forget(p)
	}
	delete(ps.of, id)
}

// within gives those of the page's entries that are from..upto.
func (p *page) within(from, upto domain.Seq) []*entry {
	var list []*entry
	for _, e := range p.entries {
		if e.event.Seq >= from && e.event.Seq <= upto {
			list = append(list, e)
		}
	}
	return list
}
