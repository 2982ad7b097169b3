package domain

import "strings"

// Username is a user's full name, name@application.account (protocol.md section 1), in the one spelling that
// exists: lower case. The zero value is "none".
type Username string

// The grammars of protocol.md section 1, as refusals show them.
const (
	userPattern    = `^[a-z0-9][a-z0-9._-]{0,63}$`
	accountPattern = `^[a-z0-9][a-z0-9-]{0,31}$`
	servicePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
)

func isUserName(s string) bool    { return isName(s, 64, "._-", false) }
func isAccountName(s string) bool { return isName(s, 32, "-", false) }
func isServiceName(s string) bool { return isName(s, 64, "._-", true) }

// isName reports whether s follows one of the grammars: letters and digits, and further characters behind the first.
// It stands for regular expressions, which take longer than all the rest of a topic.
func isName(s string, most int, further string, capitals bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', capitals && c >= 'A' && c <= 'Z':
		case i > 0 && strings.IndexByte(further, c) >= 0:
		default:
			return false
		}
	}
	return true
}

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
	case !isUserName(name):
		return "", Errorf(InvalidRequest, "the name before @ must match %s", userPattern)
	case !isAccountName(app):
		return "", Errorf(InvalidRequest, "the application after @ must match %s", accountPattern)
	case !isAccountName(account):
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
	if !isAccountName(s) {
		return "", Errorf(InvalidRequest, "an account or application name must match %s", accountPattern)
	}
	return s, nil
}

// ParseServiceName checks the name of a service.
func ParseServiceName(s string) (string, error) {
	if !isServiceName(s) {
		return "", Errorf(InvalidRequest, "a service name must match %s", servicePattern)
	}
	return s, nil
}

const servicePrefix = "service/"

// ServiceLogin reads the user name that a service connects with over MQTT, service/<name>@<account>. ok is false
// for anything else.
func ServiceLogin(s string) (name, account string, ok bool) {
	rest, found := strings.CutPrefix(s, servicePrefix)
	if !found {
		return "", "", false
	}
	name, account, found = strings.Cut(rest, "@")
	if !found || !isServiceName(name) || !isAccountName(account) {
		return "", "", false
	}
	return name, account, true
}
