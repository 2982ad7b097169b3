package configs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Units of [Size].
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// Size is a number of bytes. In a configuration it is a number, or a number with a unit: 64KiB, 1 MiB.
type Size int64

// String returns the size with the largest unit that divides it.
func (s Size) String() string {
	switch {
	case s != 0 && s%GiB == 0:
		return fmt.Sprintf("%dGiB", s/GiB)
	case s != 0 && s%MiB == 0:
		return fmt.Sprintf("%dMiB", s/MiB)
	case s != 0 && s%KiB == 0:
		return fmt.Sprintf("%dKiB", s/KiB)
	default:
		return strconv.FormatInt(int64(s), 10)
	}
}

// What a value of each type has to look like, for messages.
const (
	wantText     = "text (in quotes, if it looks like a number or a list)"
	wantNumber   = "a whole number"
	wantSize     = "a number of bytes, with or without a unit: 65536, 64KiB, 1MiB"
	wantDuration = "a duration with its unit: 500ms, 10s, 48h"
	wantTexts    = "a list of texts (in a variable: separated by commas)"
	wantBool     = "true or false"
	wantIssuers  = "a list of issuers {issuer, jwks, audience: [], username, claim, accounts: [], algorithms: [], skew, create}"
	wantRules    = "a list of rules {users: pattern, allow: [publish, subscribe], topics: [filters]}"
)

// field is one setting.
type field struct {
	key    string // such as limits.packetSize
	index  []int  // of the struct field
	kind   string // from the struct tag: address, or empty
	secret string // from the struct tag: all, url, or empty
}

// fields returns all settings in the order of the struct.
func fields() []field {
	var all []field
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		section := config.Field(i)
		for j := range section.Type.NumField() {
			f := section.Type.Field(j)
			all = append(all, field{
				key:    section.Tag.Get("koanf") + "." + f.Tag.Get("koanf"),
				index:  []int{i, j},
				kind:   f.Tag.Get("kind"),
				secret: f.Tag.Get("secret"),
			})
		}
	}
	return all
}

// Keys returns the names of all settings.
func Keys() []string {
	var keys []string
	for _, f := range fields() {
		keys = append(keys, f.key)
	}
	return keys
}

// variable returns the environment variable of a key.
func variable(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// get returns the setting's value in c.
func (f field) get(c *Config) any { return reflect.ValueOf(c).Elem().FieldByIndex(f.index).Interface() }

// set converts a value from YAML or, as text, from the environment, and puts it into c. The error says what is expected.
func (f field) set(c *Config, value any) error {
	target := reflect.ValueOf(c).Elem().FieldByIndex(f.index)
	switch t := target.Addr().Interface().(type) {
	case *string:
		s, ok := value.(string)
		if f.kind == "address" && value == false {
			// Some writers of YAML take off for a boolean.
			s, ok = off, true
		}
		if !ok {
			return errors.New(wantText)
		}
		if f.kind == "address" && s == off {
			s = ""
		}
		*t = s
	case *int:
		n, ok := whole(value)
		if !ok || n < math.MinInt || n > math.MaxInt {
			return errors.New(wantNumber)
		}
		*t = int(n)
	case *Size:
		n, ok := size(value)
		if !ok {
			return errors.New(wantSize)
		}
		*t = n
	case *time.Duration:
		s, ok := value.(string)
		if !ok {
			return errors.New(wantDuration)
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return errors.New(wantDuration)
		}
		*t = d
	case *[]string:
		list, ok := texts(value)
		if !ok {
			return errors.New(wantTexts)
		}
		*t = list
	case *bool:
		b, ok := value.(bool)
		if s, isText := value.(string); isText {
			b, ok = s == "true", s == "true" || s == "false"
		}
		if !ok {
			return errors.New(wantBool)
		}
		*t = b
	case *[]Rule:
		return parseList(value, wantRules, t)
	case *[]Issuer:
		return parseList(value, wantIssuers, t)
	default:
		return fmt.Errorf("a type that the loader knows, not %T", t)
	}
	return nil
}

func whole(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	default:
		return 0, false
	}
}

func size(value any) (Size, bool) {
	if n, ok := whole(value); ok {
		return Size(n), true
	}
	s, ok := value.(string)
	if !ok {
		return 0, false
	}
	for _, unit := range []struct {
		name string
		size Size
	}{{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB}, {"B", 1}} {
		number, found := strings.CutSuffix(s, unit.name)
		if !found {
			continue
		}
		n, ok := whole(number)
		if !ok || n > math.MaxInt64/int64(unit.size) || n < math.MinInt64/int64(unit.size) {
			return 0, false
		}
		return Size(n) * unit.size, true
	}
	return 0, false
}

// texts reads a list of texts. One text, as from the environment, has commas between them.
func texts(value any) ([]string, bool) {
	var list []string
	switch v := value.(type) {
	case nil:
	case string:
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
	case []any:
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, false
			}
			list = append(list, s)
		}
	default:
		return nil, false
	}
	return list, true
}

// parseList converts a list of mappings, such as acl.rules. Text, from the environment, is YAML itself (of which JSON is a
// part).
func parseList[T any](value any, want string, list *[]T) error {
	if text, ok := value.(string); ok {
		var items any
		if err := yaml.Unmarshal([]byte(text), &items); err != nil {
			return fmt.Errorf("%s (%w)", want, err)
		}
		value = items
	}
	if value == nil {
		*list = nil
		return nil
	}
	if _, ok := value.([]any); !ok {
		return errors.New(want)
	}
	// Once more through YAML, strictly: it names whatever it does not know.
	text, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s (%w)", want, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var items []T
	if err := dec.Decode(&items); err != nil {
		reason := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n")
		reason = strings.NewReplacer(" in type configs.Rule", "", " in type configs.Issuer", "").Replace(reason)
		return fmt.Errorf("%s (%s)", want, strings.Join(strings.Fields(reason), " "))
	}
	*list = nil
	if len(items) > 0 {
		*list = items
	}
	return nil
}

// formatDuration is time.Duration.String without zeros that say nothing.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
