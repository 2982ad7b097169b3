package domain_test

import (
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

func TestAnAccountSaysWhetherItsUsersChangeMessages(t *testing.T) {
	// An operator who must keep what was said switches it off for all, owners and moderators included. Backends may: somebody
	// has to follow a court's order.
	s, conv, id := chat()
	sent := s.messages[id].Message.Time
	const hour = domain.Switch(3_600_000)
	edit := &domain.EditMessage{Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Text: ptr("bye")}}
	remove := &domain.RemoveMessage{Conversation: conv.ID, Message: id}
	for what, c := range map[string]struct {
		p            domain.Principal
		settings     domain.AccountSettings
		after        int64 // ms after the message was sent
		edit, remove int   // numbers of the errors
	}{
		"nothing said":              {user(bob), domain.AccountSettings{}, 1 << 40, 0, 0},
		"on":                        {user(bob), domain.AccountSettings{EditMessages: domain.On, RemoveMessages: domain.On}, 1 << 40, 0, 0},
		"editing off":               {user(bob), domain.AccountSettings{EditMessages: domain.Off}, 1, 12, 0},
		"removing off":              {user(bob), domain.AccountSettings{RemoveMessages: domain.Off}, 1, 0, 12},
		"off, an owner":             {user(alice), domain.AccountSettings{EditMessages: domain.Off, RemoveMessages: domain.Off}, 1, 12, 12},
		"off, a service":            {service(), domain.AccountSettings{EditMessages: domain.Off, RemoveMessages: domain.Off}, 1, 0, 0},
		"off, the admin":            {admin(), domain.AccountSettings{EditMessages: domain.Off, RemoveMessages: domain.Off}, 1, 0, 0},
		"off, on a user's behalf":   {service().OnBehalfOf(person(bob)), domain.AccountSettings{EditMessages: domain.Off, RemoveMessages: domain.Off}, 1, 0, 0},
		"in time":                   {user(bob), domain.AccountSettings{EditMessages: hour, RemoveMessages: hour}, 3_600_000, 0, 0},
		"too late":                  {user(bob), domain.AccountSettings{EditMessages: hour, RemoveMessages: hour}, 3_600_001, 12, 12},
		"too late, an owner":        {user(alice), domain.AccountSettings{EditMessages: hour, RemoveMessages: hour}, 3_600_001, 12, 12},
		"too late, but not for all": {service(), domain.AccountSettings{EditMessages: hour, RemoveMessages: hour}, 3_600_001, 0, 0},
	} {
		for _, command := range []domain.Command{edit, remove} {
			want := c.edit
			if command == domain.Command(remove) {
				want = c.remove
			}
			h := s.heads(c.p, command)
			h.Settings, h.Now = c.settings, sent+c.after
			_, err := decide(t, h, c.p, command)
			e := domain.AsError(err)
			switch {
			case want == 0 && err != nil, want != 0 && (err == nil || e.Number != want):
				t.Errorf("%s, %s: %v, want number %d", what, command.Name(), err, want)
			case want != 0 && !strings.Contains(e.Detail, "your account"):
				t.Errorf("%s, %s: %q does not say why", what, command.Name(), e.Detail)
			}
		}
	}
	// Who may not know of the message learns nothing of the settings.
	h := s.heads(user(mallory), edit)
	h.Settings = domain.AccountSettings{EditMessages: domain.Off}
	if _, err := decide(t, h, user(mallory), edit); domain.CodeOf(err) != domain.ConversationNotFound {
		t.Errorf("a stranger: %v", err)
	}
}

func TestChildAccountsInheritSettings(t *testing.T) {
	const hour = domain.Switch(3_600_000)
	for _, c := range []struct{ own, main, want domain.Switch }{
		{domain.Inherit, domain.Inherit, domain.On},
		{domain.Inherit, domain.Off, domain.Off},
		{domain.Inherit, hour, hour},
		{domain.On, domain.Off, domain.On},
		{domain.Off, domain.On, domain.Off},
		{hour, domain.Off, hour},
	} {
		got := domain.AccountSettings{EditMessages: c.own}.Under(domain.AccountSettings{EditMessages: c.main})
		if got.EditMessages != c.want || got.RemoveMessages != domain.On {
			t.Errorf("%s under %s: %+v", c.own, c.main, got)
		}
		got = domain.AccountSettings{RemoveMessages: c.own}.Under(domain.AccountSettings{RemoveMessages: c.main})
		if got.RemoveMessages != c.want || got.EditMessages != domain.On {
			t.Errorf("%s under %s: %+v", c.own, c.main, got)
		}
	}
}

func TestSwitchesReadAsWritten(t *testing.T) {
	for text, want := range map[string]domain.Switch{
		"on": domain.On, "off": domain.Off, "inherit": domain.Inherit, "15m": 900_000, "1s": 1000, "2h": 7_200_000,
		"1h30m": 5_400_000, "1m30s": 90_000, "1.5s": 1500, "20h0m10s": 72_010_000, "24h": 86_400_000,
	} {
		got, err := domain.ParseSwitch(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %d %s, %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "On", "true", "15", "0", "0s", "999ms", "-1h", "1d", "100000h", "1h ", strings.Repeat("9", 500) + "h"} {
		if got, err := domain.ParseSwitch(text); domain.CodeOf(err) != domain.InvalidRequest {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}
