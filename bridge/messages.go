package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/parley-im/parley/domain"
)

type sendMessageRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		domain.MessageRequest
		domain.Meta
		As domain.Username `json:"as,omitempty" doc:"Send on behalf of this user; for services and the admin key."`
		later
	} `nameHint:"SendMessageRequest"`
}

type removeMessageRequest struct {
	UUID    string `path:"uuid" doc:"The conversation."`
	Message string `path:"message" doc:"The message."`
	Body    *struct {
		Reason *domain.Reason `json:"reason,omitempty" doc:"Why, for backends that remove a message of somebody else; its code is positive."`
	} `required:"false"`
}

type editMessageRequest struct {
	UUID    string `path:"uuid" doc:"The conversation."`
	Message string `path:"message" doc:"The message."`
	Body    struct {
		domain.MessageEdit
		domain.Meta
	} `nameHint:"EditMessageRequest"`
}

func (a *api) messageRoutes() {
	about := []domain.Code{domain.AccessDenied, domain.ConversationNotFound, domain.ConversationRemoved}
	rewriting := slices.Concat(about, []domain.Code{domain.MessageNotFound, domain.MessageRemoved})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/messages", id: "sendMessage", tag: tagConversations, creates: true, shows: true,
		status: http.StatusCreated, existing: true, later: a.Schedules != nil, limit: a.Limits.MessageBytes, summary: "Send a message",
		description: "A message whose id was used before by the same sender in the conversation is given with status 200, and so " +
			"is one for those online only (options.transient). With delay or at, for services, it is scheduled.",
		result:   a.result("message", "duplicate?"),
		refusals: slices.Concat(about, []domain.Code{domain.UserNotFound, domain.NotParticipant}),
	}, a.sendMessage)
	handle(a, route{
		method: http.MethodPatch, path: "/v1/conversations/{uuid}/messages/{message}", id: "editMessage", tag: tagConversations,
		status: http.StatusOK, limit: a.Limits.MessageBytes, summary: "Edit a message",
		description: "What is absent or null stays as it is.",
		result:      a.result("message"), refusals: rewriting,
	}, func(ctx context.Context, c caller, in *editMessageRequest) (reply, error) {
		id, message, err := messageIDs(in.UUID, in.Message)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, &domain.EditMessage{
			Conversation: id, Message: message, MessageEdit: in.Body.MessageEdit, Meta: in.Body.Meta,
		})
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/conversations/{uuid}/messages/{message}", id: "removeMessage", tag: tagConversations,
		status: http.StatusOK, summary: "Remove a message", description: "What it said is nowhere any more.",
		result: a.result(), refusals: rewriting,
	}, func(ctx context.Context, c caller, in *removeMessageRequest) (reply, error) {
		id, message, err := messageIDs(in.UUID, in.Message)
		if err != nil {
			return reply{}, err
		}
		remove := &domain.RemoveMessage{Conversation: id, Message: message}
		if in.Body != nil {
			remove.Reason = in.Body.Reason
		}
		return a.run(ctx, c.principal, remove)
	})
}

// messageIDs gives the conversation and the message of a path. What cannot exist does not.
func messageIDs(uuid, text string) (domain.ConversationID, domain.MessageID, error) {
	id, err := conversationID(uuid)
	if err != nil {
		return id, domain.MessageID{}, err
	}
	message, err := domain.ParseMessageID(text)
	if err != nil || message.IsZero() {
		return id, message, domain.Errorf(domain.MessageNotFound, "no such message in this conversation")
	}
	return id, message, nil
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
	if in.Body.isLater() {
		return a.schedule(ctx, p, cmd, in.Body.later)
	}
	if cmd.Kind() == domain.Signalling {
		// For those online only: nothing is created.
		out, err := a.run(ctx, p, cmd)
		out.Status = http.StatusOK
		return out, err
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

// place is what is remembered of an answer that shows a message: where the message is. What it says is kept in the log
// alone, so that it can be removed; and what is scheduled where it can be cancelled. An announcement is remembered as it is.
type place struct {
	Message *struct {
		Conversation domain.ConversationID `json:"conversation"`
		Seq          domain.Seq            `json:"seq"`
	} `json:"message,omitempty"`
	Scheduled *struct {
		ID domain.ScheduledID `json:"uuid"`
	} `json:"scheduled,omitempty"`
	Announcement json.RawMessage `json:"announcement,omitempty"`
}

// placeOf gives what is remembered of an answer that shows a message.
func placeOf(body []byte) ([]byte, error) {
	var p place
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

// shown makes the answer again of what was remembered: with the message as it is now, or with its place alone for a caller
// who may not read it any more.
func (a *api) shown(ctx context.Context, caller domain.Principal, remembered []byte) ([]byte, error) {
	var p place
	if err := json.Unmarshal(remembered, &p); err != nil {
		return nil, err
	}
	if p.Announcement != nil {
		return remembered, nil
	}
	if p.Scheduled != nil {
		n, err := a.Schedules.Get(ctx, caller, p.Scheduled.ID)
		if err != nil {
			return nil, err
		}
		return encode(scheduledAnswer{n})
	}
	result := &domain.Result{}
	switch {
	case p.Message == nil:
	case p.Message.Seq < 1: // it was for those online only, and is nowhere
		result.Message = &domain.Message{Conversation: p.Message.Conversation}
	default:
		seq := int64(p.Message.Seq)
		receipt, err := a.do(ctx, caller, &domain.RetransmitEvents{Conversation: p.Message.Conversation, From: &seq, To: &seq})
		switch {
		case err == nil && receipt.Result != nil && len(receipt.Result.Events) == 1:
			result.Message = receipt.Result.Events[0].Message
		case err == nil || domain.Unreadable(err):
			result.Message = domain.PlaceOf(p.Message.Conversation, p.Message.Seq)
		default:
			return nil, err
		}
	}
	return encode(result)
}

// encode makes JSON as huma does.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
