package bridge_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

func TestTheDocsPageLoadsNothing(t *testing.T) {
	// It must work in a network without the internet, and must not tell anybody that it is read.
	w := newWorld(t, nil)
	a := w.as("", "GET", "/docs", "")
	a.want(t, "/docs", 200, "")
	if ct := a.Header.Get("Content-Type"); ct != "text/html; charset=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}
	ids := make(map[string]bool)
	var links []string
	styles := 0
	page := xml.NewDecoder(bytes.NewReader(a.body))
	page.Strict, page.AutoClose, page.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for inStyle := false; ; {
		token, err := page.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch n := token.(type) {
		case xml.CharData:
			if inStyle {
				styles++
				checkStyle(t, n, a.Header.Get("Content-Security-Policy"))
			}
			inStyle = false
		case xml.StartElement:
			inStyle = n.Name.Local == "style"
			switch n.Name.Local {
			case "script", "img", "iframe", "object", "embed", "link", "video", "audio", "form", "base":
				t.Errorf("the page has a <%s>", n.Name.Local)
			}
			for _, attr := range n.Attr {
				switch name := attr.Name.Local; {
				case name == "id":
					if ids[attr.Value] {
						t.Errorf("id %q twice", attr.Value)
					}
					ids[attr.Value] = true
				case name == "href":
					links = append(links, attr.Value)
				case name == "src" || name == "style" || strings.HasPrefix(name, "on"):
					t.Errorf("<%s %s=%q>", n.Name.Local, name, attr.Value)
				}
			}
		}
	}
	if styles != 1 {
		t.Errorf("%d styles", styles)
	}
	for _, link := range links {
		id, here := strings.CutPrefix(link, "#")
		if link != "/openapi.json" && (!here || !ids[id]) {
			t.Errorf("a link leads to %q", link)
		}
	}
	policy := a.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	for _, code := range domain.Codes() {
		if !ids[string(code)] {
			t.Errorf("the type of a problem leads to nothing: #%s", code)
		}
	}
	for id := range operationsOf(t, w) {
		if !ids[id] {
			t.Errorf("operation %s is not on the page", id)
		}
	}
}

func checkStyle(t *testing.T, css []byte, policy string) {
	t.Helper()
	if regexp.MustCompile(`(?i)url\(|@import|//`).Match(css) {
		t.Error("the style refers to something")
	}
	sum := sha256.Sum256(css)
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
		t.Errorf("the policy does not allow the style %s: %s", want, policy)
	}
}
