package bridge

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

const asyncSpecPath = "/asyncapi.json"

// aboutAsync introduces the AsyncAPI document.
const aboutAsync = "Parley over MQTT 3.1.1 and 5.0. Clients publish messages and commands and subscribe to the events of their " +
	"conversations. An acknowledgement (PUBACK, PUBREC) with success means: committed. Times are milliseconds since 1970. " +
	"Absent response fields mean \"none\"; unknown request fields are an error. What Parley receives is checked for unknown " +
	"fields; what it sends may grow."

// The following are an AsyncAPI 3.0 document, as far as ours has use for it.
type (
	asyncDocument struct {
		AsyncAPI           string                    `json:"asyncapi"`
		Info               asyncInfo                 `json:"info"`
		DefaultContentType string                    `json:"defaultContentType"`
		Servers            map[string]asyncServer    `json:"servers"`
		Channels           map[string]*asyncChannel  `json:"channels"`
		Operations         map[string]asyncOperation `json:"operations"`
		Components         asyncComponents           `json:"components"`
	}
	asyncInfo struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description"`
	}
	asyncServer struct {
		Host            string     `json:"host"`
		Pathname        string     `json:"pathname,omitempty"`
		Protocol        string     `json:"protocol"`
		ProtocolVersion string     `json:"protocolVersion"`
		Description     string     `json:"description"`
		Security        []asyncRef `json:"security"`
	}
	asyncChannel struct {
		Address     string                    `json:"address"`
		Description string                    `json:"description"`
		Parameters  map[string]asyncParameter `json:"parameters,omitempty"`
		Messages    map[string]asyncRef       `json:"messages"`
	}
	asyncParameter struct {
		Description string   `json:"description"`
		Examples    []string `json:"examples,omitempty"`
	}
	asyncOperation struct {
		Action  string      `json:"action"`
		Channel asyncRef    `json:"channel"`
		Summary string      `json:"summary"`
		Reply   *asyncReply `json:"reply,omitempty"`
	}
	asyncReply struct {
		Channel  asyncRef   `json:"channel"`
		Messages []asyncRef `json:"messages"`
	}
	asyncRef struct {
		Ref string `json:"$ref"`
	}
	asyncMessage struct {
		Name        string         `json:"name"`
		Title       string         `json:"title,omitempty"`
		Summary     string         `json:"summary,omitempty"`
		ContentType string         `json:"contentType,omitempty"`
		Payload     map[string]any `json:"payload"`
	}
	asyncComponents struct {
		Messages        map[string]asyncMessage      `json:"messages"`
		Schemas         map[string]*huma.Schema      `json:"schemas"`
		SecuritySchemes map[string]map[string]string `json:"securitySchemes"`
	}
)

func ref(path ...string) asyncRef { return asyncRef{"#/" + strings.Join(path, "/")} }

// asyncBuilder gathers the document. Schemas come from the same Go types that are read and written.
type asyncBuilder struct {
	doc     asyncDocument
	schemas huma.Registry
	// missing are the commands whose results nobody has described.
	missing []string
}

// asyncAPI makes the AsyncAPI document of the MQTT side.
func asyncAPI(version string) (asyncDocument, error) {
	credentials := []asyncRef{ref("components", "securitySchemes", "password")}
	b := &asyncBuilder{
		schemas: newRegistry(),
		doc: asyncDocument{
			AsyncAPI: "3.0.0", Info: asyncInfo{"Parley", version, aboutAsync}, DefaultContentType: "application/json",
			Servers: map[string]asyncServer{
				"tcp": {
					Host: "localhost:1883", Protocol: "mqtt", ProtocolVersion: "5.0", Security: credentials,
					Description: "MQTT over TCP; 3.1.1 as well. With TLS where the operator has it on.",
				},
				"websocket": {
					Host: "localhost:8083", Pathname: "/mqtt", Protocol: "ws", ProtocolVersion: "5.0", Security: credentials,
					Description: "MQTT over WebSocket, for browsers; 3.1.1 as well.",
				},
			},
			Channels: make(map[string]*asyncChannel), Operations: make(map[string]asyncOperation),
			Components: asyncComponents{
				Messages: make(map[string]asyncMessage),
				SecuritySchemes: map[string]map[string]string{"password": {
					"type": "userPassword",
					"description": "Username: the full user name, alice@chat.acme; password: its password or an access token. " +
						"A backend: service/<name>@<account> and its API key.",
				}},
			},
		},
	}
	b.publishTopics()
	b.subscribeTopics()
	b.commands()
	b.tidy()
	if len(b.missing) > 0 {
		return b.doc, fmt.Errorf("bridge: the results of %v are not described", b.missing)
	}
	return b.doc, nil
}

