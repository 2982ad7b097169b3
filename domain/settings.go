package domain

import (
	"strings"
	"time"
)

// AccountSettings are what an account lets its users do with messages that they have sent, or may otherwise change. What a
// child account leaves open its main account decides; what that leaves open is allowed. The zero value leaves everything open.
type AccountSettings struct {
	EditMessages   Switch
	RemoveMessages Switch
}

// Under gives the settings that are in effect for an account, given those of its main account (the zero value for a main
// account itself). None of them is open any more.
func (s AccountSettings) Under(main AccountSettings) AccountSettings {
	first := func(own, main Switch) Switch {
		for _, set := range [...]Switch{own, main} {
			if set != Inherit {
				return set
			}
		}
		return On
	}
	return AccountSettings{
		EditMessages:   first(s.EditMessages, main.EditMessages),
		RemoveMessages: first(s.RemoveMessages, main.RemoveMessages),
	}
}

// SettingsEdit changes the settings of an account; nil leaves one as it is.
type SettingsEdit struct {
	EditMessages   *Switch
	RemoveMessages *Switch
}

// Switch says whether users may change a message: one of the constants, or, if it is positive, for how many milliseconds
// after it was sent.
type Switch int64

const (
	// Inherit leaves it to the main account.
	Inherit Switch = 0
	// On allows it.
	On Switch = -1
	// Off forbids it.
	Off Switch = -2
)

// The bounds of a switch that is a time.
const (
	minSwitch = time.Second
	maxSwitch = 10 * 365 * 24 * time.Hour
)

// ParseSwitch reads on, off, inherit, or a duration such as 15m. Its error is invalid-request.
func ParseSwitch(text string) (Switch, error) {
	switch text {
	case "on":
		return On, nil
	case "off":
		return Off, nil
	case "inherit":
		return Inherit, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minSwitch || d > maxSwitch {
		return 0, Errorf(InvalidRequest, "%q is not on, off, inherit or a duration between 1s and 10 years, such as 15m", clip(text))
	}
	return Switch(d.Milliseconds()), nil
}

// String gives the text that ParseSwitch reads.
func (s Switch) String() string {
	switch s {
	case On:
		return "on"
	case Off:
		return "off"
	case Inherit:
		return "inherit"
	}
	text := (time.Duration(s) * time.Millisecond).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// permits refuses what the account of a user has switched off; doing names it. Backends may always.
func (s Switch) permits(p Principal, doing string, sent, now int64) error {
	switch {
	case p.IsBackend() || s == On || s == Inherit:
		return nil
	case s == Off:
		return Errorf(AccessDenied, "%s messages is switched off for your account", doing)
	case now-sent > int64(s):
		return Errorf(AccessDenied, "%s a message is possible for %s only, in your account", doing, s)
	}
	return nil
}
