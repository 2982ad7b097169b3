package bridge

import (
	"context"
	"net/http"
	"slices"

	"github.com/parley-im/parley/domain"
)

type editConversationRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		domain.ConversationEdit
		domain.Meta
	} `nameHint:"EditConversationRequest"`
}

type editParticipantsRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		Participants []domain.EditedParticipant `json:"participants"`
		domain.Meta
	} `nameHint:"EditParticipantsRequest"`
}

type muteConversationRequest struct {
	UUID string `path:"uuid" doc:"The conversation."`
	Body struct {
		Muted *bool `json:"muted"`
		domain.Meta
	} `nameHint:"MuteConversationRequest"`
}

// changeRoutes are those by which conversations that exist are changed, but for their participants' coming and going.
func (a *api) changeRoutes() {
	about := []domain.Code{domain.AccessDenied, domain.ConversationNotFound, domain.ConversationRemoved}
	handle(a, route{
		method: http.MethodPatch, path: "/v1/conversations/{uuid}", id: "editConversation", tag: tagConversations,
		status: http.StatusOK, summary: "Edit a conversation", description: "What is absent or null stays as it is.",
		result: a.result("conversation"), refusals: append(slices.Clone(about), domain.DirectNotPublicOrUber),
	}, func(ctx context.Context, c caller, in *editConversationRequest) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.EditConversation{UUID: id, ConversationEdit: in.Body.ConversationEdit, Meta: in.Body.Meta}
		})
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/conversations/{uuid}", id: "removeConversation", tag: tagConversations,
		status: http.StatusOK, summary: "Remove a conversation for all", result: a.result(), refusals: about,
	}, func(ctx context.Context, c caller, in *conversationPath) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.RemoveConversation{UUID: id}
		})
	})
	handle(a, route{
		method: http.MethodPatch, path: "/v1/conversations/{uuid}/participants", id: "editParticipants", tag: tagConversations,
		status: http.StatusOK, summary: "Change permissions of participants, all or none",
		description: "Permissions that are absent stay as they are.",
		result:      a.result("conversation"),
		refusals:    slices.Concat(about, []domain.Code{domain.UserNotFound, domain.NotParticipant}),
	}, func(ctx context.Context, c caller, in *editParticipantsRequest) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.EditParticipants{UUID: id, Participants: in.Body.Participants, Meta: in.Body.Meta}
		})
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/join", id: "joinConversation", tag: tagConversations,
		status: http.StatusOK, summary: "Join a public conversation", result: a.result("conversation"),
		refusals: slices.Concat(about, []domain.Code{domain.AlreadyParticipant, domain.JoinNotAvailable, domain.DirectNoJoin}),
	}, func(ctx context.Context, c caller, in *conversationPath) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.JoinConversation{UUID: id}
		})
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/leave", id: "leaveConversation", tag: tagConversations,
		status: http.StatusOK, summary: "Leave a conversation", result: a.result("conversation"),
		refusals: slices.Concat(about, []domain.Code{domain.NotParticipant, domain.DirectNoLeave}),
	}, func(ctx context.Context, c caller, in *conversationPath) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.LeaveConversation{UUID: id}
		})
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/conversations/{uuid}/mute", id: "muteConversation", tag: tagConversations,
		status: http.StatusOK, summary: "Want no pushes about a conversation, or want them again",
		result: a.result("conversation"), refusals: about,
	}, func(ctx context.Context, c caller, in *muteConversationRequest) (reply, error) {
		return a.about(ctx, c, in.UUID, func(id domain.ConversationID) domain.Command {
			return &domain.MuteConversation{UUID: id, Muted: in.Body.Muted, Meta: in.Body.Meta}
		})
	})
}

// about runs a command about the conversation of a path.
func (a *api) about(ctx context.Context, c caller, uuid string, command func(domain.ConversationID) domain.Command) (reply, error) {
	id, err := conversationID(uuid)
	if err != nil {
		return reply{}, err
	}
	return a.run(ctx, c.principal, command(id))
}
