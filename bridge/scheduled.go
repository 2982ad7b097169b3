package bridge

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/parley-im/parley/domain"
)

// Schedules sends messages and announcements of services later. Any goroutine may call it; refusals are *domain.Error.
type Schedules interface {
	// Schedule stores what is to be sent at a time, in milliseconds since 1970, or gives what was scheduled under its client id.
	Schedule(ctx context.Context, p domain.Principal, c domain.Command, at int64) (domain.Scheduled, error)
	Get(ctx context.Context, p domain.Principal, id domain.ScheduledID) (domain.Scheduled, error)
	List(ctx context.Context, p domain.Principal, q domain.ScheduledQuery) ([]domain.Scheduled, error)
	Cancel(ctx context.Context, p domain.Principal, id domain.ScheduledID) error
}

// later says when something is to be sent.
type later struct {
	Delay *int64 `json:"delay,omitempty" doc:"Send it after so many seconds, up to 30 days; for services and the admin key."`
	At    *int64 `json:"at,omitempty" doc:"Send it at this time, in milliseconds since 1970, up to 30 days ahead; for services and the admin key."`
}

// isLater reports whether it is to be sent later at all.
func (l *later) isLater() bool { return l.At != nil || l.Delay != nil && *l.Delay != 0 }

type scheduledAnswer struct {
	Scheduled domain.Scheduled `json:"scheduled"`
}

type scheduledPage struct {
	Scheduled  []domain.Scheduled `json:"scheduled"`
	NextCursor string             `json:"nextCursor,omitempty" doc:"Set when there are more; give it as cursor."`
}

type scheduledPath struct {
	UUID string `path:"uuid" doc:"What is scheduled."`
}

type listScheduledRequest struct {
	State  string `query:"state" doc:"pending (also what is being sent; the default), sent, refused or cancelled."`
	Cursor string `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit  number `query:"limit" doc:"How many a page has: 50 if absent, at most 100."`
}

func (a *api) scheduledRoutes() {
	if a.Schedules == nil {
		return
	}
	handle(a, route{
		method: http.MethodGet, path: "/v1/scheduled", id: "listScheduled", tag: tagAnnouncements, status: http.StatusOK,
		summary: "List what is scheduled",
		description: "For services, of their account tree, and the admin key; in the order in which it is due, without what is " +
			"to be sent. What became of it is known for 7 days.",
		result: schemaOf[scheduledPage](a), refusals: []domain.Code{domain.AccessDenied},
	}, a.listScheduled)
	handle(a, route{
		method: http.MethodGet, path: "/v1/scheduled/{uuid}", id: "getScheduled", tag: tagAnnouncements, status: http.StatusOK,
		summary: "Get something scheduled", result: schemaOf[scheduledAnswer](a),
		refusals: []domain.Code{domain.AccessDenied, domain.NotFound},
	}, func(ctx context.Context, c caller, in *scheduledPath) (reply, error) {
		id, err := scheduledID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		n, err := a.Schedules.Get(ctx, c.principal, id)
		return reply{Body: scheduledAnswer{n}}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/scheduled/{uuid}", id: "cancelScheduled", tag: tagAnnouncements,
		status: http.StatusNoContent, summary: "Cancel something scheduled",
		description: "It is not sent then, for certain. already-sent: it is too late.",
		refusals:    []domain.Code{domain.AccessDenied, domain.NotFound, domain.AlreadySent},
	}, func(ctx context.Context, c caller, in *scheduledPath) (reply, error) {
		id, err := scheduledID(in.UUID)
		if err != nil {
			return reply{}, err
		}
		return reply{}, a.Schedules.Cancel(ctx, c.principal, id)
	})
}

// schedule has a command carried out later.
func (a *api) schedule(ctx context.Context, p domain.Principal, c domain.Command, l later) (reply, error) {
	switch {
	case a.Schedules == nil:
		return reply{}, domain.Errorf(domain.InvalidRequest, "nothing is sent later here")
	case l.At != nil && l.Delay != nil:
		return reply{}, domain.Errorf(domain.InvalidRequest, "delay and at do not go together")
	}
	if err := domain.Check(c, a.Limits); err != nil {
		return reply{}, err
	}
	var at int64
	if l.At != nil {
		at = *l.At
	} else {
		most := int64(domain.MaxAhead.Seconds())
		if *l.Delay < 0 || *l.Delay > most {
			return reply{}, domain.Errorf(domain.InvalidRequest, "delay is 0 to %d seconds, which are 30 days", most)
		}
		at = a.Now().UnixMilli() + *l.Delay*1000
	}
	n, err := a.Schedules.Schedule(ctx, p, c, at)
	return reply{Status: http.StatusAccepted, Body: scheduledAnswer{n}}, err
}

// listScheduled gives a page of what is scheduled.
func (a *api) listScheduled(ctx context.Context, c caller, in *listScheduledRequest) (reply, error) {
	q := domain.ScheduledQuery{State: domain.ScheduledState(in.State)}
	switch q.State {
	case "":
		q.State = domain.ScheduledPending
	case domain.ScheduledPending, domain.ScheduledSent, domain.ScheduledRefused, domain.ScheduledCancelled:
	default:
		return reply{}, domain.Errorf(domain.InvalidRequest, "state is one of pending, sent, refused, cancelled")
	}
	limit, err := in.Limit.limit(100)
	if err != nil {
		return reply{}, err
	}
	if limit == 0 {
		limit = 50
	}
	if q.After, q.AfterID, err = parseScheduledCursor(in.Cursor); err != nil {
		return reply{}, err
	}
	q.Limit = limit + 1 // one more than asked for tells whether there is another page
	list, err := a.Schedules.List(ctx, c.principal, q)
	if err != nil {
		return reply{}, err
	}
	page := scheduledPage{Scheduled: append([]domain.Scheduled{}, list...)}
	if len(list) > limit {
		page.Scheduled = list[:limit]
		last := page.Scheduled[limit-1]
		text := scheduledPrefix + strconv.FormatInt(last.At, 10) + ":" + last.ID.String()
		page.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(text))
	}
	return reply{Body: page}, nil
}

const scheduledPrefix = "scheduled:"

func parseScheduledCursor(s string) (at int64, id domain.ScheduledID, err error) {
	if s == "" {
		return 0, id, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	text, ok := strings.CutPrefix(string(b), scheduledPrefix)
	digits, uuid, _ := strings.Cut(text, ":")
	at, aerr := strconv.ParseInt(digits, 10, 64)
	id, ierr := domain.ParseScheduledID(uuid)
	if err != nil || !ok || aerr != nil || ierr != nil {
		return 0, id, domain.Errorf(domain.InvalidRequest, "the cursor is not one of ours")
	}
	return at, id, nil
}

// scheduledID gives what a path names. What cannot exist does not.
func scheduledID(s string) (domain.ScheduledID, error) {
	id, err := domain.ParseScheduledID(s)
	if err != nil || id.IsZero() {
		return id, domain.Errorf(domain.NotFound, "nothing of that id is scheduled")
	}
	return id, nil
}

// limit gives the size of a page, 0 if it was not said.
func (n *number) limit(most int64) (int, error) {
	if !n.given {
		return 0, nil
	}
	if n.Value < 1 || n.Value > most {
		return 0, domain.Errorf(domain.InvalidRequest, "limit is 1 to %d", most)
	}
	return int(n.Value), nil
}
