package bridge

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

const tagConversations = "Conversations"

type createConversationRequest struct {
	Body domain.CreateConversation
}

type conversationPath struct {
	UUID string `path:"uuid" doc:"The conversation."`
}

type listConversationsRequest struct {
	UUIDs []string `query:"uuid,explode" doc:"The conversations, at most 30."`
}

type addParticipantsRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		Participants []domain.NewParticipant `json:"participants"`
		domain.Meta
	} `nameHint:"AddParticipantsRequest"`
}

type removeParticipantsBody struct {
	Participants []domain.UserRef `json:"participants"`
	domain.Meta
}

type removeParticipantsRequest struct {
	UUID      string                  `path:"uuid" doc:"The conversation."`
	Usernames []string                `query:"username,explode" doc:"Instead of a body: names of those to remove."`
	UserIDs   []int64                 `query:"userId,explode" doc:"Instead of a body: numbers of those to remove."`
	Body      *removeParticipantsBody `nameHint:"RemoveParticipantsRequest"`
}

type sendMessageRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		domain.MessageRequest
		domain.Meta
		As domain.Username `json:"as,omitempty" doc:"Send on behalf of this user; for services and the admin key."`
	} `nameHint:"SendMessageRequest"`
}

type eventsRequest struct {
	UUID  string `path:"uuid" doc:"The conversation."`
	From  number `query:"from" doc:"Number of the first event."`
	To    number `query:"to" doc:"Number of the last event."`
	Count number `query:"count" doc:"How many events, 1 to 100."`
}

// number is an integer parameter that may be missing.
type number struct {
	Value int64 // exported for huma, which sets it by reflection
	given bool
}

func (a *api) conversationRoutes() {
	about := []domain.Code{domain.AccessDenied, domain.ConversationNotFound, domain.ConversationRemoved}
	adding := slices.Concat(about, []domain.Code{domain.UserNotFound, domain.AlreadyParticipant, domain.DirectNoAdd})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations", id: "createConversation", tag: tagConversations, creates: true,
		status: http.StatusCreated, existing: true, summary: "Create a conversation",
		description: "A direct or distinct conversation that exists already is given with status 200 and existing set.",
		result:      a.result("conversation", "existing"),
		refusals: []domain.Code{
			domain.AccessDenied, domain.UserNotFound, domain.DirectNotPublicOrUber, domain.DirectNeedsTwo, domain.DistinctConflict,
		},
	}, func(ctx context.Context, c caller, in *createConversationRequest) (reply, error) {
		return a.create(ctx, c.principal, &in.Body)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/conversations", id: "getConversations", tag: tagConversations, status: http.StatusOK,
		summary: "Get several conversations", result: a.result("conversations"), refusals: about,
	}, func(ctx context.Context, c caller, in *listConversationsRequest) (reply, error) {
		cmd := &domain.GetConversations{}
		for _, s := range split(in.UUIDs) {
			id, err := domain.ParseConversationID(s)
			if err != nil {
				return reply{}, domain.Errorf(domain.InvalidRequest, "uuid: %s", err.Error())
			}
			cmd.UUIDs = append(cmd.UUIDs, id)
		}
		return a.run(ctx, c.principal, cmd)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/conversations/{uuid}", id: "getConversation", tag: tagConversations, status: http.StatusOK,
		summary: "Get a conversation", result: a.result("conversation"), refusals: about,
	}, func(ctx context.Context, c caller, in *conversationPath) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, &domain.GetConversation{UUID: id})
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/participants", id: "addParticipants", tag: tagConversations,
		creates: true, status: http.StatusOK, summary: "Add participants, all or none",
		result: a.result("conversation"), refusals: adding,
	}, func(ctx context.Context, c caller, in *addParticipantsRequest) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, &domain.AddParticipants{UUID: id, Participants: in.Body.Participants, Meta: in.Body.Meta})
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/conversations/{uuid}/participants", id: "removeParticipants", tag: tagConversations,
		status: http.StatusOK, summary: "Remove participants, all or none",
		description: "Those to remove are named in the body, or in the query where bodies of DELETE get lost.",
		result:      a.result("conversation"),
		refusals:    slices.Concat(about, []domain.Code{domain.UserNotFound, domain.NotParticipant, domain.DirectNoRemove}),
	}, func(ctx context.Context, c caller, in *removeParticipantsRequest) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, in.command(id))
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/messages", id: "sendMessage", tag: tagConversations, creates: true,
		status: http.StatusCreated, existing: true, limit: a.Limits.MessageBytes, summary: "Send a message",
		description: "A message whose id was used before by the same sender in the conversation is given with status 200, and so " +
			"is one for those online only (options.transient).",
		result:   a.result("message"),
		refusals: slices.Concat(about, []domain.Code{domain.UserNotFound, domain.NotParticipant}),
	}, a.sendMessage)
	handle(a, route{
		method: http.MethodGet, path: "/v1/conversations/{uuid}/events", id: "getEvents", tag: tagConversations, status: http.StatusOK,
		summary: "Get a stretch of a conversation's log", description: "Exactly two of from, to and count are given.",
		result: a.result("events", "from", "to"),
		refusals: slices.Concat(about, []domain.Code{
			domain.CountOutOfRange, domain.SequenceOutOfRange, domain.FromAfterTo, domain.TooManyRangeArguments,
			domain.TooFewRangeArguments,
		}),
	}, func(ctx context.Context, c caller, in *eventsRequest) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, &domain.RetransmitEvents{
			Conversation: id, From: in.From.pointer(), To: in.To.pointer(), Count: in.Count.pointer(),
		})
	})
}

