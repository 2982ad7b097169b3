package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
)

type accountCommand struct {
	Add    accountAdd    `cmd:"" help:"Create an account, or a child of one."`
	List   accountList   `cmd:"" help:"List accounts."`
	Set    accountSet    `cmd:"" help:"Change what the users of an account may do."`
	Remove accountRemove `cmd:"" help:"Delete an account that is empty and never had a user."`
}

type accountAdd struct {
	remote
	Name   string `arg:"" help:"Name of the account."`
	Parent string `help:"Main account of which it becomes a child." placeholder:"ACCOUNT"`
}

// Run creates the account.
func (c *accountAdd) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		body := map[string]string{"name": c.Name}
		if c.Parent != "" {
			body["parent"] = c.Parent
		}
		return a.call(e.ctx, http.MethodPost, "/v1/accounts", body, nil)
	})
}

type accountList struct {
	remote
}

// Run lists the accounts.
func (c *accountList) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		type page struct {
			Accounts []struct {
				Name, Parent string
				Effective    struct{ EditMessages, RemoveMessages string }
			}
			NextCursor string
		}
		w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "NAME\tPARENT\tEDIT\tREMOVE")
		err := eachPage(e, a, "/v1/accounts", url.Values{}, func(p *page) string {
			for _, acc := range p.Accounts {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", acc.Name, acc.Parent, acc.Effective.EditMessages, acc.Effective.RemoveMessages)
			}
			return p.NextCursor
		})
		return errors.Join(err, w.Flush())
	})
}

type accountSet struct {
	remote
	Name   string `arg:"" help:"Name of the account."`
	Edit   string `help:"Whether its users may edit messages: on, off, inherit from the main account, or for how long after sending, such as 15m." placeholder:"on|off|inherit|DURATION"`
	Remove string `help:"Whether its users may remove messages; the same." placeholder:"on|off|inherit|DURATION"`
}

// Run changes the account.
func (c *accountSet) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		settings := make(map[string]string, 2)
		for name, value := range map[string]string{"editMessages": c.Edit, "removeMessages": c.Remove} {
			if value != "" {
				settings[name] = value
			}
		}
		return a.call(e.ctx, http.MethodPatch, "/v1/accounts/"+url.PathEscape(c.Name), map[string]any{"settings": settings}, nil)
	})
}

type accountRemove struct {
	remote
	Name string `arg:"" help:"Name of the account."`
}

// Run deletes the account.
func (c *accountRemove) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodDelete, "/v1/accounts/"+url.PathEscape(c.Name), nil, nil)
	})
}

type applicationCommand struct {
	Add    applicationAdd    `cmd:"" help:"Create an application of an account."`
	List   applicationList   `cmd:"" help:"List the applications of an account."`
	Remove applicationRemove `cmd:"" help:"Delete an application that never had a user."`
}

// applicationsOf is the path of an account's applications.
func applicationsOf(account string) string {
	return "/v1/accounts/" + url.PathEscape(account) + "/applications"
}

type applicationAdd struct {
	remote
	Account string `arg:"" help:"Name of the account."`
	Name    string `arg:"" help:"Name of the application."`
}

// Run creates the application.
func (c *applicationAdd) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodPost, applicationsOf(c.Account), map[string]string{"name": c.Name}, nil)
	})
}

type applicationList struct {
	remote
	Account string `arg:"" help:"Name of the account."`
}

// Run lists the applications.
func (c *applicationList) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		type page struct {
			Applications []struct{ Name string }
			NextCursor   string
		}
		return eachPage(e, a, applicationsOf(c.Account), url.Values{}, func(p *page) string {
			for _, app := range p.Applications {
				_, _ = fmt.Fprintln(e.out, app.Name)
			}
			return p.NextCursor
		})
	})
}

type applicationRemove struct {
	remote
	Account string `arg:"" help:"Name of the account."`
	Name    string `arg:"" help:"Name of the application."`
}

// Run deletes the application.
func (c *applicationRemove) Run(e *environment) error {
	return c.with(e, func(a *api) error {
		return a.call(e.ctx, http.MethodDelete, applicationsOf(c.Account)+"/"+url.PathEscape(c.Name), nil, nil)
	})
}
