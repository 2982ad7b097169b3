package bridge

import (
	"context"
	"net/http"

	"github.com/parley-im/parley/domain"
)

const tagAnnouncements = "Announcements"

type announceRequest struct {
	Body struct {
		domain.AnnouncementRequest
		domain.Meta
		later
	} `nameHint:"AnnounceRequest"`
}

type listAnnouncementsRequest struct {
	Unread bool   `query:"unread" doc:"Leave out those marked as read."`
	Cursor string `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit  number `query:"limit" doc:"Announcements of a page: 50 if absent, at most 100."`
}

type readAnnouncementsRequest struct {
	Body *domain.MarkAnnouncementsRead
}

type oneAnnouncementRequest struct {
	Announcement string `path:"announcement" doc:"UUID of the announcement."`
}

func (a *api) announcementRoutes() {
	handle(a, route{
		method: http.MethodPost, path: "/v1/announcements", id: "announce", tag: tagAnnouncements, creates: true, shows: true,
		status: http.StatusCreated, existing: true, later: a.Schedules != nil, summary: "Tell users something",
		description: "For services and the admin key: all of the users are told, or nobody. An announcement whose id was used before " +
			"by the same service is given with status 200. With delay or at it is scheduled.",
		result: a.result("announcement", "duplicate?"), refusals: []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *announceRequest) (reply, error) {
		cmd := &domain.Announce{AnnouncementRequest: in.Body.AnnouncementRequest, Meta: in.Body.Meta}
		if cmd.ClientID == "" && c.key != "" {
			cmd.ClientID = messageID(c.key)
		}
		if in.Body.isLater() {
			return a.schedule(ctx, c.principal, cmd, in.Body.later)
		}
		return a.create(ctx, c.principal, cmd)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/announcements", id: "getAnnouncements", tag: tagAnnouncements, status: http.StatusOK,
		summary: "Get one's own announcements", description: "For users; the newest first, in pages.",
		result: a.result("announcements", "nextCursor?"), refusals: []domain.Code{domain.AccessDenied},
	}, func(ctx context.Context, c caller, in *listAnnouncementsRequest) (reply, error) {
		limit, err := in.Limit.limit(100)
		if err != nil {
			return reply{}, err
		}
		return a.run(ctx, c.principal, &domain.GetAnnouncements{Unread: in.Unread, Cursor: in.Cursor, Limit: limit})
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/announcements/{announcement}", id: "removeAnnouncement", tag: tagAnnouncements,
		status: http.StatusOK, summary: "Take an announcement back", description: "For services and the admin key. What it said is gone, " +
			"its recipients see it no more, and its id stays used. What was read cannot be unread.",
		result: a.result(), refusals: []domain.Code{domain.AccessDenied, domain.NotFound},
	}, func(ctx context.Context, c caller, in *oneAnnouncementRequest) (reply, error) {
		id, err := domain.ParseAnnouncementID(in.Announcement)
		if err != nil { // one that cannot exist does not
			return reply{}, domain.Errorf(domain.NotFound, "no such announcement")
		}
		return a.run(ctx, c.principal, &domain.RemoveAnnouncement{Announcement: id})
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/announcements/read", id: "markAnnouncementsRead", tag: tagAnnouncements,
		status: http.StatusOK, summary: "Mark announcements as read", description: "For users. Without announcements: all.",
		result: a.result(), refusals: []domain.Code{domain.AccessDenied},
	}, func(ctx context.Context, c caller, in *readAnnouncementsRequest) (reply, error) {
		if in.Body == nil {
			in.Body = &domain.MarkAnnouncementsRead{}
		}
		return a.run(ctx, c.principal, in.Body)
	})
}
