package domain

import (
	"strings"
	"unicode/utf8"
)

// TopicKind tells the topics of protocol.md section 2 apart.
type TopicKind int

// The kinds. Those a client may publish to come first, then those it may subscribe to.
const (
	NoTopic       TopicKind = iota
	MessagesTopic           // conversations/<uuid>/messages
	RawTopic                // conversations/<uuid>/raw
	TypingTopic             // conversations/<uuid>/typing
	ReadTopic               // conversations/<uuid>/read
	CommandTopic            // commands/<command>
	EventsTopic             // conversations/<uuid>/events
	SignalsTopic            // conversations/<uuid>/signals
	InboxTopic              // users/<username>/inbox
	StatusTopic             // users/<username>/status
	RepliesTopic            // users/<username>/replies and below
)

// maxTopic bounds topics and filters: longer ones cannot name anything.
const maxTopic = 512

// Topic is a parsed topic name.
type Topic struct {
	Kind         TopicKind
	Conversation ConversationID // of the conversation topics
	User         Username       // of the user topics; of a service's replies, what it connects with
	Command      string         // of commands/<command>
	Rest         string         // of replies: what follows, with its leading slash
}

// ParseTopic reads a topic name; ok is false for a topic that does not exist. Wildcards are never part of a name.
func ParseTopic(s string) (t Topic, ok bool) {
	if len(s) > maxTopic || strings.ContainsAny(s, "+#\x00") || !utf8.ValidString(s) {
		return Topic{}, false
	}
	root, rest, _ := strings.Cut(s, "/")
	switch root {
	case "conversations":
		return parseConversationTopic(rest)
	case "users":
		return parseUserTopic(rest)
	case "commands":
		if rest == "" || strings.Contains(rest, "/") {
			return Topic{}, false
		}
		return Topic{Kind: CommandTopic, Command: rest}, true
	}
	return Topic{}, false
}

func parseConversationTopic(rest string) (Topic, bool) {
	id, leaf, _ := strings.Cut(rest, "/")
	c, err := ParseConversationID(id)
	if err != nil || c.String() != id {
		return Topic{}, false
	}
	t := Topic{Conversation: c}
	switch leaf {
	case "messages":
		t.Kind = MessagesTopic
	case "raw":
		t.Kind = RawTopic
	case "typing":
		t.Kind = TypingTopic
	case "read":
		t.Kind = ReadTopic
	case "events":
		t.Kind = EventsTopic
	case "signals":
		t.Kind = SignalsTopic
	default:
		return Topic{}, false
	}
	return t, true
}

func parseUserTopic(rest string) (Topic, bool) {
	name, leaf, _ := strings.Cut(rest, "/")
	if name+"/" == servicePrefix {
		return parseServiceTopic(leaf)
	}
	u, err := ParseUsername(name)
	if err != nil {
		return Topic{}, false
	}
	t := Topic{User: u}
	switch leaf {
	case "inbox":
		t.Kind = InboxTopic
	case "status":
		t.Kind = StatusTopic
	default:
		return repliesTopic(u, leaf)
	}
	return t, true
}

// parseServiceTopic reads what follows users/service/: of the topics of users, services have the replies.
func parseServiceTopic(rest string) (Topic, bool) {
	name, leaf, _ := strings.Cut(rest, "/")
	if _, _, ok := ServiceLogin(servicePrefix + name); !ok {
		return Topic{}, false
	}
	return repliesTopic(Username(servicePrefix+name), leaf)
}

func repliesTopic(u Username, leaf string) (Topic, bool) {
	switch {
	case leaf == "replies":
		return Topic{Kind: RepliesTopic, User: u}, true
	case strings.HasPrefix(leaf, "replies/") && !strings.HasSuffix(leaf, "/") && !strings.Contains(leaf, "//"):
		return Topic{Kind: RepliesTopic, User: u, Rest: strings.TrimPrefix(leaf, "replies")}, true
	}
	return Topic{}, false
}

// String gives the topic's name; the one place where topics are put together.
func (t Topic) String() string {
	switch t.Kind {
	case MessagesTopic, RawTopic, TypingTopic, ReadTopic, EventsTopic, SignalsTopic:
		return "conversations/" + t.Conversation.String() + "/" + t.Kind.leaf()
	case CommandTopic:
		return "commands/" + t.Command
	case InboxTopic, StatusTopic:
		return "users/" + string(t.User) + "/" + t.Kind.leaf()
	case RepliesTopic:
		return "users/" + string(t.User) + "/replies" + t.Rest
	case NoTopic:
	}
	return ""
}

