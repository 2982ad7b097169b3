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
	UUIDs  []string `query:"uuid,explode" doc:"These conversations, at most 30; without, a list."`
	Public bool     `query:"public" doc:"List the uuids of the conversations that users may join."`
	Cursor string   `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit  number   `query:"limit" doc:"Conversations of a page: 30 if absent, at most 100; of uuids 100, at most 1000."`
}

type addParticipantsRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		Participants domain.NewParticipants `json:"participants" doc:"Each an object, or in short a number or a full name."`
		domain.Meta
	} `nameHint:"AddParticipantsRequest"`
}

type removeParticipantsBody struct {
	Participants domain.UserRefs `json:"participants" doc:"Each an object, or in short a number or a full name."`
	domain.Meta
}

type removeParticipantsRequest struct {
	UUID      string                  `path:"uuid" doc:"The conversation."`
	Usernames []string                `query:"username,explode" doc:"Instead of a body: names of those to remove."`
	UserIDs   []int64                 `query:"userId,explode" doc:"Instead of a body: numbers of those to remove."`
	Body      *removeParticipantsBody `nameHint:"RemoveParticipantsRequest"`
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
		summary: "Get or list conversations",
		description: "With uuid, which may be repeated: exactly these. Without: a list in pages, of a user's own conversations or " +
			"of those of a service's account tree; with public=true the uuids of those that users may join.",
		result: a.result("conversations?", "uuids?", "nextCursor?"), refusals: about,
	}, a.conversations)
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

// conversations gives the conversations that are named, or a page of a list.
func (a *api) conversations(ctx context.Context, c caller, in *listConversationsRequest) (reply, error) {
	limit := 0
	if n := in.Limit.pointer(); n != nil {
		if *n < 1 || *n > 1000 {
			return reply{}, domain.Errorf(domain.InvalidRequest, "limit is 1 to 1000")
		}
		limit = int(*n)
	}
	switch {
	case len(in.UUIDs) > 0 && (in.Public || in.Cursor != "" || limit != 0):
		return reply{}, domain.Errorf(domain.InvalidRequest, "uuid does not go together with a list")
	case in.Public:
		return a.run(ctx, c.principal, &domain.GetPublicConversations{Cursor: in.Cursor, Limit: limit})
	case len(in.UUIDs) == 0:
		return a.run(ctx, c.principal, &domain.ListConversations{Cursor: in.Cursor, Limit: limit})
	}
	cmd := &domain.GetConversations{}
	for _, s := range split(in.UUIDs) {
		id, err := domain.ParseConversationID(s)
		if err != nil {
			return reply{}, domain.Errorf(domain.InvalidRequest, "uuid: %s", err.Error())
		}
		cmd.UUIDs = append(cmd.UUIDs, id)
	}
	return a.run(ctx, c.principal, cmd)
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
