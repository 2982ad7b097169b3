package domain

import (
	"encoding/base64"
	"strings"
)

// How many conversations a page has, by default and at most: of uuids alone, and of whole conversations.
const (
	pageUUIDs, maxPageUUIDs                 = 100, 1000
	pageConversations, maxPageConversations = 30, 100
)

// GetPublicConversations asks for a page of the conversations that the caller may join: those made in its own account
// and in the main account; a backend sees those of its whole tree.
type GetPublicConversations struct {
	Cursor string `json:"cursor,omitempty" doc:"nextCursor of the page before."`
	Limit  int    `json:"limit,omitempty" doc:"1 to 1000; 100 if absent."`
	Meta
}

// Name implements [Command].
func (*GetPublicConversations) Name() string { return "getPublicConversations" }

// Kind implements [Command].
func (*GetPublicConversations) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetPublicConversations) Needs(p Principal) Needs {
	q := ConversationQuery{Root: p.Root, Public: true, Limit: orDefault(c.Limit, pageUUIDs) + 1}
	if p.IsUser() {
		q.Account = p.Account
	}
	q.After, _ = parseCursor(c.Cursor)
	return Needs{List: &q}
}

func (c *GetPublicConversations) check(Limits) error {
	return checkPage(c.Cursor, c.Limit, maxPageUUIDs)
}

func (c *GetPublicConversations) decide(h *Heads, _ Principal) (Decision, error) {
	page, next := cut(h.Listed, orDefault(c.Limit, pageUUIDs))
	return Decision{Result: Result{UUIDs: append([]ConversationID{}, page...), NextCursor: next}}, nil
}

// ListConversations asks for a page of whole conversations: those that a user takes part in, or those of a backend's
// account tree. Removed ones are left out. It exists over HTTP only.
type ListConversations struct {
	Cursor string
	Limit  int
	Meta
}

// Name implements [Command].
func (*ListConversations) Name() string { return "listConversations" }

// Kind implements [Command].
func (*ListConversations) Kind() Kind { return Read }

// Needs implements [Command].
func (c *ListConversations) Needs(p Principal) Needs {
	q := ConversationQuery{Root: p.Root, Whole: true, Limit: orDefault(c.Limit, pageConversations) + 1}
	if p.IsUser() {
		q.Member = p.User
	}
	q.After, _ = parseCursor(c.Cursor)
	return Needs{List: &q}
}

func (c *ListConversations) check(Limits) error {
	return checkPage(c.Cursor, c.Limit, maxPageConversations)
}

func (c *ListConversations) decide(h *Heads, p Principal) (Decision, error) { //nolint:unparam // the interface wants the error
	page, next := cut(h.Listed, orDefault(c.Limit, pageConversations))
	r := Result{Conversations: []*Conversation{}, NextCursor: next}
	for _, id := range page {
		for _, conv := range h.Conversations {
			// It may have changed since the page was made.
			if _, part := rights(conv, p); conv.ID == id && part && !conv.Removed && p.Sees(conv.Root) {
				r.Conversations = append(r.Conversations, conv)
			}
		}
	}
	return Decision{Result: r}, nil
}

func checkPage(cursor string, limit, most int) error {
	if limit < 0 || limit > most {
		return Errorf(InvalidRequest, "limit is 1 to %d", most)
	}
	_, err := parseCursor(cursor)
	return err
}

func orDefault(limit, fallback int) int {
	if limit == 0 {
		return fallback
	}
	return limit
}

// cut takes a page off a list, which is longer where another page follows, and gives the cursor of that. Clients must not
// look into a cursor, so it does not invite them to.
func cut(listed []ConversationID, limit int) (page []ConversationID, next string) {
	if len(listed) <= limit {
		return listed, ""
	}
	page = listed[:limit]
	return page, base64.RawURLEncoding.EncodeToString([]byte("conversation:" + page[limit-1].String()))
}

func parseCursor(s string) (ConversationID, error) {
	if s == "" {
		return ConversationID{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	text, ok := strings.CutPrefix(string(b), "conversation:")
	id, perr := ParseConversationID(text)
	if err != nil || !ok || perr != nil {
		return ConversationID{}, Errorf(InvalidRequest, "the cursor is not one of ours")
	}
	return id, nil
}
