package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/parley-im/parley/app"
)

// remote are the flags of the commands that administer: they speak HTTP, either to a running gateway or to the same
// handlers inside this process, on the configured store.
type remote struct {
	Server   string `help:"URL of a running gateway, for instance http://127.0.0.1:8080. Without it the command works on the configured store itself." placeholder:"URL"`
	AdminKey string `help:"Admin key or API key for --server." env:"PARLEY_ADMIN_KEY" placeholder:"KEY"`
}

// api is the HTTP API as a command uses it.
type api struct {
	base   string
	key    string
	client *http.Client
	close  func() error
}

func (r *remote) open(e *environment) (*api, error) {
	if r.Server != "" {
		if r.AdminKey == "" {
			return nil, usageError{errors.New("--server needs --admin-key or PARLEY_ADMIN_KEY")}
		}
		return &api{
			base: strings.TrimSuffix(r.Server, "/"), key: r.AdminKey, client: http.DefaultClient,
			close: func() error { return nil },
		}, nil
	}
	cfg, err := e.load()
	if err != nil {
		return nil, err
	}
	local, err := app.OpenLocal(e.ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w\nIf a gateway is running on this store, use --server URL", err)
	}
	return &api{
		base: "http://local", key: local.AdminKey, close: local.Close,
		client: &http.Client{Transport: inProcess{local.Handler}},
	}, nil
}

// inProcess answers HTTP requests by calling the handler.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	t.handler.ServeHTTP(rec, req)
	return rec.Result(), nil
}

// call makes a request; a problem becomes an error that says what the gateway said.
func (a *api) call(ctx context.Context, method, path string, body, result any) error {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, reader)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		var problem struct{ Code, Detail string }
		if json.Unmarshal(answer, &problem) == nil && problem.Code != "" {
			return fmt.Errorf("%s: %s", problem.Code, problem.Detail)
		}
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	if result == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, result)
}

// with runs f on the API and closes it.
func (r *remote) with(e *environment, f func(*api) error) (err error) {
	a, err := r.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return f(a)
}

type userCommand struct {
	Add    userAdd    `cmd:"" help:"Create a user; its account and application are made if they are missing."`
	List   userList   `cmd:"" help:"List users."`
	Passwd userPasswd `cmd:"" help:"Set a user's password; all its logins end."`
	Remove userRemove `cmd:"" help:"Delete a user: its messages stay, its name is not given away again."`
}

type password struct {
	Password      string `help:"The password. Others on this machine may see it in the list of processes: --password-stdin is safer." placeholder:"TEXT" xor:"password"`
	PasswordStdin bool   `help:"Read the password from the first line of standard input." xor:"password"`
}

func (p *password) read(e *environment) (string, error) {
	if !p.PasswordStdin {
		return p.Password, nil
	}
	line, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("standard input held no password")
	}
	return line, nil
}

type userAdd struct {
	remote
	password
	Username    string `arg:"" help:"Full name: name@application.account."`
	DisplayName string `help:"Name to show." placeholder:"TEXT"`
}

// Run creates the user.
func (c *userAdd) Run(e *environment) error {
	secret, err := c.password.read(e)
	if err != nil {
		return err
	}
	body := map[string]any{"username": c.Username}
	if secret != "" {
		body["password"] = secret
	}
	if c.DisplayName != "" {
		body["displayName"] = c.DisplayName
	}
	return c.with(e, func(a *api) error {
		var answer struct {
			User struct {
				UserID   int64
				Username string
			}
		}
		if err := a.call(e.ctx, http.MethodPost, "/v1/users", body, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.out, "%s is user %d\n", answer.User.Username, answer.User.UserID)
		return err
	})
}

type userList struct {
	remote
	Search string `arg:"" optional:"" help:"Start of the user name, or part of the display name."`
}

// Run lists the users, page by page.
func (c *userList) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "ID\tUSERNAME\tDISPLAY NAME")
		query := url.Values{"limit": {"100"}}
		if c.Search != "" {
			query.Set("q", c.Search)
		}
		type page struct {
			Users []struct {
				UserID                int64
				Username, DisplayName string
			}
			NextCursor string
		}
		err := eachPage(e, a, "/v1/users", query, func(p *page) string {
			for _, u := range p.Users {
				_, _ = fmt.Fprintf(w, "%d\t%s\t%s\n", u.UserID, u.Username, u.DisplayName)
			}
			return p.NextCursor
		})
		return errors.Join(err, w.Flush())
	})
}

