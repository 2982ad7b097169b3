package bridge

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/parley-im/parley/domain"
)

const tagUsers = "Users"

type createUserRequest struct {
	Body domain.UserRequest
}

type usernamePath struct {
	Username string `path:"username" doc:"Full name, name@application.account."`
}

type editUserRequest struct {
	Username string `path:"username" doc:"Full name, name@application.account."`
	Body     domain.UserEdit
}

type listUsersRequest struct {
	Usernames   []string `query:"username,explode" doc:"Look up users of these names, at most 50."`
	UserIDs     []string `query:"userId,explode" doc:"Look up users of these numbers, at most 50."`
	Text        string   `query:"q" doc:"Search: the start of the user name, or a part of the display name."`
	Application string   `query:"application" doc:"Search in this application only."`
	Account     string   `query:"account" doc:"Search in this account only."`
	Cursor      string   `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit       int      `query:"limit" default:"50" minimum:"1" maximum:"100" doc:"Users of a page."`
}

// isLookup reports whether users are named, rather than searched for.
func (r *listUsersRequest) isLookup() bool { return len(r.Usernames)+len(r.UserIDs) > 0 }

type userPage struct {
	Users      []domain.User `json:"users"`
	NextCursor string        `json:"nextCursor,omitempty" doc:"Set when there are more; give it as cursor."`
}

func (a *api) userRoutes() {
	handle(a, route{
		method: http.MethodPost, path: "/v1/users", id: "createUser", tag: tagUsers, creates: true, status: http.StatusCreated,
		summary:     "Create a user",
		description: "For services, in the accounts of their tree, and the admin key. A missing application is made.",
		result:      a.result("user"), refusals: []domain.Code{domain.AccessDenied, domain.AlreadyExists},
	}, func(ctx context.Context, c caller, in *createUserRequest) (reply, error) {
		u, err := a.Accounts.CreateUser(ctx, c.principal, in.Body)
		return reply{Body: domain.Result{User: &u}}, err
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/users", id: "listUsers", tag: tagUsers, status: http.StatusOK,
		summary: "Look up or search users",
		description: "With username or userId, both of which may be repeated: exactly these users. Without: a search, in pages " +
			"in the order of user numbers.",
		result: schemaOf[userPage](a), refusals: []domain.Code{domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *listUsersRequest) (reply, error) {
		if in.isLookup() {
			return a.lookUpUsers(ctx, c, in)
		}
		return a.searchUsers(ctx, c, in)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/users/{username}", id: "getUser", tag: tagUsers, status: http.StatusOK,
		summary: "Get a user", result: a.result("user"), refusals: []domain.Code{domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		return a.run(ctx, c.principal, &domain.GetUser{UserRef: domain.UserRef{Username: domain.Username(in.Username)}})
	})
	handle(a, route{
		method: http.MethodPatch, path: "/v1/users/{username}", id: "editUser", tag: tagUsers, status: http.StatusOK,
		summary: "Change a user", description: "For services and the admin key. What is absent stays as it is.",
		result: a.result("user"), refusals: []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *editUserRequest) (reply, error) {
		u, err := a.Accounts.UpdateUser(ctx, c.principal, domain.Username(in.Username), in.Body)
		return reply{Body: domain.Result{User: &u}}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/users/{username}", id: "deleteUser", tag: tagUsers, status: http.StatusNoContent,
		summary: "Delete a user", description: "For services and the admin key. Neither name nor number are given again.",
		refusals: []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		return reply{}, a.Accounts.DeleteUser(ctx, c.principal, domain.Username(in.Username))
	})
}

// lookUpUsers gives the users that are named, by the command getUsers.
func (a *api) lookUpUsers(ctx context.Context, c caller, in *listUsersRequest) (reply, error) {
	if in.Text != "" || in.Application != "" || in.Account != "" || in.Cursor != "" {
		return reply{}, domain.Errorf(domain.InvalidRequest, "username and userId do not go together with a search")
	}
	cmd := &domain.GetUsers{}
	for _, name := range split(in.Usernames) {
		cmd.Usernames = append(cmd.Usernames, domain.Username(name))
	}
	for _, digits := range split(in.UserIDs) {
		id, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return reply{}, domain.Errorf(domain.InvalidRequest, "userId is a number")
		}
		cmd.UserIDs = append(cmd.UserIDs, domain.UserID(id))
	}
	return a.run(ctx, c.principal, cmd)
}

// searchUsers gives a page of the directory.
func (a *api) searchUsers(ctx context.Context, c caller, in *listUsersRequest) (reply, error) {
	users, next, err := numbered("user", paging{in.Cursor, in.Limit}, func(after int64, limit int) ([]domain.User, error) {
		return a.Accounts.SearchUsers(ctx, c.principal, domain.UserQuery{
			Text: in.Text, Application: in.Application, Account: in.Account, After: domain.UserID(after), Limit: limit,
		})
	}, func(u domain.User) int64 { return int64(u.ID) })
	if users == nil {
		users = []domain.User{}
	}
	return reply{Body: userPage{Users: users, NextCursor: next}}, err
}

// split gives the values of a repeated parameter, each of which may also be a list with commas.
func split(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Split(v, ",")...)
	}
	return all
}
