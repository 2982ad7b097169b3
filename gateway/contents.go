package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/parley-im/parley/domain"
)

// claim looks up the external content that messages name, and sees to it that it stays. Most messages name none. It gives
// those that can be decided on.
func (s *shard) claim(items []*item) []*item {
	var claims []domain.ContentClaim
	var of []*item
	for _, it := range items {
		m, ok := it.command.(*domain.SendMessage)
		if !ok || s.g.contents == nil {
			continue
		}
		ids := m.External()
		if len(ids) == 0 {
			continue
		}
		key := m.ClientID
		if key == "" {
			key = it.key
		}
		claims = append(claims, domain.ContentClaim{
			Principal: it.principal, Conversation: m.Conversation, ClientID: key, External: ids,
		})
		of = append(of, it)
	}
	if len(claims) == 0 {
		return items
	}
	var answers []domain.ClaimedContent
	err := s.retry(of, func(ctx context.Context) (err error) {
		answers, err = s.g.contents.Claim(ctx, claims, domain.Millis(s.g.now()))
		return err
	})
	if err != nil {
		for _, it := range of {
			it.err = err
		}
		return slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return it.err != nil })
	}
	for i, it := range of {
		it.claimed = answers[i]
	}
	return items
}

// withLinks gives an event of the log with URLs for its external content, which are made anew before they expire; the entry
// itself where it has none.
func (g *Gateway) withLinks(e *entry) *entry {
	if g.links == nil || e.event.Message == nil || !e.event.Message.HasExternal() {
		return e
	}
	now := g.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.linked == nil || !now.Before(e.renew) {
		ev := *e.event
		ev.Message = ev.Message.Linked(g.links)
		until := e.renew
		for i := range ev.Message.Parts {
			if p := &ev.Message.Parts[i]; p.Content != "" {
				until = now.Add(time.UnixMilli(p.URLExpires).Sub(now) / 2)
			}
		}
		e.linked, e.renew = &entry{event: &ev, accepted: e.accepted}, until
	}
	return e.linked
}
