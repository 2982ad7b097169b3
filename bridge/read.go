package bridge

import (
	"context"
	"net/http"
	"slices"

	"github.com/parley-im/parley/domain"
)

type markAsReadBody struct {
	Seq *int64 `json:"seq,omitempty" doc:"1 to the last event; 0: everything but event 1 is unread; absent: the last event."`
	domain.Meta
}

type markAsReadRequest struct {
	UUID string          `path:"uuid" doc:"The conversation."`
	Body *markAsReadBody `nameHint:"MarkAsReadRequest"`
}

type receiptsRequest struct {
	UUID    string `path:"uuid" doc:"The conversation."`
	Message string `path:"message" doc:"The message's uuid."`
}

// readRoutes are about what was delivered and read.
func (a *api) readRoutes() {
	about := []domain.Code{domain.AccessDenied, domain.ConversationNotFound, domain.ConversationRemoved}
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/read", id: "markAsRead", tag: tagConversations, status: http.StatusOK,
		summary: "Mark a conversation as read", description: "Up to an event, also an earlier one than before; without one, up to the last.",
		result: a.result(), refusals: slices.Concat(about, []domain.Code{domain.SequenceOutOfRange}),
	}, func(ctx context.Context, c caller, in *markAsReadRequest) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		cmd := &domain.MarkAsRead{Conversation: id}
		if in.Body != nil {
			cmd.Seq, cmd.Meta = in.Body.Seq, in.Body.Meta
		}
		return a.run(ctx, c.principal, cmd)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/unread", id: "getUnread", tag: tagConversations, status: http.StatusOK,
		summary: "Get what is unread in the user's conversations", description: "Those with the newest messages come first.",
		result: a.result("unread"), refusals: []domain.Code{domain.AccessDenied},
	}, func(ctx context.Context, c caller, _ *struct{}) (reply, error) {
		return a.run(ctx, c.principal, &domain.GetUnread{})
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/conversations/{uuid}/messages/{message}/receipts", id: "getReceipts", tag: tagConversations,
		status: http.StatusOK, summary: "Get who has got and read a message",
		result:   a.result("recipientStatus", "readStatus", "deliveryStatus", "lastDeliveredAt?", "lastReadAt?"),
		refusals: slices.Concat(about, []domain.Code{domain.MessageNotFound, domain.MessageRemoved}),
	}, func(ctx context.Context, c caller, in *receiptsRequest) (reply, error) {
		id, err := conversationID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		message, err := domain.ParseMessageID(in.Message)
		if err != nil || message.IsZero() {
			return reply{}, domain.Errorf(domain.MessageNotFound, "no such message")
		}
		return a.run(ctx, c.principal, &domain.GetReceipts{Conversation: id, Message: message})
	})
}