// eachPage reads a list page by page. show prints a page and gives its nextCursor.
func eachPage[P any](e *environment, a *api, path string, query url.Values, show func(*P) string) error {
	for {
		var page P
		if err := a.call(e.ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		next := show(&page)
		if next == "" {
			return nil
		}
		query.Set("cursor", next)
	}
}

type userPasswd struct {
	remote
	password
	Username string `arg:"" help:"Full name: name@application.account."`
}

// Run sets the password.
func (c *userPasswd) Run(e *environment) error {
	secret, err := c.password.read(e)
	if err != nil {
		return err
	}
	if secret == "" {
		return usageError{errors.New("give --password-stdin or --password")}
	}
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodPatch, "/v1/users/"+url.PathEscape(c.Username), map[string]string{"password": secret}, nil)
	})
}

type userRemove struct {
	remote
	Username string `arg:"" help:"Full name: name@application.account."`
}

// Run deletes the user.
func (c *userRemove) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodDelete, "/v1/users/"+url.PathEscape(c.Username), nil, nil)
	})
}

type serviceCommand struct {
	Add    serviceAdd    `cmd:"" help:"Create a service and print its API key, this once."`
	List   serviceList   `cmd:"" help:"List services."`
	Rotate serviceRotate `cmd:"" help:"Give a service a new API key and print it, this once; the old one ends."`
	Remove serviceRemove `cmd:"" help:"Delete a service; its API key ends."`
}

type serviceAdd struct {
	remote
	Account string `arg:"" help:"Account of the service; made if it is missing."`
	Name    string `arg:"" help:"Name of the service, shown as the sender of its messages."`
}

type serviceAnswer struct {
	Service struct{ Name, Account string }
	Key     string
}

// Run creates the service.
func (c *serviceAdd) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		var answer serviceAnswer
		body := map[string]string{"account": c.Account, "name": c.Name}
		if err := a.call(e.ctx, http.MethodPost, "/v1/services", body, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.out, "%s\n", answer.Key)
		return err
	})
}

type serviceList struct {
	remote
}

// Run lists the services.
func (c *serviceList) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		type page struct {
			Services   []struct{ Name, Account string }
			NextCursor string
		}
		w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "ACCOUNT\tNAME")
		err := eachPage(e, a, "/v1/services", url.Values{}, func(p *page) string {
			for _, s := range p.Services {
				_, _ = fmt.Fprintf(w, "%s\t%s\n", s.Account, s.Name)
			}
			return p.NextCursor
		})
		return errors.Join(err, w.Flush())
	})
}

type serviceRotate struct {
	remote
	Account string `arg:"" help:"Account of the service."`
	Name    string `arg:"" help:"Name of the service."`
}

// Run rotates the key.
func (c *serviceRotate) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		var answer serviceAnswer
		path := "/v1/services/" + url.PathEscape(c.Name+"@"+c.Account) + "/rotate"
		if err := a.call(e.ctx, http.MethodPost, path, nil, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.out, "%s\n", answer.Key)
		return err
	})
}

type serviceRemove struct {
	remote
	Account string `arg:"" help:"Account of the service."`
	Name    string `arg:"" help:"Name of the service."`
}

// Run deletes the service.
func (c *serviceRemove) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodDelete, "/v1/services/"+url.PathEscape(c.Name+"@"+c.Account), nil, nil)
	})
}

type tokenCommand struct {
	remote
	Username string `arg:"" help:"Full name: name@application.account."`
}

// Run prints a new access token: a password for MQTT, a bearer token for HTTP.
func (c *tokenCommand) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		var answer struct{ AccessToken string }
		path := "/v1/users/" + url.PathEscape(c.Username) + "/tokens"
		if err := a.call(e.ctx, http.MethodPost, path, map[string]any{}, &answer); err != nil {
			return err
		}
		_, err := fmt.Fprintln(e.out, answer.AccessToken)
		return err
	})
}