// sendMessage posts a message: as the caller, or on behalf of a user.
func (a *api) sendMessage(ctx context.Context, c caller, in *sendMessageRequest) (reply, error) {
	id, err := conversationID(in.UUID)
	if err != nil {
		return reply{}, err
	}
	cmd := &domain.SendMessage{Conversation: id, MessageRequest: in.Body.MessageRequest, Meta: in.Body.Meta}
	if cmd.ClientID == "" && c.key != "" {
		cmd.ClientID = messageID(c.key)
	}
	p := c.principal
	if in.Body.As != "" {
		if p, err = a.actAs(ctx, p, in.Body.As); err != nil {
			return reply{}, err
		}
	}
	if cmd.Kind() == domain.Signalling {
		return a.run(ctx, p, cmd) // for those online only: nothing is created
	}
	return a.create(ctx, p, cmd)
}

// actAs gives a backend that acts as a user whom it may know of.
func (a *api) actAs(ctx context.Context, p domain.Principal, as domain.Username) (domain.Principal, error) {
	if !p.IsBackend() {
		return domain.Principal{}, domain.Errorf(domain.AccessDenied, "only a service sends on behalf of a user")
	}
	cmd := &domain.GetUser{UserRef: domain.UserRef{Username: as}}
	receipt, err := a.do(ctx, p, cmd)
	if err != nil {
		return domain.Principal{}, err
	}
	if receipt.Result == nil || receipt.Result.User == nil || receipt.Result.User.Deleted {
		return domain.Principal{}, domain.Errorf(domain.UserNotFound, "no such user to send for")
	}
	return p.OnBehalfOf(*receipt.Result.User), nil
}

// do checks and runs a command.
func (a *api) do(ctx context.Context, p domain.Principal, cmd domain.Command) (domain.Receipt, error) {
	if err := domain.Check(cmd, a.Limits); err != nil {
		return domain.Receipt{}, err
	}
	return a.Do(ctx, p, cmd)
}

// run runs a command and answers with its result.
func (a *api) run(ctx context.Context, p domain.Principal, cmd domain.Command) (reply, error) {
	receipt, err := a.do(ctx, p, cmd)
	if err != nil {
		return reply{}, err
	}
	if receipt.Result == nil {
		return reply{Body: domain.Result{}}, nil
	}
	return reply{Body: receipt.Result}, nil
}

// create is run for commands that create something: the status tells whether it is new.
func (a *api) create(ctx context.Context, p domain.Principal, cmd domain.Command) (reply, error) {
	receipt, err := a.do(ctx, p, cmd)
	if err != nil {
		return reply{}, err
	}
	out := reply{Status: http.StatusCreated, Body: receipt.Result}
	if r := receipt.Result; receipt.Duplicate || (r != nil && r.Existing != nil && *r.Existing) {
		out.Status = http.StatusOK
	}
	return out, nil
}

// conversationID gives the conversation of a path. One that cannot exist does not.
func conversationID(s string) (domain.ConversationID, error) {
	id, err := domain.ParseConversationID(s)
	if err != nil || id.IsZero() {
		return id, domain.Errorf(domain.ConversationNotFound, "no such conversation")
	}
	return id, nil
}

// command gives the command that removes the participants of body and query.
func (r *removeParticipantsRequest) command(id domain.ConversationID) *domain.RemoveParticipants {
	cmd := &domain.RemoveParticipants{UUID: id}
	if r.Body != nil {
		cmd.Participants, cmd.Meta = r.Body.Participants, r.Body.Meta
	}
	for _, name := range split(r.Usernames) {
		cmd.Participants = append(cmd.Participants, domain.UserRef{Username: domain.Username(name)})
	}
	for _, n := range r.UserIDs {
		cmd.Participants = append(cmd.Participants, domain.UserRef{UserID: domain.UserID(n)})
	}
	return cmd
}

// Receiver implements huma.ParamWrapper.
func (n *number) Receiver() reflect.Value { return reflect.ValueOf(n).Elem().FieldByName("Value") }

// OnParamSet implements huma.ParamReactor.
func (n *number) OnParamSet(given bool, _ any) { n.given = given }

// Schema implements huma.SchemaProvider.
func (n *number) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64"}
}

func (n *number) pointer() *int64 {
	if !n.given {
		return nil
	}
	return &n.Value
}
