package bridge

import (
	"context"
	"net/http"

	"github.com/parley-im/parley/domain"
)

// account is an account as HTTP shows it.
type account struct {
	Name      string   `json:"name"`
	Parent    string   `json:"parent,omitempty" doc:"The main account that this is a child of."`
	Settings  settings `json:"settings" doc:"The account's own settings."`
	Effective settings `json:"effective" doc:"What holds for its users: what the account leaves open its main account decides."`
}

// settings are those of an account.
type settings struct {
	EditMessages   string `json:"editMessages" doc:"Whether users may edit messages: on, off, a duration after sending such as 15m, or inherit."`
	RemoveMessages string `json:"removeMessages" doc:"Whether users may remove messages: as editMessages."`
}

func settingsOf(s domain.AccountSettings) settings {
	return settings{EditMessages: s.EditMessages.String(), RemoveMessages: s.RemoveMessages.String()}
}

func accountOf(a domain.Account) account {
	return account{Name: a.Name, Parent: a.ParentName, Settings: settingsOf(a.Settings), Effective: settingsOf(a.Effective)}
}

type oneAccount struct {
	Account account `json:"account"`
}

type accountList struct {
	Accounts   []account `json:"accounts"`
	NextCursor string    `json:"nextCursor,omitempty" doc:"Set when there are more; give it as cursor."`
}

type oneApplication struct {
	Application application `json:"application"`
}

type application struct {
	Name    string `json:"name"`
	Account string `json:"account"`
}

type createAccountRequest struct {
	Body struct {
		Name   string `json:"name"`
		Parent string `json:"parent,omitempty" doc:"Main account; a service may leave out its own."`
	} `nameHint:"CreateAccountRequest"`
}

type createApplicationRequest struct {
	Account string `path:"account"`
	Body    struct {
		Name string `json:"name"`
	} `nameHint:"CreateApplicationRequest"`
}

type deleteAccountRequest struct {
	Name string `query:"name" doc:"Instead of a body."`
	Body *struct {
		Name string `json:"name"`
	} `required:"false" nameHint:"DeleteAccountRequest"`
}

type accountPath struct {
	Account string `path:"account"`
}

type editAccountRequest struct {
	Account string `path:"account"`
	Body    struct {
		Settings struct {
			EditMessages   *string `json:"editMessages,omitempty" doc:"on, off, a duration after sending such as 15m, or inherit (main accounts: on). Absent: stays as it is."`
			RemoveMessages *string `json:"removeMessages,omitempty" doc:"As editMessages."`
		} `json:"settings"`
	} `nameHint:"EditAccountRequest"`
}

// edit reads what an account's settings shall be.
func (r *editAccountRequest) edit() (e domain.SettingsEdit, err error) {
	for _, f := range [...]struct {
		text *string
		to   **domain.Switch
	}{{r.Body.Settings.EditMessages, &e.EditMessages}, {r.Body.Settings.RemoveMessages, &e.RemoveMessages}} {
		if f.text == nil {
			continue
		}
		s, err := domain.ParseSwitch(*f.text)
		if err != nil {
			return e, err
		}
		*f.to = &s
	}
	if e == (domain.SettingsEdit{}) {
		return e, domain.Errorf(domain.InvalidRequest, "nothing is to be changed: give a setting")
	}
	return e, nil
}

type applicationPath struct {
	Account     string `path:"account"`
	Application string `path:"application"`
}

type applicationList struct {
	Applications []application `json:"applications"`
	NextCursor   string        `json:"nextCursor,omitempty" doc:"Set when there are more; give it as cursor."`
}

type listApplicationsRequest struct {
	Account string `path:"account"`
	Cursor  string `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit   int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Entries of a page."`
}

const onlyEmpty = "Only if no child account, service or conversation is in it, and no user ever was: names of users are never given again."

