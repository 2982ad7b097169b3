package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file decodes requests. encoding/json alone takes more than protocol.md allows: names in any letter case, and
// names given twice.

// decodeStrict decodes JSON into v, which points to a struct: one object, no unknown fields, nothing after it. It gives
// the requestId also when the rest is wrong.
func decodeStrict(payload []byte, v any) (requestID string, err error) {
	if err := decodeObject(payload, v); err != nil {
		return lenientRequestID(payload), err
	}
	if c, ok := v.(interface{ Common() *Meta }); ok {
		return c.Common().RequestID, nil
	}
	return "", nil
}

func decodeObject(payload []byte, v any) error {
	if !utf8.Valid(payload) {
		return Errorf(InvalidRequest, "the payload is not UTF-8")
	}
	trimmed := bytes.TrimLeft(payload, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return Errorf(InvalidRequest, "the payload is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonError(err, payload, v)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(InvalidRequest, "something follows the JSON object")
	}
	s := speller{json: trimmed, members: membersOf(v)}
	return s.value()
}

// lenientRequestID gives the requestId of an object as far as it can be read: what comes behind it may be broken.
func lenientRequestID(payload []byte) string {
	d := json.NewDecoder(bytes.NewReader(payload))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return ""
		}
		if name != "requestId" {
			var skipped json.RawMessage
			if d.Decode(&skipped) != nil {
				return ""
			}
			continue
		}
		var id string
		if d.Decode(&id) != nil || len(id) > maxRequestID || strings.ContainsRune(id, utf8.RuneError) {
			return ""
		}
		return id
	}
	return ""
}

// jsonError makes a refusal of an error that decoding the payload into v gave. It names the field where it can.
func jsonError(err error, payload []byte, v any) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return Errorf(InvalidRequest, "not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return Errorf(InvalidRequest, "not JSON: it ends too early")
	}
	detail := strings.TrimPrefix(err.Error(), "json: ")
	var wrongType *json.UnmarshalTypeError
	var refusal *Error
	switch {
	case strings.HasPrefix(detail, "unknown field "):
		// encoding/json has no type for it; the text names the field.
		return Errorf(InvalidRequest, "%s", clip(detail))
	case errors.As(err, &refusal):
		detail = refusal.Detail
	case errors.As(err, &wrongType):
		detail = "wrong type, " + wrongType.Value
	}
	return Errorf(InvalidRequest, "%s: %s", blame(payload, v), clip(detail))
}

// blame gives the path of the first thing in an object that v does not take: encoding/json does not say where the errors
// of our own types were, and names those of Go besides. It tries each thing alone.
func blame(payload []byte, v any) string {
	takes := func(one json.RawMessage) bool {
		return json.Unmarshal(one, reflect.New(reflect.TypeOf(v).Elem()).Interface()) == nil
	}
	if path := blameIn(payload, takes, membersOf(v)); path != "" {
		return clip(strings.TrimPrefix(path, "."))
	}
	return "the payload"
}

// mostBlamed is the longest list of which blame tries the elements.
const mostBlamed = 100

func blameIn(value json.RawMessage, takes func(json.RawMessage) bool, m members) string {
	var object map[string]json.RawMessage
	var list []json.RawMessage
	if json.Unmarshal(value, &object) != nil && json.Unmarshal(value, &list) != nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		alone := func(one json.RawMessage) bool {
			b, err := json.Marshal(map[string]json.RawMessage{name: one})
			return err == nil && takes(b)
		}
		switch below := object[name]; {
		case alone(below):
		case slices.Contains(m.free, name) && below[0] != '[':
			return "." + name // what is in it is the application's
		case slices.Contains(m.free, name):
			return "." + name + blameIn(below, alone, members{})
		default:
			return "." + name + blameIn(below, alone, m)
		}
	}
	if len(list) > mostBlamed {
		return "" // trying them all would take long, at the request of whoever sends nonsense
	}
	for i, element := range list {
		alone := func(one json.RawMessage) bool { return takes(slices.Concat([]byte{'['}, one, []byte{']'})) }
		if !alone(element) {
			path := "[" + strconv.Itoa(i) + "]"
			if len(m.names) > 0 && element[0] == '{' {
				path += blameIn(element, alone, m)
			}
			return path
		}
	}
	return ""
}

// members are the names that the objects of a request may have, at whatever depth, and which of these hold the
// application's own JSON.
type members struct {
	names []string
	free  []string
}

