package domain_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

const room1 = "conversations/018bcfe5-6801-7000-8000-000000000001"

func TestTopicsThatExist(t *testing.T) {
	// The topics of protocol.md section 2: clients write these strings into their code.
	conv := conversationID(1)
	for s, want := range map[string]domain.Topic{
		room1 + "/messages":                     {Kind: domain.MessagesTopic, Conversation: conv},
		room1 + "/raw":                          {Kind: domain.RawTopic, Conversation: conv},
		room1 + "/typing":                       {Kind: domain.TypingTopic, Conversation: conv},
		room1 + "/read":                         {Kind: domain.ReadTopic, Conversation: conv},
		room1 + "/events":                       {Kind: domain.EventsTopic, Conversation: conv},
		room1 + "/signals":                      {Kind: domain.SignalsTopic, Conversation: conv},
		"users/alice@chat.acme/inbox":           {Kind: domain.InboxTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/status":          {Kind: domain.StatusTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/replies":         {Kind: domain.RepliesTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/replies/app/1":   {Kind: domain.RepliesTopic, User: "alice@chat.acme", Rest: "/app/1"},
		"users/a.b_c-d@chat.acme/replies/é $ x": {Kind: domain.RepliesTopic, User: "a.b_c-d@chat.acme", Rest: "/é $ x"},
		"users/service/Billing@acme/replies":    {Kind: domain.RepliesTopic, User: "service/Billing@acme"},
		"users/service/B.x_1@acme/replies/a/b":  {Kind: domain.RepliesTopic, User: "service/B.x_1@acme", Rest: "/a/b"},
		"commands/sendMessage":                  {Kind: domain.CommandTopic, Command: "sendMessage"},
		"commands/nonsense":                     {Kind: domain.CommandTopic, Command: "nonsense"},
	} {
		got, ok := domain.ParseTopic(s)
		if !ok || got != want {
			t.Errorf("%s: %+v, %t", s, got, ok)
		}
		if got.String() != s {
			t.Errorf("%s is written as %s", s, got)
		}
	}
}

func noTopics() []string {
	return []string{
		"", "/", "#", "+", "conversations", "conversations/", "users", "users/", "commands", "commands/", "commands/a/b", "commands//",
		"/" + room1 + "/messages", room1, room1 + "/", room1 + "/messages/", room1 + "//messages", room1 + "/Messages", room1 + "/message",
		"Conversations" + strings.TrimPrefix(room1, "conversations") + "/messages", "conversations//messages", "conversations/1/messages",
		strings.ToUpper("conversations/018bcfe5-6801-7000-8000-00000000000a/messages"),
		"conversations/018BCFE5-6801-7000-8000-00000000000A/messages", "conversations/018bcfe5-6801-7000-8000-00000000000A/messages",
		"conversations/{018bcfe5-6801-7000-8000-000000000001}/messages", "conversations/018bcfe5680170008000000000000001/messages",
		"conversations/018bcfe5-6801-7000-8000-00000000000/messages", "conversations/018bcfe5-6801-7000-8000-0000000000012/messages",
		"conversations/018bcfe5-6801-7000-8000_000000000001/messages", "conversations/018bcfe5-6801-7000-8000-00000000000g/messages",
		room1 + "/messages#", room1 + "/mess+ges", room1 + "/messages\x00", room1 + "/messages ", " " + room1 + "/messages",
		"users/alice/inbox", "users/Alice@chat.acme/inbox", "users/alice@chat.acme", "users/alice@chat.acme/", "users/alice@chat.acme/Inbox",
		"users/alice@chat.acme/inbox/", "users/alice@chat.acme/inbox/x", "users/alice@chat.acme/status/x", "users//inbox",
		"users/alice@chat.acme/replies/", "users/alice@chat.acme/replies//", "users/alice@chat.acme/replies//x",
		"users/alice@chat.acme/replies/x/", "users/alice@chat.acme/replies/x//y", "users/alice@chat.acme/repliesx",
		"users/alice@chat.acme/replies/\xff", "users/alice@chat.acme/replies/a\x00b", "$SYS/broker", "$share/g/" + room1 + "/events", "$commands/getMe",
		"users/service/Billing@acme", "users/service/Billing@acme/", "users/service/Billing@acme/inbox", "users/service/Billing@acme/status",
		"users/service/Billing/replies", "users/service/@acme/replies", "users/service/Billing@/replies", "users/service/replies",
		"users/service//replies", "users/service/Billing@Acme/replies", "users/service/Billing@acme/replies/", "users/service",
		"users/alice@chat.acme/replies/" + strings.Repeat("x", 512), "commands/" + strings.Repeat("x", 512),
	}
}

func TestTopicsThatDoNotExist(t *testing.T) {
	// Whatever is not on the list is refused: a topic in a second spelling would be one whose access nobody checks.
	for _, s := range append(noTopics(), room1+"/+", "conversations/+/events", "users/alice@chat.acme/replies/#") {
		if got, ok := domain.ParseTopic(s); ok || got != (domain.Topic{}) {
			t.Errorf("%q is taken for %+v", s, got)
		}
	}
}

func TestTopicsOf512BytesAreTheLongest(t *testing.T) {
	longest := "users/alice@chat.acme/replies/"
	longest += strings.Repeat("x", 512-len(longest))
	if _, ok := domain.ParseTopic(longest); !ok {
		t.Error("512 bytes are refused")
	}
	if _, ok := domain.ParseTopic(longest + "x"); ok {
		t.Error("513 bytes are accepted")
	}
}

func TestFiltersThatExist(t *testing.T) {
	conv := conversationID(1)
	for s, want := range map[string]domain.Filter{
		"conversations/+/events":                                        {Kind: domain.EventsTopic},
		"conversations/+/signals":                                       {Kind: domain.SignalsTopic},
		room1 + "/events":                                               {Kind: domain.EventsTopic, Conversation: conv},
		room1 + "/signals":                                              {Kind: domain.SignalsTopic, Conversation: conv},
		"users/alice@chat.acme/inbox":                                   {Kind: domain.InboxTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/status":                                  {Kind: domain.StatusTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/replies":                                 {Kind: domain.RepliesTopic, User: "alice@chat.acme"},
		"users/alice@chat.acme/replies/#":                               {Kind: domain.RepliesTopic, User: "alice@chat.acme", Rest: "/#"},
		"users/service/Billing@acme/replies":                            {Kind: domain.RepliesTopic, User: "service/Billing@acme"},
		"users/service/Billing@acme/replies/#":                          {Kind: domain.RepliesTopic, User: "service/Billing@acme", Rest: "/#"},
		"users/alice@chat.acme/replies/a/b":                             {Kind: domain.RepliesTopic, User: "alice@chat.acme", Rest: "/a/b"},
		"$share/workers/conversations/+/events":                         {Kind: domain.EventsTopic, Group: "workers"},
		"$share/a b-é/" + room1 + "/events":                             {Kind: domain.EventsTopic, Conversation: conv, Group: "a b-é"},
		"$share/" + strings.Repeat("g", 64) + "/conversations/+/events": {Kind: domain.EventsTopic, Group: strings.Repeat("g", 64)},
	} {
		got, ok := domain.ParseFilter(s)
		if !ok || got != want {
			t.Errorf("%s: %+v, %t", s, got, ok)
		}
		if got.String() != s {
			t.Errorf("%s is written as %s", s, got)
		}
	}
}

func TestFiltersThatDoNotExist(t *testing.T) {
	// A filter that is wider than it looks shows conversations to people who take no part.
	filters := []string{
		"#", "+", "+/+", "+/+/events", "conversations/#", "conversations/+", "conversations/+/#", "conversations/+/+", "conversations/+/messages",
		"conversations/+/raw", "conversations/+/events/#", "conversations/+/events/", "conversations/#/events", "conversations/++/events",
		room1 + "/#", room1 + "/+", room1 + "/messages", room1 + "/raw", room1 + "/typing", room1 + "/read", room1 + "/events/#",
		"users/#", "users/+/status", "users/+/inbox", "users/alice@chat.acme/#", "users/alice@chat.acme/+", "users/alice@chat.acme/inbox/#",
		"users/alice@chat.acme/status/#", "users/alice@chat.acme/replies/+", "users/alice@chat.acme/replies/a/#", "users/alice@chat.acme/replies/##",
		"users/alice@chat.acme/replies#", "users/alice@chat.acme/replies/a/replies/#", "users/alice@chat.acme/inbox/replies/#", "commands/getMe", "commands/+", "commands/#",
		"$share", "$share/", "$share/g", "$share/g/", "$share//conversations/+/events", "$share/+/conversations/+/events", "$share/g#/conversations/+/events",
		"$share/g/conversations/+/signals", "$share/g/users/alice@chat.acme/inbox", "$share/g/$share/h/conversations/+/events", "$share/g/#",
		"$SHARE/g/conversations/+/events", "$Share/g/conversations/+/events", "$share/$g/conversations/+/events", "$share/g//conversations/+/events",
		"$share/g\x00/conversations/+/events", "$share/\xff/conversations/+/events", "$share/" + strings.Repeat("g", 65) + "/conversations/+/events",
		"$SYS/#", "$queue/conversations/+/events",
		// Its parsed form would be that of all conversations.
		"conversations/00000000-0000-0000-0000-000000000000/events", "conversations/00000000-0000-0000-0000-000000000000/signals",
		"$share/g/conversations/00000000-0000-0000-0000-000000000000/events",
	}
	for _, s := range append(filters, noTopics()...) {
		if strings.HasPrefix(s, "$share/g/"+room1+"/events") {
			continue // no topic, and yet a filter
		}
		if got, ok := domain.ParseFilter(s); ok || got != (domain.Filter{}) {
			t.Errorf("%q is taken for %+v", s, got)
		}
	}
}

func TestWhoMaySubscribeToWhat(t *testing.T) {
	// As far as the filter alone tells; membership is the gateway's question.
	behalf := service().OnBehalfOf(person(alice))
	for _, tc := range []struct {
		filter                                     string
		alice, bob, service, admin, behalf, nobody bool
	}{
		{"conversations/+/events", true, true, true, true, true, false},
		{room1 + "/events", true, true, true, true, true, false},
		{"$share/g/conversations/+/events", false, false, true, true, true, false},
		{"$share/g/" + room1 + "/events", false, false, true, true, true, false},
		{"conversations/+/signals", true, true, false, false, false, false},
		{room1 + "/signals", true, true, false, false, false, false},
		{"users/alice@chat.acme/inbox", true, false, false, false, false, false},
		{"users/alice@chat.acme/replies", true, false, false, false, false, false},
		{"users/alice@chat.acme/replies/#", true, false, false, false, false, false},
		{"users/service/billing@acme/replies", false, false, true, false, false, false},
		{"users/service/billing@acme/replies/#", false, false, true, false, false, false},
		{"users/service/billing@rival/replies", false, false, false, false, false, false},
		{"users/service/Billing@acme/replies", false, false, false, false, false, false},
		{"users/alice@chat.acme/status", true, true, true, true, true, false},
	} {
		f, ok := domain.ParseFilter(tc.filter)
		if !ok {
			t.Fatalf("%s is no filter", tc.filter)
		}
		for _, who := range []struct {
			name string
			p    domain.Principal
			want bool
		}{
			{"alice", user(alice), tc.alice},
			{"bob", user(bob), tc.bob},
			{"a service", service(), tc.service},
			{"the admin key", admin(), tc.admin},
			{"a service as alice", behalf, tc.behalf},
			{"nobody", domain.Principal{}, tc.nobody},
		} {
			if f.Allowed(who.p) != who.want {
				t.Errorf("%s by %s: want %t", tc.filter, who.name, who.want)
			}
		}
	}
	for _, kind := range []domain.TopicKind{domain.NoTopic, domain.MessagesTopic, domain.CommandTopic, domain.ReadTopic} {
		if (domain.Filter{Kind: kind}).Allowed(user(alice)) || (domain.Filter{Kind: kind}).Allowed(admin()) {
			t.Errorf("somebody may subscribe to kind %d", kind)
		}
	}
}

func TestRepliesReachTheFiltersThatMeanThem(t *testing.T) {
	own := func(rest string) string { return "users/alice@chat.acme/replies" + rest }
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{own(""), own(""), true},
		{own(""), own("/a"), false},
		{own("/#"), own("/a"), true},
		{own("/#"), own("/a/b"), true},
		{own("/#"), own(""), true}, // MQTT: # includes the parent level
		{own("/a"), own("/a"), true},
		{own("/a"), own("/b"), false},
		{own("/a"), own("/a/b"), false},
		{own("/#"), "users/bob@chat.acme/replies/a", false},
		{own(""), "users/alice@chat.acme/inbox", false},
		{"users/alice@chat.acme/inbox", own(""), false},
	} {
		f, _ := domain.ParseFilter(tc.filter)
		topic, ok := domain.ParseTopic(tc.topic)
		if !ok || f.MatchesReply(topic) != tc.want {
			t.Errorf("%s matches %s: want %t", tc.filter, tc.topic, tc.want)
		}
	}
}

// anyTopic gives topics of every kind.
func anyTopic() *rapid.Generator[domain.Topic] {
	return rapid.Custom(func(t *rapid.T) domain.Topic {
		kind := domain.TopicKind(rapid.IntRange(int(domain.MessagesTopic), int(domain.RepliesTopic)).Draw(t, "kind"))
		topic := domain.Topic{Kind: kind}
		switch kind {
		case domain.CommandTopic:
			topic.Command = rapid.StringMatching(`[^/+#\x00]{1,40}`).Draw(t, "command")
		case domain.InboxTopic, domain.StatusTopic, domain.RepliesTopic:
			topic.User = domain.Username(rapid.StringMatching(
				`[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9-]{0,31}\.[a-z0-9][a-z0-9-]{0,31}`).Draw(t, "user"))
			if kind == domain.RepliesTopic {
				topic.Rest = rapid.StringMatching(`(/[^/+#\x00]{1,20}){0,3}`).Draw(t, "rest")
			}
		default:
			copy(topic.Conversation[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
			topic.Conversation[0] |= 1 // the UUID of zeros is nobody's
		}
		return topic
	})
}

func TestTopicsReadBackAsWritten(t *testing.T) {
	// Topics are put together in one place and taken apart in another.
	rapid.Check(t, func(rt *rapid.T) {
		topic := anyTopic().Draw(rt, "topic")
		got, ok := domain.ParseTopic(topic.String())
		if !ok || got != topic {
			rt.Fatalf("%q reads as %+v, %t", topic.String(), got, ok)
		}
		f, ok := domain.ParseFilter(topic.String())
		if want := topic.Kind >= domain.EventsTopic; ok != want {
			rt.Fatalf("%q is a filter: %t, want %t", topic.String(), ok, want)
		}
		if ok && f.String() != topic.String() {
			rt.Fatalf("%q as a filter is %q", topic.String(), f.String())
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range noTopics() {
		f.Add(s)
	}
	for _, s := range []string{room1 + "/messages", "users/a@b.c/replies/x", "commands/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic, ok := domain.ParseTopic(s)
		if ok && (topic.String() != s || topic.Kind == domain.NoTopic) {
			t.Errorf("%q reads as %+v and is written as %q", s, topic, topic.String())
		}
		if !ok && topic != (domain.Topic{}) {
			t.Errorf("%q is refused and gives %+v", s, topic)
		}
	})
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"conversations/+/events", room1 + "/signals", "users/a@b.c/replies/#", "$share/g/conversations/+/events",
		"$share/g/$share/h/conversations/+/events", "users/a@b.c/replies/replies/#", "users/+/status",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, ok := domain.ParseFilter(s)
		if !ok {
			if filter != (domain.Filter{}) {
				t.Errorf("%q is refused and gives %+v", s, filter)
			}
			return
		}
		if filter.String() != s {
			t.Errorf("%q reads as %+v and is written as %q", s, filter, filter.String())
		}
		if filter.Group != "" && filter.Allowed(user(alice)) {
			t.Errorf("a user may share %q", s)
		}
		if wild := strings.ContainsAny(strings.TrimPrefix(s, "$share/"+filter.Group+"/"), "+#"); wild &&
			filter.Rest != "/#" && (!filter.Conversation.IsZero() || filter.User != "") {
			t.Errorf("%q is wider than %+v", s, filter)
		}
	})
}
