package domain_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

// contract is the table of errors that the project began with. Clients have these numbers in their code.
const contract = `
| code | number | HTTP | MQTT 5 | | code | number | HTTP | MQTT 5 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| invalid-request | 1 | 400 | 0x99 | | sequence-out-of-range | 24 | 422 | 0x99 |
| unknown-command | 2 | 404 | 0x90 | | user-not-found | 25 | 404 | 0x83 |
| not-authenticated | 3 | 401 | 0x87 | | unknown-push-event | 26 | 422 | 0x99 |
| conversation-not-found | 8 | 404 | 0x83 | | from-after-to | 28 | 422 | 0x99 |
| message-not-found | 10 | 404 | 0x83 | | unavailable | 30 | 503 | 0x88, no success ack |
| message-removed | 11 | 410 | 0x83 | | rate-limited | 32 | 429 | 0x97 |
| access-denied | 12 | 403 | 0x87 | | direct-not-public-or-uber | 34 | 422 | 0x99 |
| already-participant | 13 | 409 | 0x83 | | direct-needs-two | 35 | 422 | 0x99 |
| join-not-available | 15 | 403 | 0x87 | | too-many-range-arguments | 36 | 422 | 0x99 |
| conversation-removed | 16 | 410 | 0x83 | | direct-no-add / -remove / -join / -leave | 37 / 38 / 39 / 40 | 422 | 0x83 |
| not-participant | 19 | 409 | 0x83 | | too-few-range-arguments | 41 | 422 | 0x99 |
| count-out-of-range | 21, 22 | 422 | 0x99 | | internal | 500 | 500 | 0x80 |
| message-too-large | 23 | 413 | 0x95 | | distinct-conflict | 108 | 409 | 0x83 |
`

// catalogue reads the tables with the columns code, number, HTTP and MQTT 5 on a page.
func catalogue(t *testing.T, page string) map[domain.Code]domain.Info {
	t.Helper()
	found := make(map[domain.Code]domain.Info)
	var header []string
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			header = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(cells[i], " `")
		}
		switch {
		case slices.Contains(cells, "code") && slices.Contains(cells, "MQTT 5"):
			header = cells
			continue
		case header == nil, strings.HasPrefix(cells[0], "--"):
			continue
		}
		for i := range header {
			if header[i] != "code" || i >= len(cells) || cells[i] == "" {
				continue
			}
			cell := func(name string) string {
				for j := i; j < len(header) && j < len(cells); j++ {
					if header[j] == name {
						return cells[j]
					}
				}
				return ""
			}
			for k, code := range several(cells[i]) {
				numbers := strings.FieldsFunc(cell("number"), func(r rune) bool { return r == '/' || r == ' ' || r == ',' })
				if k >= len(numbers) {
					t.Fatalf("no number for %s in: %s", code, line)
				}
				status, _, _ := strings.Cut(cell("HTTP"), " ")
				reason, _, _ := strings.Cut(cell("MQTT 5"), ",")
				found[domain.Code(code)] = domain.Info{
					Number: decimal(t, numbers[k]), Status: decimal(t, status), Reason: byte(decimal(t, reason)),
				}
			}
		}
	}
	return found
}

// several spells out "direct-no-add / -remove".
func several(cell string) []string {
	names := strings.Split(cell, " / ")
	for i := range names {
		names[i] = strings.Trim(names[i], " `")
		if strings.HasPrefix(names[i], "-") {
			names[i] = names[0][:strings.LastIndex(names[0], "-")] + names[i]
		}
	}
	return names
}

func decimal(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.ParseInt(s, 0, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func TestCatalogueIsThatOfTheContract(t *testing.T) {
	want := catalogue(t, contract)
	if len(want) != 29 {
		t.Fatalf("%d codes in the contract: %v", len(want), want)
	}
	for code, info := range want {
		if got := code.Info(); got != info {
			t.Errorf("%s: %+v, want %+v", code, got, info)
		}
		if !slices.Contains(domain.Codes(), code) {
			t.Errorf("%s is not listed", code)
		}
	}
}

func TestCatalogueIsThatOfThePage(t *testing.T) {
	// Users read the page: it must not drift away from the code, nor the code from it.
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := catalogue(t, string(page))
	for _, code := range domain.Codes() {
		info, ok := documented[code]
		if !ok {
			t.Errorf("docs/protocol.md does not list %s", code)
		} else if info != code.Info() {
			t.Errorf("docs/protocol.md says %+v of %s, the code %+v", info, code, code.Info())
		}
	}
	for code := range documented {
		if !slices.Contains(domain.Codes(), code) {
			t.Errorf("docs/protocol.md lists %s, which does not exist", code)
		}
	}
}

func TestCodesAreDistinct(t *testing.T) {
	// A client that knows only the number must be able to tell what happened; every refusal has to reach MQTT as a failure.
	numbers := make(map[int]domain.Code)
	for _, code := range domain.Codes() {
		info := code.Info()
		if other, taken := numbers[info.Number]; taken || info.Number == 22 {
			t.Errorf("%s and %s have the number %d", code, other, info.Number)
		}
		numbers[info.Number] = code
		if info.Reason < 0x80 || info.Status < 400 || info.Status > 599 {
			t.Errorf("%s succeeds: %+v", code, info)
		}
		if e := domain.Errorf(code, "d %d", 1); e.Code != code || e.Number != info.Number || e.Status != info.Status || e.Detail != "d 1" {
			t.Errorf("%s makes %+v", code, e)
		}
	}
	if domain.Code("nonsense").Info() != domain.Internal.Info() {
		t.Error("an unknown code is not internal")
	}
}

func TestInternalsStayInside(t *testing.T) {
	// The text of an error of the store may hold names and data; clients get none of it, the log all.
	cause := errors.New("pq: relation users of secret-host")
	for _, err := range []error{cause, fmt.Errorf("commit: %w", cause)} {
		e := domain.AsError(err)
		if e.Code != domain.Internal || e.Number != 500 || strings.Contains(e.Detail, "secret") || !strings.Contains(e.Error(), "secret") || !errors.Is(e, cause) {
			t.Errorf("%v becomes %+v", err, e)
		}
	}
	refusal := domain.Because(domain.Unavailable, cause, "try again")
	if e := domain.AsError(fmt.Errorf("wrapped: %w", refusal)); e != refusal || e.Detail != "try again" || domain.CodeOf(e) != domain.Unavailable {
		t.Errorf("%+v", e)
	}
	if b := jsonOf(t, refusal); len(b) != 4 || strings.Contains(fmt.Sprint(b), "secret") {
		t.Errorf("%v", b)
	}
	if domain.AsError(nil) != nil || domain.CodeOf(nil) != "" {
		t.Error("no error is an error")
	}
	if e := domain.Errorf(domain.Internal, ""); e.Error() != "internal" {
		t.Errorf("%v", e)
	}
}
