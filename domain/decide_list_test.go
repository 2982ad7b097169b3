package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// listed gives a store with a conversation of each kind that a list may or may not show, and their ids by name.
func listed() (*store, map[string]domain.ConversationID) {
	ids := make(map[string]domain.ConversationID)
	var list []*domain.Conversation
	add := func(name string, change func(*domain.Conversation)) {
		c := room()
		c.ID = conversationID(byte(len(list) + 1))
		c.PublicJoin = true
		c.Participants = []domain.Participant{participant(alice, domain.EveryPermission())}
		change(c)
		ids[name] = c.ID
		list = append(list, c)
	}
	add("main", func(*domain.Conversation) {})
	add("child", func(c *domain.Conversation) { c.Account = 11 })
	add("other child", func(c *domain.Conversation) { c.Account = 12 })
	add("other tree", func(c *domain.Conversation) { c.Root, c.Account = 2, 2 })
	add("private", func(c *domain.Conversation) { c.PublicJoin = false })
	add("removed", func(c *domain.Conversation) { c.Removed = true })
	add("bob's", func(c *domain.Conversation) {
		c.Participants = append(c.Participants, participant(bob, domain.DefaultPermissions()))
	})
	return newStore(list...), ids
}

func names(ids map[string]domain.ConversationID, list []domain.ConversationID) []string {
	out := []string{}
	for _, id := range list {
		for name, other := range ids {
			if id == other {
				out = append(out, name)
			}
		}
	}
	return out
}

func TestPublicConversationsAreThoseOfOnesOwnAndTheMainAccount(t *testing.T) {
	s, ids := listed()
	for _, tc := range []struct {
		p    domain.Principal
		want []string
	}{
		{user(eve), []string{"main", "bob's"}},
		{user(dave), []string{"main", "child", "bob's"}},
		{user(mallory), []string{"other tree"}},
		{service(), []string{"main", "child", "other child", "bob's"}},
		{admin(), []string{"main", "child", "other child", "other tree", "bob's"}},
	} {
		d := wantNumber(t, "list", s, tc.p, &domain.GetPublicConversations{}, 0)
		if diff := cmp.Diff(tc.want, names(ids, d.Result.UUIDs)); diff != "" || d.Result.NextCursor != "" {
			t.Errorf("%+v: %s, cursor %q", tc.p, diff, d.Result.NextCursor)
		}
	}
}

func TestListsOfConversationsAreThoseOfTheCaller(t *testing.T) {
	s, ids := listed()
	for _, tc := range []struct {
		p    domain.Principal
		want []string
	}{
		{user(bob), []string{"bob's"}},
		{user(eve), []string{}},
		{service(), []string{"main", "child", "other child", "private", "bob's"}},
		{admin(), []string{"main", "child", "other child", "other tree", "private", "bob's"}},
	} {
		d := wantNumber(t, "list", s, tc.p, &domain.ListConversations{}, 0)
		var got []domain.ConversationID
		for _, c := range d.Result.Conversations {
			got = append(got, c.ID)
		}
		if diff := cmp.Diff(tc.want, names(ids, got)); diff != "" || d.Result.NextCursor != "" {
			t.Errorf("%+v: %s, cursor %q", tc.p, diff, d.Result.NextCursor)
		}
	}
	if name := (&domain.ListConversations{}).Name(); domain.NewCommand(name) != nil {
		t.Errorf("%s is a command over MQTT", name)
	}
}

func TestListsPageWithoutGapsOrRepeats(t *testing.T) {
	s, ids := listed()
	for limit := 1; limit <= 5; limit++ {
		var uuids, whole []domain.ConversationID
		for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
			d := wantNumber(t, "page of uuids", s, service(), &domain.GetPublicConversations{Cursor: cursor, Limit: limit}, 0)
			if cursor = d.Result.NextCursor; len(d.Result.UUIDs) > limit || cursor != "" && len(d.Result.UUIDs) < limit || pages > 9 {
				t.Fatalf("a page of %v", d.Result.UUIDs)
			}
			uuids = append(uuids, d.Result.UUIDs...)
		}
		for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
			d := wantNumber(t, "page", s, service(), &domain.ListConversations{Cursor: cursor, Limit: limit}, 0)
			if cursor = d.Result.NextCursor; len(d.Result.Conversations) > limit || pages > 9 {
				t.Fatalf("a page of %d", len(d.Result.Conversations))
			}
			for _, c := range d.Result.Conversations {
				whole = append(whole, c.ID)
			}
		}
		if diff := cmp.Diff([]string{"main", "child", "other child", "bob's"}, names(ids, uuids)); diff != "" {
			t.Errorf("uuids by %d: %s", limit, diff)
		}
		if diff := cmp.Diff([]string{"main", "child", "other child", "private", "bob's"}, names(ids, whole)); diff != "" {
			t.Errorf("conversations by %d: %s", limit, diff)
		}
	}
	for _, c := range []domain.Command{
		&domain.GetPublicConversations{Limit: -1}, &domain.GetPublicConversations{Limit: 1001}, &domain.GetPublicConversations{Cursor: "x"},
		&domain.GetPublicConversations{Cursor: "dXNlcjox"}, &domain.ListConversations{Limit: 101}, &domain.ListConversations{Cursor: "!"},
	} {
		wantNumber(t, "a page that cannot be", s, service(), c, 1)
	}
}

func TestAListShowsNothingThatIsNoMoreTheCallers(t *testing.T) {
	// The page and what is on it are read one after the other.
	conv, gone := room(), room()
	gone.ID, gone.Removed = conversationID(2), true
	h := &domain.Heads{
		Limits: domain.DefaultLimits(), Listed: []domain.ConversationID{conv.ID, gone.ID, conversationID(3)},
		Conversations: []*domain.Conversation{gone, conv},
	}
	for p, want := range map[domain.UserID]int{alice: 1, eve: 0} {
		d, err := domain.Decide(h, user(p), &domain.ListConversations{})
		if err != nil || len(d.Result.Conversations) != want {
			t.Errorf("%d sees %d, %v", p, len(d.Result.Conversations), err)
		}
	}
}
