package bridge

import (
	"context"
	"net/http"

	"github.com/parley-im/parley/domain"
)

// account is an account as HTTP shows it.
type account struct {
	Name   string `json:"name"`
	Parent string `json:"parent,omitempty" doc:"The main account that this is a child of."`
}

type oneAccount struct {
	Account account `json:"account"`
}

type accountList struct {
	Accounts []account `json:"accounts"`
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

type applicationPath struct {
	Account     string `path:"account"`
	Application string `path:"application"`
}

type applicationList struct {
	Applications []application `json:"applications"`
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
		shown := account{Name: made.Name, Parent: in.Body.Parent}
		if made.Parent != 0 && shown.Parent == "" {
			all, err := a.Accounts.Accounts(ctx, c.principal)
			if err != nil {
				return reply{}, err
			}
			shown.Parent = nameOf(all, made.Parent)
		}
		return reply{Body: oneAccount{shown}}, nil
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/accounts", id: "listAccounts", tag: tagAccounts, status: http.StatusOK,
		summary: "List the accounts of the account tree", result: schemaOf[accountList](a), refusals: refusals[:1],
	}, func(ctx context.Context, c caller, _ *struct{}) (reply, error) {
		all, err := a.Accounts.Accounts(ctx, c.principal)
		list := accountList{Accounts: make([]account, len(all))}
		for i, acc := range all {
			list.Accounts[i] = account{Name: acc.Name, Parent: nameOf(all, acc.Parent)}
		}
		return reply{Body: list}, err
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
	}, func(ctx context.Context, c caller, in *accountPath) (reply, error) {
		names, err := a.Accounts.Applications(ctx, c.principal, in.Account)
		list := applicationList{Applications: make([]application, len(names))}
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

// nameOf gives the name of the account of a number; empty: there is none of it in the list.
func nameOf(all []domain.Account, id domain.AccountID) string {
	for _, acc := range all {
		if acc.ID == id && id != 0 {
			return acc.Name
		}
	}
	return ""
}
