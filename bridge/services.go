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
	Services   []service `json:"services"`
	NextCursor string    `json:"nextCursor,omitempty" doc:"Set when there are more; give it as cursor."`
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
	}, func(ctx context.Context, c caller, in *paging) (reply, error) {
		found, next, err := numbered("service", *in, func(after int64, limit int) ([]domain.Service, error) {
			return a.Accounts.Services(ctx, c.principal, domain.TreeQuery{After: after, Limit: limit})
		}, func(s domain.Service) int64 { return int64(s.ID) })
		list := serviceList{Services: make([]service, len(found)), NextCursor: next}
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

// parts gives name and account of the service of a path; no account: the caller's own.
func (p servicePath) parts() (name, account string) {
	name, account, _ = strings.Cut(p.Service, "@")
	return name, account
}