func (a *api) accountRoutes() {
	refusals := []domain.Code{domain.AccessDenied, domain.NotFound, domain.AlreadyExists}
	inUse := []domain.Code{domain.AccessDenied, domain.NotFound, domain.InUse}
	handle(a, route{
		method: http.MethodPost, path: "/v1/accounts", id: "createAccount", tag: tagAccounts, creates: true, status: http.StatusCreated,
		summary:     "Create an account",
		description: "The admin key makes main accounts and children of them; a service makes children of its main account.",
		result:      schemaOf[oneAccount](a), refusals: refusals,
	}, func(ctx context.Context, c caller, in *createAccountRequest) (reply, error) {
		made, err := a.Accounts.CreateAccount(ctx, c.principal, in.Body.Name, in.Body.Parent)
		if err != nil {
			return reply{}, err
		}
		return reply{Body: oneAccount{accountOf(made)}}, nil
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/accounts", id: "listAccounts", tag: tagAccounts, status: http.StatusOK,
		summary: "List the accounts of the account tree", result: schemaOf[accountList](a), refusals: refusals[:1],
	}, func(ctx context.Context, c caller, in *paging) (reply, error) {
		found, next, err := numbered("account", *in, func(after int64, limit int) ([]domain.Account, error) {
			return a.Accounts.Accounts(ctx, c.principal, domain.TreeQuery{After: after, Limit: limit})
		}, func(acc domain.Account) int64 { return int64(acc.ID) })
		list := accountList{Accounts: make([]account, len(found)), NextCursor: next}
		for i, acc := range found {
			list.Accounts[i] = accountOf(acc)
		}
		return reply{Body: list}, err
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/accounts/{account}", id: "getAccount", tag: tagAccounts, status: http.StatusOK,
		summary: "Get an account", result: schemaOf[oneAccount](a), refusals: refusals[:2],
	}, func(ctx context.Context, c caller, in *accountPath) (reply, error) {
		found, err := a.Accounts.Account(ctx, c.principal, in.Account)
		return reply{Body: oneAccount{accountOf(found)}}, err
	})
	handle(a, route{
		method: http.MethodPatch, path: "/v1/accounts/{account}", id: "editAccount", tag: tagAccounts, status: http.StatusOK,
		summary:     "Change the settings of an account",
		description: "They hold for the users of the account, for every command from then on; services may always.",
		result:      schemaOf[oneAccount](a), refusals: refusals[:2],
	}, func(ctx context.Context, c caller, in *editAccountRequest) (reply, error) {
		e, err := in.edit()
		if err != nil {
			return reply{}, err
		}
		edited, err := a.Accounts.EditSettings(ctx, c.principal, in.Account, e)
		return reply{Body: oneAccount{accountOf(edited)}}, err
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/accounts/{account}/applications", id: "createApplication", tag: tagAccounts, creates: true,
		status: http.StatusCreated, summary: "Create an application of an account",
		description: "Creating a user makes a missing application too.",
		result:      schemaOf[oneApplication](a), refusals: refusals,
	}, func(ctx context.Context, c caller, in *createApplicationRequest) (reply, error) {
		err := a.Accounts.CreateApplication(ctx, c.principal, in.Account, in.Body.Name)
		return reply{Body: oneApplication{application{Name: in.Body.Name, Account: in.Account}}}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/accounts", id: "deleteAccountByName", tag: tagAccounts, status: http.StatusNoContent,
		summary: "Delete an account", description: "It is named in the body or in the query. " + onlyEmpty, refusals: inUse,
	}, func(ctx context.Context, c caller, in *deleteAccountRequest) (reply, error) {
		name := in.Name
		if in.Body != nil {
			if name != "" {
				return reply{}, domain.Errorf(domain.InvalidRequest, "name the account in the body or in the query, not in both")
			}
			name = in.Body.Name
		}
		return reply{}, a.Accounts.DeleteAccount(ctx, c.principal, name)
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/accounts/{account}", id: "deleteAccount", tag: tagAccounts, status: http.StatusNoContent,
		summary: "Delete an account", description: onlyEmpty, refusals: inUse,
	}, func(ctx context.Context, c caller, in *accountPath) (reply, error) {
		return reply{}, a.Accounts.DeleteAccount(ctx, c.principal, in.Account)
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/accounts/{account}/applications", id: "listApplications", tag: tagAccounts,
		status: http.StatusOK, summary: "List the applications of an account", result: schemaOf[applicationList](a), refusals: refusals[:2],
	}, func(ctx context.Context, c caller, in *listApplicationsRequest) (reply, error) {
		names, next, err := pageOf("application", paging{in.Cursor, in.Limit}, func(after string, limit int) ([]string, error) {
			all, err := a.Accounts.Applications(ctx, c.principal, in.Account)
			return following(all, after, limit), err
		}, func(name string) string { return name })
		list := applicationList{Applications: make([]application, len(names)), NextCursor: next}
		for i, name := range names {
			list.Applications[i] = application{Name: name, Account: in.Account}
		}
		return reply{Body: list}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/accounts/{account}/applications/{application}", id: "deleteApplication", tag: tagAccounts,
		status: http.StatusNoContent, summary: "Delete an application", description: "Only if it never had a user.", refusals: inUse,
	}, func(ctx context.Context, c caller, in *applicationPath) (reply, error) {
		return reply{}, a.Accounts.DeleteApplication(ctx, c.principal, in.Account, in.Application)
	})
}
