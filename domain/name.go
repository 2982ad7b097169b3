package domain

import (
	"regexp"
	"strings"
)

// Username is a user's full name, name@application.account (protocol.md section 1), in the one spelling that
// exists: lower case. The zero value is "none".
type Username string

// The grammars of protocol.md section 1. Compiled at each start: they are not state.
var (
	userPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	accountPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	servicePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// ParseUsername checks a full user name. Its errors are invalid-request and say which part is wrong.
func ParseUsername(s string) (Username, error) {
	name, rest, ok := strings.Cut(s, "@")
	if !ok {
		return "", Errorf(InvalidRequest, "a user name has the form name@application.account")
	}
	app, account, ok := strings.Cut(rest, ".")
	switch {
	case !ok:
		return "", Errorf(InvalidRequest, "a user name has the form name@application.account")
	case !userPattern.MatchString(name):
		return "", Errorf(InvalidRequest, "the name before @ must match %s", userPattern)
	case !accountPattern.MatchString(app):
		return "", Errorf(InvalidRequest, "the application after @ must match %s", accountPattern)
	case !accountPattern.MatchString(account):
		return "", Errorf(InvalidRequest, "the account after the dot must match %s", accountPattern)
	}
	return Username(s), nil
}

// Parts gives name, application and account of a valid user name.
func (u Username) Parts() (name, application, account string) {
	name, rest, _ := strings.Cut(string(u), "@")
	application, account, _ = strings.Cut(rest, ".")
	return name, application, account
}

// ParseAccountName checks the name of an account or an application.
func ParseAccountName(s string) (string, error) {
	if !accountPattern.MatchString(s) {
		return "", Errorf(InvalidRequest, "an account or application name must match %s", accountPattern)
	}
	return s, nil
}

// ParseServiceName checks the name of a service.
func ParseServiceName(s string) (string, error) {
	if !servicePattern.MatchString(s) {
		return "", Errorf(InvalidRequest, "a service name must match %s", servicePattern)
	}
	return s, nil
}

// ServiceLogin reads the user name that a service connects with over MQTT, service/<name>@<account>. ok is false
// for anything else.
func ServiceLogin(s string) (name, account string, ok bool) {
	rest, found := strings.CutPrefix(s, "service/")
	if !found {
		return "", "", false
	}
	name, account, found = strings.Cut(rest, "@")
	if !found || !servicePattern.MatchString(name) || !accountPattern.MatchString(account) {
		return "", "", false
	}
	return name, account, true
}
