package bridge

import (
	"context"
	"net/http"
	"strings"

	"github.com/parley-im/parley/domain"
)

const tagAccounts = "Accounts and services"

// service is a service as HTTP shows it. Its key is shown once, beside it.
type service struct {
	Name    string `json:"name"`
	Account string `json:"account"`
	Created int64  `json:"createdTime,omitempty" doc:"Milliseconds since 1970."`
}

func serviceOf(s domain.Service) service {
	return service{Name: s.Name, Account: s.AccountName, Created: s.Created}
}

type keyedService struct {
	Service service `json:"service"`
	Key     string  `json:"key" doc:"The API key. It is shown this once."`
}

type serviceList struct {
	Services []service `json:"services"`
}

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

type serviceName struct {
	Account string `json:"account,omitempty" doc:"Default: the caller's own."`
	Name    string `json:"name"`
}

type createServiceRequest struct {
	Body serviceName
}

type deleteServiceRequest struct {
	Account string       `query:"account" doc:"Instead of a body."`
	Name    string       `query:"name" doc:"Instead of a body."`
	Body    *serviceName `required:"false"`
}

type servicePath struct {
	Service string `path:"service" doc:"name@account, or the name alone for a service of the caller's own account."`
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

func (a *api) serviceRoutes() {
	refusals := []domain.Code{domain.AccessDenied, domain.NotFound}
	handle(a, route{
		method: http.MethodPost, path: "/v1/services", id: "createService", tag: tagAccounts, creates: true, secret: true,
		status: http.StatusCreated, summary: "Create a service",
		description: "The admin key makes a missing account as well. The API key is shown this once.",
		result:      schemaOf[keyedService](a), refusals: []domain.Code{domain.AccessDenied, domain.AlreadyExists},
	}, func(ctx context.Context, c caller, in *createServiceRequest) (reply, error) {
		s, key, err := a.Accounts.CreateService(ctx, c.principal, in.Body.Account, in.Body.Name)
		return reply{Body: keyedService{Service: serviceOf(s), Key: key}}, err
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/services", id: "listServices", tag: tagAccounts, status: http.StatusOK,
		summary: "List the services of the account tree", result: schemaOf[serviceList](a), refusals: refusals[:1],
	}, func(ctx context.Context, c caller, _ *struct{}) (reply, error) {
		found, err := a.Accounts.Services(ctx, c.principal)
		list := serviceList{Services: make([]service, len(found))}
		for i, s := range found {
			list.Services[i] = serviceOf(s)
		}
		return reply{Body: list}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/services", id: "deleteServiceByName", tag: tagAccounts, status: http.StatusNoContent,
		summary: "Delete a service", description: "It is named in the body or in the query.", refusals: refusals,
	}, func(ctx context.Context, c caller, in *deleteServiceRequest) (reply, error) {
		n := serviceName{Account: in.Account, Name: in.Name}
		if in.Body != nil {
			if n != (serviceName{}) {
				return reply{}, domain.Errorf(domain.InvalidRequest, "name the service in the body or in the query, not in both")
			}
			n = *in.Body
		}
		return reply{}, a.Accounts.DeleteService(ctx, c.principal, n.Account, n.Name)
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/services/{service}", id: "deleteService", tag: tagAccounts, status: http.StatusNoContent,
		summary: "Delete a service", refusals: refusals,
	}, func(ctx context.Context, c caller, in *servicePath) (reply, error) {
		name, account := in.parts()
		return reply{}, a.Accounts.DeleteService(ctx, c.principal, account, name)
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/services/{service}/rotate", id: "rotateService", tag: tagAccounts, creates: true,
		secret: true, status: http.StatusOK, summary: "Give a service a new API key",
		description: "The old key ends at once. The new one is shown this once.",
		result:      schemaOf[keyedService](a), refusals: refusals,
	}, func(ctx context.Context, c caller, in *servicePath) (reply, error) {
		name, account := in.parts()
		s, key, err := a.Accounts.RotateService(ctx, c.principal, account, name)
		return reply{Body: keyedService{Service: serviceOf(s), Key: key}}, err
	})
	a.accountRoutes()
}

func (a *api) accountRoutes() {
	refusals := []domain.Code{domain.AccessDenied, domain.NotFound, domain.AlreadyExists}
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
}

// parts gives name and account of the service of a path; no account: the caller's own.
func (p servicePath) parts() (name, account string) {
	name, account, _ = strings.Cut(p.Service, "@")
	return name, account
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