// newRegistry makes a registry of schemas that knows the domain's types.
func newRegistry() huma.Registry {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[domain.RawObject](), reflect.TypeFor[map[string]any]())
	registry.RegisterTypeAlias(reflect.TypeFor[domain.Named](), reflect.TypeFor[any]())
	return registry
}

// channel adds a channel with its parameters, which stand in the address in braces.
func (b *asyncBuilder) channel(id, address, description string, messages ...asyncMessage) {
	known := map[string]asyncParameter{
		"conversation": {Description: "UUID of a conversation, in lower case.", Examples: []string{"0198f3c2-7b1e-7d3a-9c55-3d1f1f0a2b4c"}},
		"username":     {Description: "A full user name.", Examples: []string{"alice@chat.acme"}},
	}
	c := &asyncChannel{Address: address, Description: description, Messages: make(map[string]asyncRef)}
	for name, p := range known {
		if strings.Contains(address, "{"+name+"}") {
			if c.Parameters == nil {
				c.Parameters = make(map[string]asyncParameter)
			}
			c.Parameters[name] = p
		}
	}
	for _, m := range messages {
		b.doc.Components.Messages[m.Name] = m
		c.Messages[m.Name] = ref("components", "messages", m.Name)
	}
	b.doc.Channels[id] = c
}

// receives adds an operation by which clients publish to a channel, sends one by which they are sent something.
func (b *asyncBuilder) receives(id, channel, summary string) {
	b.doc.Operations[id] = asyncOperation{Action: "receive", Channel: ref("channels", channel), Summary: summary}
}

func (b *asyncBuilder) sends(id, channel, summary string) {
	b.doc.Operations[id] = asyncOperation{Action: "send", Channel: ref("channels", channel), Summary: summary}
}

// payloadOf refers to the schema of a type.
func payloadOf[T any](b *asyncBuilder) map[string]any { return b.payload(reflect.TypeFor[T]()) }

func (b *asyncBuilder) payload(t reflect.Type) map[string]any {
	s := b.schemas.Schema(t, true, "")
	return map[string]any{"$ref": s.Ref}
}

// typed gives a message for each type of an event, of a signal or of a notice.
func typed[T any](b *asyncBuilder, types []domain.EventType) []asyncMessage {
	list := make([]asyncMessage, len(types))
	for i, t := range types {
		list[i] = asyncMessage{Name: string(t), Payload: map[string]any{
			"allOf": []any{
				payloadOf[T](b),
				map[string]any{"type": "object", "properties": map[string]any{"type": map[string]any{"const": t}}},
			},
		}}
	}
	return list
}

func (b *asyncBuilder) publishTopics() {
	b.channel("messages", "conversations/{conversation}/messages", "Messages for a conversation.",
		asyncMessage{Name: "message", Summary: "A message to send.", Payload: payloadOf[domain.MessageOnTopic](b)})
	b.receives("publishMessage", "messages", "Send a message; acknowledged when it is committed.")
	b.channel("raw", "conversations/{conversation}/raw", "Messages that are a single part as it is.",
		asyncMessage{
			Name: "rawMessage", ContentType: "application/octet-stream", Payload: map[string]any{},
			Summary: "Any bytes. Content Type (MQTT 5) gives the MIME type, Correlation Data the idempotency key.",
		})
	b.receives("publishRaw", "raw", "Send a message whose single part is the payload.")
	b.channel("typingTopic", "conversations/{conversation}/typing", "What the user is doing in a conversation.",
		asyncMessage{Name: "typingOn", Summary: "Who writes; nothing is the same as {}.", Payload: payloadOf[domain.TypingOnTopic](b)})
	b.receives("publishTyping", "typingTopic", "Tell the others who writes.")
	b.channel("read", "conversations/{conversation}/read", "Up to which event the user has read a conversation.",
		asyncMessage{Name: "readUpTo", Summary: "The mark; nothing is the same as {}.", Payload: payloadOf[domain.ReadOnTopic](b)})
	b.receives("publishRead", "read", "Mark a conversation as read.")
}

