package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// meaning decodes JSON so that numbers keep all of their digits.
func meaning(tb testing.TB, b []byte) any {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		tb.Fatalf("%v in %s", err, b)
	}
	return v
}

func TestMessagesOfEveryTypeComeBackWithAllTheySay(t *testing.T) {
	// What applications keep in attributes, payload and parts is theirs: whoever reads it, however, gets what was meant, to
	// the last digit, in the order in which it was.
	parts := make([]any, 16)
	for i := range parts {
		parts[i] = map[string]any{"mimeType": fmt.Sprintf("application/vnd.example.part-%d+json", i), "body": fmt.Sprintf(`{"n": %d, "x": null}`, i)}
	}
	binary := []byte{0, 0xff, '\r', '\n', 0x80, '"', '\\'}
	kinds := []map[string]any{
		{"messageType": -1, "text": "hello", "attributes": json.RawMessage(`{}`), "payload": []any{json.RawMessage(`{}`)}},
		{
			"messageType": -2, "parts": []any{map[string]any{"mimeType": "image/png", "body": base64.StdEncoding.EncodeToString(binary), "encoding": "base64"}},
			"attributes": json.RawMessage(`{"format":"png","height":1080,"width":1920,"size":7}`),
		},
		{
			"messageType": -3, "parts": []any{map[string]any{"mimeType": "audio/mpeg", "url": "https://files.example/a.mp3?x=1&y=<2>", "size": 1}},
			"attributes": json.RawMessage(`{"duration":26.00000000000000001}`),
		},
		{"messageType": -4, "parts": []any{map[string]any{"mimeType": "video/mp4", "url": "https://files.example/v.mp4", "size": int64(1) << 40}}},
		{"messageType": -5, "attributes": json.RawMessage(`{"location":{"latitude":31.753210000000001,"longitude":-1.2E-7,"name":"\u2028 \ud83d\udc4b <b>&amp;</b>"}}`)},
		{"messageType": -6, "parts": []any{
			map[string]any{"mimeType": "application/vnd.example+zip; name=\"a b.zip\"", "url": "https://files.example/a%20b.zip", "size": 31337},
			map[string]any{"mimeType": "text/plain", "body": ""},
			map[string]any{"mimeType": "text/plain", "body": " \t\n\u0000\u001f\U0001F44B "},
		}},
		{"messageType": 1, "payload": []any{
			json.RawMessage(`{"big":9007199254740993,"bigger":123456789012345678901234567890,"small":1e-400,"negative":-0.0,"exponent":1E+2}`),
			json.RawMessage(`{"":"empty","messageType":5,"parts":[{"mimeType":5}],"requestId":7,"null":null,"list":[[],[{}],[null,false,""]]}`),
			json.RawMessage(`{"deep":` + strings.Repeat(`{"a":[`, 30) + strings.Repeat(`]}`, 30) + `}`),
		}},
		{"messageType": 1 << 31, "parts": parts, "attributes": json.RawMessage(`{"__proto__":{"x":1},"constructor":"y","$ref":"#","@type":"z"}`)},
	}
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		readers := []*device{w.online(t, users[1], 4), w.online(t, users[1], 5)}
		seq := 1
		var want []any
		for i, kind := range kinds {
			expected := meaning(t, mustJSON(t, kind))
			compare := func(who string, message json.RawMessage) {
				t.Helper()
				got, ok := meaning(t, message).(map[string]any)
				if !ok {
					t.Fatalf("%s: %s is no message", who, message)
				}
				for name, value := range expected.(map[string]any) { //nolint:forcetypeassert // it was made of a map
					if empty := name == "attributes" && len(kind[name].(json.RawMessage)) == 2; empty { //nolint:forcetypeassert // see above
						continue // {} may be left out: there is nothing in it
					}
					if !reflect.DeepEqual(withoutEmpty(got[name]), withoutEmpty(value)) {
						t.Errorf("type %v: %s is shown %s as %s, sent was %s", kind["messageType"], who, name, mustJSON(t, got[name]), mustJSON(t, value))
					}
				}
			}
			for j, by := range w.callers(t, users[0]) {
				params := map[string]any{"conversation": c, "id": fmt.Sprintf("%d-%d", i, j)}
				maps.Copy(params, kind)
				var result struct{ Message json.RawMessage }
				by.must(t, &result, "sendMessage", params)
				compare(by.name, result.Message)
				for _, r := range readers {
					var heard struct{ Message json.RawMessage }
					if err := json.Unmarshal(r.hear(t, c).raw, &heard); err != nil {
						t.Fatal(err)
					}
					compare("a reader", heard.Message)
				}
				seq++
				want = append(want, expected)
				for _, reading := range w.callers(t, users[1]) {
					var page struct {
						Events []struct{ Message json.RawMessage }
					}
					reading.must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "from": seq, "count": 1})
					compare("history by "+reading.name, page.Events[0].Message)
				}
			}
		}
		if len(want) < 2*len(kinds) {
			t.Errorf("only %d messages", len(want))
		}
		for _, bad := range []map[string]any{
			{"messageType": -7, "text": "x"},
			{"messageType": 1.5, "text": "x"},
			{"messageType": "1", "text": "x"},
			{"parts": []any{map[string]any{"mimeType": "text/plain", "body": "x", "extra": 1}}},
			{"payload": []any{1}},
			{"payload": []any{nil}},
			{"attributes": []any{}},
			{"parts": slices.Concat(parts, parts[:1])},
		} {
			for _, by := range w.callers(t, users[0]) {
				params := map[string]any{"conversation": c}
				maps.Copy(params, bad)
				if _, p := by.run(t, "sendMessage", params); p == nil || p.Number != 1 && p.Number != 23 {
					t.Errorf("%s: %v: %+v", by.name, bad, p)
				}
			}
		}
	})
}

// withoutEmpty leaves out of parts what is absent when it is empty.
func withoutEmpty(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	for _, element := range list {
		if m, ok := element.(map[string]any); ok && m["mimeType"] != nil && m["body"] == "" {
			delete(m, "body")
		}
	}
	return list
}
