package domain_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

const (
	mine    = domain.ContentID("00000000000000000000000000000001")
	partly  = domain.ContentID("00000000000000000000000000000002")
	hidden  = domain.ContentID("00000000000000000000000000000003")
	lacking = domain.ContentID("00000000000000000000000000000004")
)

func contents() []domain.ExternalContent {
	return []domain.ExternalContent{
		{ID: mine, MimeType: "video/mp4", Size: 7, Received: 7, Complete: true, Root: 1, Owner: domain.SenderID(alice), Readable: true},
		{ID: partly, MimeType: "video/mp4", Size: 7, Received: 3, Root: 1, Owner: domain.SenderID(alice), Readable: true},
		{ID: hidden, MimeType: "video/mp4", Size: 7, Received: 7, Complete: true, Root: 1, Owner: domain.SenderID(bob)},
	}
}

func TestPartsNameOnlyWhatTheirSenderMay(t *testing.T) {
	// What the log keeps is the content's id, with the size that it has; a URL would end.
	const base = "https://chat.example.com"
	kept := domain.Part{MimeType: "video/mp4", Content: mine, Size: 7}
	for name, c := range map[string]struct {
		part   domain.Part
		want   domain.Part
		number int
	}{
		"by its id":           {part: domain.Part{MimeType: "video/mp4", Content: mine}, want: kept},
		"with its size":       {part: domain.Part{MimeType: "video/mp4", Content: mine, Size: 7}, want: kept},
		"by its URL":          {part: domain.Part{MimeType: "video/mp4", URL: base + "/v1/content/" + string(mine) + "/data?expires=1&signature=x"}, want: kept},
		"by both":             {part: domain.Part{MimeType: "video/mp4", Content: mine, URL: base + "/v1/content/" + string(mine) + "/data", URLExpires: 5}, want: kept},
		"of another server":   {part: domain.Part{MimeType: "a/b", URL: "https://other.example/v1/content/" + string(mine) + "/data", URLExpires: 3}, want: domain.Part{MimeType: "a/b", URL: "https://other.example/v1/content/" + string(mine) + "/data"}},
		"of nobody":           {part: domain.Part{MimeType: "a/b", URL: base + "/v1/content/x", Size: 1 << 40}, want: domain.Part{MimeType: "a/b", URL: base + "/v1/content/x", Size: 1 << 40}},
		"another letter case": {part: domain.Part{MimeType: "VIDEO/MP4;x=y", Content: mine}, want: domain.Part{MimeType: "VIDEO/MP4;x=y", Content: mine, Size: 7}},
		"another type":        {part: domain.Part{MimeType: "video/ogg", Content: mine}, number: 1},
		"another size":        {part: domain.Part{MimeType: "video/mp4", Content: mine, Size: 8}, number: 1},
		"a negative size":     {part: domain.Part{MimeType: "video/mp4", Content: mine, Size: -7}, number: 1},
		"with a body":         {part: domain.Part{MimeType: "video/mp4", Content: mine, Body: "x"}, number: 1},
		"in base64":           {part: domain.Part{MimeType: "video/mp4", Content: mine, Encoding: "base64"}, number: 1},
		"and something else":  {part: domain.Part{MimeType: "video/mp4", Content: mine, URL: base + "/v1/content/" + string(partly) + "/data"}, number: 1},
		"not complete":        {part: domain.Part{MimeType: "video/mp4", Content: partly}, number: 1},
		"somebody else's":     {part: domain.Part{MimeType: "video/mp4", Content: hidden}, number: 110},
		"not there":           {part: domain.Part{MimeType: "video/mp4", Content: lacking}, number: 110},
		"ours, not there":     {part: domain.Part{MimeType: "video/mp4", URL: base + "/v1/content/" + string(lacking) + "/data"}, number: 110},
		"no id":               {part: domain.Part{MimeType: "video/mp4", Content: "../../x"}, number: 110},
	} {
		t.Run(name, func(t *testing.T) {
			conv := room()
			other := domain.Part{MimeType: "text/plain", Body: "x"}
			content := domain.Content{Parts: []domain.Part{other, c.part, other}}
			send := &domain.SendMessage{Conversation: conv.ID, MessageRequest: domain.MessageRequest{Content: content}}
			limits := domain.DefaultLimits()
			limits.ContentURL = base
			h := &domain.Heads{Conversation: conv, Limits: limits, External: contents()}
			d, err := decide(t, h, person(alice).Principal("phone"), send)
			if number(err) != c.number {
				t.Fatalf("number %d (%v), want %d", number(err), err, c.number)
			}
			if err == nil {
				if diff := cmp.Diff([]domain.Part{other, c.want, other}, d.Events[0].Message.Parts); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				return
			}
			// What is stored already is not asked about again; what is wrong with it by itself is.
			h.Again = true
			if _, err := decide(t, h, person(alice).Principal("phone"), send); c.number == 110 && c.part.Content != "../../x" && err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestOnlyWhatIsNamedIsLookedUp(t *testing.T) {
	// The lookup costs the store; a part that is none of its business must not.
	c := &domain.Content{Parts: []domain.Part{
		{MimeType: "a/b", Body: "/v1/content/" + string(mine)},
		{MimeType: "a/b", URL: "https://x.example/v1/content/" + strings.ToUpper("abcdefabcdefabcdefabcdefabcdefab")},
		{MimeType: "a/b", URL: "https://x.example/v1/content/"},
		{MimeType: "a/b", URL: "https://x.example/v1/content/" + string(partly)},
		{MimeType: "a/b", Content: mine},
		{MimeType: "a/b", Content: mine},
	}}
	if diff := cmp.Diff([]domain.ContentID{partly, mine}, c.External()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// linker makes URLs that can be told apart.
type linker struct{}

func (linker) Download(id domain.ContentID) (url string, expires int64) {
	return "down/" + string(id), 1
}

func (linker) Upload(id domain.ContentID) (url string, expires int64) { return "up/" + string(id), 2 }

func TestLinksAreMadeForTheReaderAndLeaveTheLogAlone(t *testing.T) {
	// Messages are shared by everybody who reads them: what is made for one must not be seen in the log, or by another.
	m := &domain.Message{Content: domain.Content{Parts: []domain.Part{{MimeType: "a/b", Content: mine, Size: 7}, {MimeType: "a/b", URL: "https://x"}}}}
	plain := &domain.Message{Content: domain.Content{Text: "x", Parts: []domain.Part{{MimeType: "a/b", URL: "https://x"}}}}
	before := deepCopy(m)
	linked := domain.Part{MimeType: "a/b", Content: mine, Size: 7, URL: "down/" + string(mine), URLExpires: 1}
	r := (&domain.Result{
		Message: m, Events: []*domain.Event{{Message: plain}, {}, {Message: m}, {Message: m}},
		Unread: []domain.Unread{{LastMessage: m}, {LastMessage: plain}, {}},
	}).Linked(linker{})
	for i, got := range []*domain.Message{r.Message, r.Events[2].Message, r.Events[3].Message, r.Unread[0].LastMessage} {
		if diff := cmp.Diff(linked, got.Parts[0]); diff != "" || got.Parts[1].URL != "https://x" {
			t.Errorf("message %d: -want +got:\n%s", i, diff)
		}
	}
	if r.Events[0].Message != plain || r.Unread[1].LastMessage != plain || plain.Linked(linker{}) != plain || m.Linked(nil) != m {
		t.Error("what has no content was copied")
	}
	if diff := cmp.Diff(before, m); diff != "" {
		t.Errorf("the message itself was changed:\n%s", diff)
	}
	all := contents()
	if x := (&domain.Result{External: &all[0]}).Linked(linker{}).External; x.URL == "" || x.UploadURL != "" || all[0].URL != "" {
		t.Errorf("complete: %+v", x)
	}
	if x := (&domain.Result{External: &all[1]}).Linked(linker{}).External; x.URL != "" || x.UploadURL == "" {
		t.Errorf("not complete: %+v", x)
	}
}

func TestContentIsShownToWhoMayHaveIt(t *testing.T) {
	// An upload that goes on is its owner's business; what is complete, that of who may read it.
	for _, c := range []struct {
		who    domain.Principal
		id     domain.ContentID
		number int
	}{
		{person(alice).Principal(""), mine, 0},
		{person(alice).Principal(""), partly, 0},
		{person(alice).Principal(""), hidden, 110},
		{person(alice).Principal(""), lacking, 110},
		{person(bob).Principal(""), partly, 110},
		{backend.principal(), mine, 0},
		{backend.principal(), partly, 110},
		{foreignBackend.principal(), mine, 110},
		{outsider.principal(), mine, 110},
		{person(alice).Principal(""), "", 1},
	} {
		_, err := decide(t, &domain.Heads{External: contents()}, c.who, &domain.GetContent{Content: c.id})
		if number(err) != c.number {
			t.Errorf("%s%s asks for %s: number %d (%v), want %d", c.who.Username, c.who.ServiceName, c.id, number(err), err, c.number)
		}
	}
}