func (b *asyncBuilder) subscribeTopics() {
	b.channel("events", "conversations/{conversation}/events",
		"The sequenced events of a conversation, in order, at QoS up to 1; conversations/+/events is all of the user's.",
		typed[domain.Event](b, domain.EventTypes())...)
	b.sends("sendEvents", "events", "What happens in the user's conversations.")
	b.channel("signals", "conversations/{conversation}/signals",
		"What is neither sequenced nor stored, at QoS 0; conversations/+/signals is all of the user's.",
		typed[domain.Signal](b, domain.SignalTypes())...)
	b.sends("sendSignals", "signals", "What is going on in the user's conversations.")
	b.channel("inbox", "users/{username}/inbox", "What concerns the user itself.",
		typed[domain.Notice](b, domain.NoticeTypes())...)
	b.sends("sendNotices", "inbox", "Notices to the user.")
	status := typed[domain.Notice](b, []domain.EventType{domain.NoticeSetStatus})[0]
	status.Name = "status"
	b.channel("status", "users/{username}/status",
		"The presence of any user of the account tree: the present value at once, as a retained message, and then changes.", status)
	b.sends("sendStatus", "status", "Whether a user is there.")
}

// commands adds a channel and an operation with its reply for each command.
func (b *asyncBuilder) commands() {
	whole := huma.SchemaFromType(b.schemas, reflect.TypeFor[domain.Result]())
	failure := b.payload(reflect.TypeFor[domain.Error]())
	var replies []asyncMessage
	for _, name := range domain.CommandNames() {
		request := asyncMessage{
			Name: name + "Request", Title: name, Payload: b.payload(reflect.TypeOf(domain.NewCommand(name)).Elem()),
		}
		b.channel(name, "commands/"+name, "The command "+name+".", request)
		replies = append(replies, asyncMessage{Name: name + "Reply", Title: name, Payload: map[string]any{
			"type": "object", "required": []string{"command"},
			"properties": map[string]any{
				"requestId": map[string]any{"type": "string", "description": "That of the request."},
				"command":   map[string]any{"const": name},
				"result":    pick(whole, b.resultFields(name)...),
				"error":     failure,
			},
			"oneOf": []any{map[string]any{"required": []string{"result"}}, map[string]any{"required": []string{"error"}}},
		}})
	}
	// The name of a command that does not exist comes back in the refusal.
	replies = append(replies, asyncMessage{Name: "unknownCommandReply", Payload: map[string]any{
		"type": "object", "required": []string{"command", "error"},
		"properties": map[string]any{
			"requestId": map[string]any{"type": "string"},
			"command":   map[string]any{"type": "string", "not": map[string]any{"enum": domain.CommandNames()}},
			"error":     failure,
		},
	}})
	// What MQTT 3.1.1 cannot refuse in an acknowledgement.
	replies = append(replies, b.doc.Components.Messages[string(domain.NoticeError)])
	b.channel("replies", "users/{username}/replies",
		"Replies to commands, and to publishes that ask for one; a Response Topic (MQTT 5) may lie below this topic. Those of a "+
			"service are at users/service/<name>@<account>/replies.", replies...)
	b.sends("sendReplies", "replies", "The outcome of commands.")
	for _, name := range domain.CommandNames() {
		b.receives(name, name, "Run the command "+name+".")
		op := b.doc.Operations[name]
		op.Reply = &asyncReply{Channel: ref("channels", "replies"), Messages: []asyncRef{ref("channels", "replies", "messages", name+"Reply")}}
		b.doc.Operations[name] = op
	}
}