// membersOf gives the members of what v points to.
func membersOf(v any) members {
	switch v.(type) {
	case *MessageOnTopic, *SendMessage, *SetWill:
		return messageMembers()
	}
	var m members
	m.add(reflect.TypeOf(v).Elem())
	return m
}

// messageMembers is what add would find in a message, without looking: it is the request that there are most of.
func messageMembers() members {
	return members{
		names: []string{
			"conversation", "id", "text", "payload", "parts", "mimeType", "body", "encoding", "url", "size", "content", "urlExpires", "messageType",
			"attributes", "mentions", "all", "users", "notification", "sound", "options", "transient", "receipt", "will",
			"priority", "push", "requestId",
		},
		free: []string{"payload", "attributes", "push"},
	}
}

func (m *members) add(t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name == "" && !f.Anonymous {
			name = f.Name
		}
		if name != "" && !slices.Contains(m.names, name) {
			m.names = append(m.names, name)
		}
		if isFree(f.Type) {
			m.free = append(m.free, name)
		} else {
			m.add(f.Type)
		}
	}
}

func isFree(t reflect.Type) bool {
	for t != reflect.TypeFor[RawObject]() && t != reflect.TypeFor[json.RawMessage]() &&
		(t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	return t == reflect.TypeFor[RawObject]() || t == reflect.TypeFor[json.RawMessage]() ||
		t.Kind() == reflect.Map || t.Kind() == reflect.Interface
}

// speller looks through JSON that was decoded already, and so is known to be valid and to have no other names than its
// type: it finds those in other letters than the type's, and those given twice. That a name is one of the right object
// need not be asked: no two of ours differ in letter case alone.
type speller struct {
	json    []byte
	at      int
	members members
}

func (s *speller) value() error {
	s.space()
	switch s.json[s.at] {
	case '{':
		return s.object()
	case '[':
		s.at++
		for {
			s.space()
			if s.json[s.at] == ']' {
				s.at++
				return nil
			}
			if s.json[s.at] == ',' {
				s.at++
				continue
			}
			if err := s.value(); err != nil {
				return err
			}
		}
	case '"':
		s.text()
		return nil
	}
	for !isPunctuation(s.json[s.at]) {
		s.at++
	}
	return nil
}

func (s *speller) object() error {
	var seen uint64 // which of the names; a type of more than 64 may have the others twice
	for s.at++; ; {
		s.space()
		switch s.json[s.at] {
		case '}':
			s.at++
			return nil
		case ',':
			s.at++
			continue
		}
		name := s.text()
		i := indexOf(s.members.names, name)
		if i < 0 {
			return Errorf(InvalidRequest, "unknown field %q: mind the letter case", clip(string(name)))
		}
		if seen&(1<<i) != 0 {
			return Errorf(InvalidRequest, "%q is given twice", name)
		}
		seen |= 1 << i
		s.space()
		s.at++ // the colon
		if indexOf(s.members.free, name) >= 0 {
			s.skip()
		} else if err := s.value(); err != nil {
			return err
		}
	}
}

// skip passes over a value whatever it is.
func (s *speller) skip() {
	s.space()
	for depth := 0; ; {
		switch s.json[s.at] {
		case '"':
			s.text()
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			if depth == 0 {
				return // of the object around a number or a word
			}
			depth--
			s.at++
		case ',':
			if depth == 0 {
				return
			}
			s.at++
		default:
			s.at++
			continue
		}
		if depth == 0 {
			return
		}
	}
}

// indexOf is slices.Index without making a string of the name.
func indexOf(names []string, name []byte) int {
	for i := range names {
		if names[i] == string(name) {
			return i
		}
	}
	return -1
}

// text passes over a string and gives it.
func (s *speller) text() []byte {
	start := s.at
	escaped := false
	for s.at++; s.json[s.at] != '"'; s.at++ {
		if s.json[s.at] == '\\' {
			escaped = true
			s.at++
		}
	}
	s.at++
	quoted := s.json[start:s.at]
	if !escaped {
		return quoted[1 : len(quoted)-1]
	}
	var plain string
	if json.Unmarshal(quoted, &plain) != nil {
		return quoted
	}
	return []byte(plain)
}

func (s *speller) space() {
	for s.json[s.at] == ' ' || s.json[s.at] == '\t' || s.json[s.at] == '\r' || s.json[s.at] == '\n' {
		s.at++
	}
}

func isPunctuation(b byte) bool {
	switch b {
	case ',', ']', '}', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}
