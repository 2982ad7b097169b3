package bridge

import (
	"context"
	"errors"
	"net/http"
	"runtime"

	"github.com/parley-im/parley/domain"
)

const tagOperation = "Operation"

type health struct {
	Status string `json:"status" enum:"ok"`
}

type version struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty" doc:"What the program was built from."`
	Go       string `json:"go" doc:"The Go release that built it."`
	Protocol int    `json:"protocol" doc:"Version of the protocol."`
}

func (a *api) healthRoutes() {
	handle(a, route{
		method: http.MethodGet, path: "/livez", id: "getLiveness", tag: tagOperation, public: true, status: http.StatusOK,
		summary: "Is the process alive?", result: schemaOf[health](a),
	}, func(context.Context, caller, *struct{}) (reply, error) {
		return reply{Body: health{Status: "ok"}}, nil
	})
	handle(a, route{
		method: http.MethodGet, path: "/readyz", id: "getReadiness", tag: tagOperation, public: true, status: http.StatusOK,
		summary: "May requests be sent here?", description: "503 while the gateway starts or drains, and while it has no store.",
		result: schemaOf[health](a), refusals: []domain.Code{domain.Unavailable},
	}, func(ctx context.Context, _ caller, _ *struct{}) (reply, error) {
		if err := a.Ready(ctx); err != nil {
			detail := "not ready"
			if e := (*domain.Error)(nil); errors.As(err, &e) {
				detail = e.Detail
			}
			return reply{}, domain.Because(domain.Unavailable, err, detail)
		}
		return reply{Body: health{Status: "ok"}}, nil
	})
	handle(a, route{
		method: http.MethodGet, path: "/version", id: "getVersion", tag: tagOperation, public: true, status: http.StatusOK,
		summary: "Which program is running?", result: schemaOf[version](a),
	}, func(context.Context, caller, *struct{}) (reply, error) {
		return reply{Body: version{Version: a.Version, Commit: a.Commit, Go: runtime.Version(), Protocol: 1}}, nil
	})
}