// tidy takes the schemas over, as [tidy] does for OpenAPI: what Parley sends may grow.
func (b *asyncBuilder) tidy() {
	schemas := b.schemas.Map()
	embeddedMayMiss(schemas)
	asked := make(map[string]bool)
	for id, op := range b.doc.Operations {
		if op.Action != "receive" {
			continue
		}
		for name := range b.doc.Channels[b.channelOf(id)].Messages {
			if r, ok := b.doc.Components.Messages[name].Payload["$ref"].(string); ok {
				reach(schemas, &huma.Schema{Ref: r}, asked)
			}
		}
	}
	for name, s := range schemas {
		neverNull(s)
		if !asked[name] {
			s.AdditionalProperties = nil
		}
	}
	b.doc.Components.Schemas = maps.Clone(schemas)
}

func (b *asyncBuilder) channelOf(operation string) string {
	return refName(b.doc.Operations[operation].Channel.Ref)
}

// resultFields names the fields of a command's result (protocol.md section 6); those with a ? may be missing. One without
// an entry is noted: an empty entry means that there are no fields.
func (b *asyncBuilder) resultFields(command string) []string {
	fields, ok := map[string][]string{
		"getMe":                   {"user"},
		"getUser":                 {"user"},
		"getUsers":                {"users"},
		"editUser":                {"user"},
		"managePushNotifications": {"user"},
		"issueTokens":             {"accessToken", "accessExpires", "refreshToken", "refreshExpires"},
		"revokeTokens":            {},
		"setStatus":               {"status"},
		"subscribe":               {"users"},
		"unsubscribe":             {"users"},
		"unsubscribeFromAll":      {"users"},
		"getSubscriptions":        {"users"},
		"createConversation":      {"conversation", "existing"},
		"getConversation":         {"conversation"},
		"getConversations":        {"conversations"},
		"addParticipants":         {"conversation"},
		"removeParticipants":      {"conversation"},
		"getPublicConversations":  {"uuids", "nextCursor?"},
		"joinConversation":        {"conversation"},
		"leaveConversation":       {"conversation"},
		"editConversation":        {"conversation"},
		"editParticipants":        {"conversation"},
		"removeConversation":      {},
		"muteConversation":        {"conversation"},
		"sendMessage":             {"message", "duplicate?"},
		"editMessage":             {"message"},
		"removeMessage":           {},
		"typing":                  {},
		"setWill":                 {},
		"clearWill":               {},
		"markAsRead":              {},
		"getReceipts":             {"recipientStatus", "readStatus", "deliveryStatus", "lastDeliveredAt?", "lastReadAt?"},
		"getUnread":               {"unread"},
		"getContent":              {"content"},
		"announce":                {"announcement", "duplicate?"},
		"getAnnouncements":        {"announcements", "nextCursor?"},
		"markAnnouncementsRead":   {},
		"removeAnnouncement":      {},
		"retransmitEvents":        {"events", "from", "to"},
	}[command]
	if !ok {
		b.missing = append(b.missing, command)
	}
	return fields
}

// serveAsyncAPI serves the document.
func (a *api) serveAsyncAPI() error {
	doc, err := asyncAPI(a.Version)
	if err != nil {
		return err
	}
	spec, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	a.mux.HandleFunc("GET "+asyncSpecPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(spec) // a client that has gone needs no document
	})
	return nil
}

// embeddedMayMiss corrects what huma cannot know: the fields of an embedded pointer, which are absent together, it takes
// for always present.
func embeddedMayMiss(schemas map[string]*huma.Schema) {
	for _, part := range []struct {
		whole string
		part  reflect.Type
	}{
		{"User", reflect.TypeFor[domain.Own]()}, {"Notice", reflect.TypeFor[domain.Unread]()}, {"Notice", reflect.TypeFor[domain.Status]()},
	} {
		whole := schemas[part.whole]
		if whole == nil {
			continue
		}
		for f := range part.part.Fields() {
			field, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			whole.Required = slices.DeleteFunc(whole.Required, func(s string) bool { return s == field })
		}
	}
}
