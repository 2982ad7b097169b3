package domain_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

// The grammars of protocol.md section 1, as they stand there.
var (
	pageUser    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9-]{0,31}\.[a-z0-9][a-z0-9-]{0,31}$`)
	pageAccount = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

func TestUsernames(t *testing.T) {
	// Names are part of topics and of access rules: there must be exactly one spelling of each.
	for s, part := range map[string]string{
		"alice@chat.acme": "",
		"0@0.0":           "",
		"a.b_c-9.@x-.y-":  "",
		strings.Repeat("a", 64) + "@" + strings.Repeat("b", 32) + "." + strings.Repeat("c", 32): "",
		strings.Repeat("a", 65) + "@b.c":      "before @",
		"a@" + strings.Repeat("b", 33) + ".c": "application",
		"a@b." + strings.Repeat("c", 33):      "account",
		"":                                    "form",
		"alice":                               "form",
		"alice@acme":                          "form",
		"@chat.acme":                          "before @",
		"alice@.acme":                         "application",
		"alice@chat.":                         "account",
		"Alice@chat.acme":                     "before @",
		"alice@Chat.acme":                     "application",
		"alice@chat.Acme":                     "account",
		".alice@chat.acme":                    "before @",
		"-alice@chat.acme":                    "before @",
		"_alice@chat.acme":                    "before @",
		"al ice@chat.acme":                    "before @",
		"alice@chat.acme.org":                 "account",
		"alice@-chat.acme":                    "application",
		"alice@chat.-acme":                    "account",
		"alice@chat_x.acme":                   "application",
		"a@b@c.d":                             "application",
		"alice@chat.acme\n":                   "account",
		"alice\n@chat.acme":                   "before @",
		"alicé@chat.acme":                     "before @",
		"alice@chat.acme?tag=x":               "account",
		"al/ice@chat.acme":                    "before @",
		"al+ice@chat.acme":                    "before @",
		"#@chat.acme":                         "before @",
		"service/billing@acme":                "form",
		"a\x00@chat.acme":                     "before @",
	} {
		u, err := domain.ParseUsername(s)
		switch {
		case part == "" && (err != nil || string(u) != s):
			t.Errorf("%q: %v", s, err)
		case part != "" && (domain.CodeOf(err) != domain.InvalidRequest || !strings.Contains(err.Error(), part) || u != ""):
			t.Errorf("%q: %v, want one that names %q", s, err, part)
		}
	}
	name, app, account := domain.Username("alice.b@chat.acme").Parts()
	if name != "alice.b" || app != "chat" || account != "acme" {
		t.Errorf("parts %q, %q, %q", name, app, account)
	}
}

func TestOtherNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"acme": true, "a": true, "0-": true, strings.Repeat("a", 32): true, strings.Repeat("a", 33): false, "": false, "-a": false,
		"a.b": false, "A": false, "a_b": false, "a\n": false,
	} {
		if got, err := domain.ParseAccountName(s); (err == nil) != ok || ok && got != s {
			t.Errorf("account %q: %v", s, err)
		}
	}
	for s, ok := range map[string]bool{
		"billing": true, "Billing": true, "b.i-l_l9": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "": false,
		".a": false, "a b": false, "a/b": false, "a@b": false, "é": false, "a\n": false,
	} {
		if got, err := domain.ParseServiceName(s); (err == nil) != ok || ok && got != s {
			t.Errorf("service %q: %v", s, err)
		}
	}
	for s, want := range map[string][2]string{
		"service/Billing@acme": {"Billing", "acme"}, "service/b@a-1": {"b", "a-1"},
	} {
		name, account, ok := domain.ServiceLogin(s)
		if !ok || name != want[0] || account != want[1] {
			t.Errorf("%q: %q, %q, %t", s, name, account, ok)
		}
	}
	for _, s := range []string{
		"", "service", "service/", "service/b", "service/b@", "service/@a", "service/b@A", "service/b@a.c", "Service/b@a", "service/b@a@c",
		"service//b@a", "alice@chat.acme", "service/b/c@a", "service/b@a?tag=x",
	} {
		if name, account, ok := domain.ServiceLogin(s); ok || name != "" || account != "" {
			t.Errorf("%q logs in %q of %q", s, name, account)
		}
	}
}

func TestUsernamesFollowThePage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.OneOf(
			rapid.StringMatching(`[a-c0@.A_-]{0,12}`),
			rapid.StringMatching(`[a-z0-9._-]{0,66}@[a-z0-9-]{0,33}\.[a-z0-9-]{0,33}`),
		).Draw(rt, "name")
		if _, err := domain.ParseUsername(s); (err == nil) != pageUser.MatchString(s) {
			rt.Fatalf("%q: %v", s, err)
		}
		if _, err := domain.ParseAccountName(s); (err == nil) != pageAccount.MatchString(s) {
			rt.Fatalf("account %q: %v", s, err)
		}
	})
}

func FuzzUsername(f *testing.F) {
	for _, s := range []string{"alice@chat.acme", "a@b.c", "A@b.c", "a@b@c.d", "", "@.", "é@b.c", "a@b.c\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := domain.ParseUsername(s)
		if (err == nil) != pageUser.MatchString(s) {
			t.Fatalf("%q: %v", s, err)
		}
		if err != nil {
			return
		}
		name, app, account := u.Parts()
		if name+"@"+app+"."+account != s {
			t.Errorf("%q has the parts %q, %q, %q", s, name, app, account)
		}
		topic := domain.Topic{Kind: domain.InboxTopic, User: u}
		if got, ok := domain.ParseTopic(topic.String()); !ok || got != topic {
			t.Errorf("%q is a name that no topic can hold", s)
		}
		if _, _, ok := domain.ServiceLogin(s); ok {
			t.Errorf("%q is a user's and a service's name", s)
		}
	})
}
