package configs

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ownIssuer is who the gateway's own tokens are of.
const ownIssuer = "parley"

func (v *validator) issuers() {
	const key = "identity.issuers"
	seen := make(map[string]bool)
	for n, i := range v.config.Identity.Issuers {
		expect := func(format string, args ...any) {
			v.report(key, "%s: issuer %d: expected %s", key, n+1, fmt.Sprintf(format, args...))
		}
		if i.Issuer == "" || i.Issuer == ownIssuer || seen[i.Issuer] {
			expect("issuer to be the claim iss of its tokens, other than that of others and %q, not %q", ownIssuer, i.Issuer)
		}
		seen[i.Issuer] = true
		if problem := v.endpoint(i.JWKS); problem != "" {
			expect("jwks to be %s, not %q", problem, maskURL(i.JWKS))
		}
		if len(i.Audience) == 0 || slices.Contains(i.Audience, "") {
			// Without it, tokens that were issued for any other application would be good here.
			expect("audience to be a list of values of the claim aud, not empty")
		}
		account, known := accountOf(i.Username)
		switch {
		case strings.Count(i.Username, "%s") != 1 || strings.Count(i.Username, "%") != 1:
			expect("username to have one %%s where the value of the claim goes, as in %%s@chat.acme, not %q", i.Username)
		case !known && len(i.Accounts) == 0:
			expect("accounts to be set where username does not end in @application.account: an issuer must not name anybody's users")
		case known && len(i.Accounts) > 0 && !slices.Contains(i.Accounts, account):
			expect("accounts to contain %q, which username ends in", account)
		}
		for _, name := range i.Accounts {
			if !accountName.MatchString(name) {
				expect("accounts to be names of accounts, not %q", name)
			}
		}
		for _, a := range i.Algorithms {
			if !slices.Contains([]string{"RS256", "ES256", "EdDSA"}, a) {
				expect("algorithms to be of RS256, ES256, EdDSA, not %q", a)
			}
		}
		if i.Skew < 0 || i.Skew > 10*time.Minute {
			expect("skew to be a duration from 0s to 10m, not %s", formatDuration(i.Skew))
		}
	}
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// accountOf gives the account that a pattern of user names always ends in, if it does.
func accountOf(pattern string) (account string, known bool) {
	_, domain, _ := strings.Cut(pattern, "@")
	_, account, found := strings.Cut(domain, ".")
	return account, found && !strings.Contains(domain, "%s") && accountName.MatchString(account)
}

func (v *validator) hook() {
	c := &v.config.Hook
	if c.URL != "" {
		if problem := v.endpoint(c.URL); problem != "" {
			v.expect("loginHook.url", "%s", problem)
		}
	}
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		v.expect("loginHook.token", "printable ASCII characters without spaces, as fit into an Authorization header")
	}
	for _, name := range c.Accounts {
		if !accountName.MatchString(name) {
			v.report("loginHook.accounts", "loginHook.accounts: expected names of accounts, not %q", name)
		}
	}
	if c.Create && len(c.Accounts) == 0 {
		v.report("loginHook.create", "loginHook.create: expected loginHook.accounts to be set as well: users are made in these only")
	}
}

// endpoint returns what is expected of a URL that the gateway asks, or nothing if it is as it should be.
func (v *validator) endpoint(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return "a URL such as https://login.example.com/path"
	case u.User != nil || u.Fragment != "":
		return "a URL without user, password and fragment"
	case u.Scheme == "http" && !v.config.Identity.PlainHTTP && !isLocal(u.Hostname()):
		return "a URL with https (or identity.plainHttp to be true, in a network that nobody else listens to)"
	}
	return ""
}

// isLocal tells whether a host can only be this machine.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