func (k TopicKind) leaf() string {
	return [...]string{"", "messages", "raw", "typing", "read", "", "events", "signals", "inbox", "status", "replies"}[k]
}

// Filter is a parsed subscription filter: one of the few that exist.
type Filter struct {
	Kind TopicKind
	// Conversation is zero for conversations/+/events and conversations/+/signals.
	Conversation ConversationID
	User         Username
	// Rest is, for replies, what follows: "", "/#" or an exact end with its leading slash.
	Rest string
	// Group is the group of a shared subscription ($share/<group>/…); empty: not shared.
	Group string
}

// ParseFilter reads a subscription filter; ok is false for one that does not exist. Whether a principal may use it
// is [Filter.Allowed]'s question.
func ParseFilter(s string) (f Filter, ok bool) {
	if rest, shared := strings.CutPrefix(s, "$share/"); shared {
		group, filter, _ := strings.Cut(rest, "/")
		if group == "" || strings.ContainsAny(group, "+#$\x00") || !utf8.ValidString(group) || len(group) > 64 {
			return Filter{}, false
		}
		f, ok = ParseFilter(filter)
		if !ok || f.Group != "" || f.Kind != EventsTopic {
			return Filter{}, false
		}
		f.Group = group
		return f, true
	}
	switch s {
	case "conversations/+/events":
		return Filter{Kind: EventsTopic}, true
	case "conversations/+/signals":
		return Filter{Kind: SignalsTopic}, true
	}
	name, below := strings.CutSuffix(s, "/replies/#")
	if below {
		s = name + "/replies"
	}
	t, ok := ParseTopic(s)
	if !ok || below && t.Rest != "" {
		return Filter{}, false
	}
	f = Filter{Kind: t.Kind, Conversation: t.Conversation, User: t.User, Rest: t.Rest}
	if below {
		f.Rest = "/#"
	}
	switch f.Kind {
	case EventsTopic, SignalsTopic:
		// The UUID of zeros is nobody's, and in a Filter it stands for every conversation.
		if f.Conversation.IsZero() {
			return Filter{}, false
		}
		return f, true
	case InboxTopic, StatusTopic, RepliesTopic:
		return f, true
	case NoTopic, MessagesTopic, RawTopic, TypingTopic, ReadTopic, CommandTopic:
	}
	return Filter{}, false
}

// String gives the filter as it is written in SUBSCRIBE.
func (f Filter) String() string {
	s := ""
	if f.Group != "" {
		s = "$share/" + f.Group + "/"
	}
	if f.Conversation.IsZero() && (f.Kind == EventsTopic || f.Kind == SignalsTopic) {
		return s + "conversations/+/" + f.Kind.leaf()
	}
	return s + Topic{Kind: f.Kind, Conversation: f.Conversation, User: f.User, Rest: f.Rest}.String()
}

// MatchesReply reports whether a replies filter covers a replies topic.
func (f Filter) MatchesReply(t Topic) bool {
	if f.Kind != RepliesTopic || t.Kind != RepliesTopic || f.User != t.User {
		return false
	}
	return f.Rest == "/#" || f.Rest == t.Rest
}

// Allowed reports whether p may subscribe to the filter, as far as that can be told without the store: whether p
// takes part in a named conversation, or may know a named user, is not.
func (f Filter) Allowed(p Principal) bool {
	switch f.Kind {
	case EventsTopic:
		return f.Group == "" && p.IsUser() || p.IsBackend()
	case SignalsTopic:
		return f.Group == "" && p.IsUser()
	case InboxTopic:
		return p.IsUser() && f.User == p.Username
	case RepliesTopic:
		return f.User != "" && f.User == p.OwnTopics()
	case StatusTopic:
		return p.User != 0 || p.IsBackend()
	case NoTopic, MessagesTopic, RawTopic, TypingTopic, ReadTopic, CommandTopic:
	}
	return false
}

// SubscribeOptions are the options of one subscription (MQTT 5, section 3.8.3.1).
type SubscribeOptions struct {
	QoS     byte // as granted: 0 or 1
	NoLocal bool
	// RetainAsPublished keeps the RETAIN flag of what topics with a present value send; RetainHandling says when that value
	// is sent to a subscription: 0 always, 1 if it is new, 2 not.
	RetainAsPublished bool
	RetainHandling    byte
	Identifier        int // MQTT 5 Subscription Identifier; 0: none
}
