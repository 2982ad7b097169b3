package domain

import (
	"slices"
	"strings"
)

// ContentID names content that is kept outside of messages: 128 random bits as 32 hexadecimal digits.
type ContentID string

// contentDigits is the length of a ContentID.
const contentDigits = 32

// ParseContentID reads a ContentID.
func ParseContentID(s string) (ContentID, bool) {
	if len(s) != contentDigits || strings.Trim(s, "0123456789abcdef") != "" {
		return "", false
	}
	return ContentID(s), true
}

// ExternalContent is content that is kept outside of messages, for parts to name (protocol.md section 8).
type ExternalContent struct {
	ID       ContentID `json:"id" doc:"What a part names as its content."`
	MimeType string    `json:"mimeType"`
	Size     int64     `json:"size" doc:"In bytes."`
	SHA256   string    `json:"sha256,omitempty" doc:"Digest in hexadecimal: the one announced, or that of what has come."`
	Received int64     `json:"received" doc:"Bytes that have come."`
	Complete bool      `json:"complete" doc:"All of it has come: parts may name it."`
	Created  int64     `json:"createdTime" doc:"Milliseconds since 1970."`

	URL           string `json:"url,omitempty" doc:"Where it is to be had; no further login is asked for."`
	URLExpires    int64  `json:"urlExpires,omitempty" doc:"Until when, in milliseconds since 1970."`
	UploadURL     string `json:"uploadUrl,omitempty" doc:"Where its bytes go by PUT; towards the owner, until it is complete."`
	UploadExpires int64  `json:"uploadExpires,omitempty" doc:"Until when, in milliseconds since 1970."`

	// Owner is who uploads it, in the account tree of Root.
	Owner SenderID  `json:"-"`
	Root  AccountID `json:"-"`
	// Readable is set where the principal that it was looked up for may have it: its owner, a backend of the tree, or who
	// may read a message that has it.
	Readable bool `json:"-"`
}

// ContentRequest announces an upload.
type ContentRequest struct {
	MimeType string `json:"mimeType" doc:"Of the form type/subtype."`
	Size     int64  `json:"size" doc:"In bytes, from 1."`
	SHA256   string `json:"sha256,omitempty" doc:"Digest in hexadecimal; what comes is checked against it."`
}

// Check reports what is wrong with the request; most is the largest size allowed.
func (r *ContentRequest) Check(most int64) error {
	switch {
	case !validMimeType(r.MimeType):
		return Errorf(InvalidRequest, "mimeType must have the form type/subtype")
	case r.Size < 1:
		return Errorf(InvalidRequest, "size is the number of bytes, at least 1")
	case r.Size > most:
		return Errorf(MessageTooLarge, "size is at most %d bytes", most)
	case r.SHA256 != "" && (len(r.SHA256) != 64 || strings.Trim(r.SHA256, "0123456789abcdefABCDEF") != ""):
		return Errorf(InvalidRequest, "sha256 is 64 hexadecimal digits")
	}
	return nil
}

func validMimeType(s string) bool { return len(s) <= maxMimeType && mimePattern.MatchString(s) }

// SameMediaType reports whether two MIME types are the same but for their parameters.
func SameMediaType(a, b string) bool {
	media := func(s string) string {
		t, _, _ := strings.Cut(s, ";")
		return strings.ToLower(strings.TrimSpace(t))
	}
	return media(a) == media(b)
}

// Links make the URLs of external content. They are good for whoever has them, and for some time.
type Links interface {
	// Download gives where content is to be had, and until when in milliseconds since 1970.
	Download(id ContentID) (url string, expires int64)
	// Upload gives where the bytes of content go.
	Upload(id ContentID) (url string, expires int64)
}

// contentPath is what the path of a URL of external content has before the id.
const contentPath = "/v1/content/"

// ContentPath is the path of what comes and goes under signed URLs of external content.
func ContentPath(id ContentID) string { return contentPath + string(id) + "/data" }

// external gives the id of the external content that the part names, directly or by a URL that looks like one of ours;
// empty: none.
func (p *Part) external() ContentID {
	if p.Content != "" {
		return p.Content
	}
	_, rest, ok := strings.Cut(p.URL, contentPath)
	if !ok || len(rest) < contentDigits {
		return ""
	}
	id, _ := ParseContentID(rest[:contentDigits])
	return id
}

// named reports whether the URL of a part is one that this gateway made for the content.
func (p *Part) named(id ContentID, l Limits) bool {
	return l.ContentURL != "" && strings.HasPrefix(p.URL, l.ContentURL+contentPath+string(id))
}

// External gives the ids of external content that the parts name or seem to name, each once.
func (c *Content) External() []ContentID {
	var ids []ContentID
	for i := range c.Parts {
		if id := c.Parts[i].external(); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (h *Heads) external(id ContentID, p Principal) *ExternalContent {
	i := slices.IndexFunc(h.External, func(x ExternalContent) bool { return x.ID == id })
	if i < 0 || !p.Sees(h.External[i].Root) || !h.External[i].Readable {
		return nil
	}
	return &h.External[i]
}

// parts gives the parts of a message as the log keeps them: those that name external content by its id, without URLs,
// which expire. It refuses content that is not there for p, not complete, or something else than the part says.
func (h *Heads) parts(parts []Part, p Principal) ([]Part, error) {
	var kept []Part
	for i := range parts {
		part := &parts[i]
		id := part.external()
		switch {
		case id == "", part.Content == "" && !part.named(id, h.Limits):
			if part.URLExpires != 0 {
				kept = either(kept, parts)
				kept[i].URLExpires = 0
			}
			continue
		case h.Again:
			return parts, nil // the first acceptance is what counts, whatever became of its content
		}
		x := h.external(id, p)
		switch {
		case x == nil:
			return nil, Errorf(NotFound, "parts[%d]: there is no such content", i)
		case !x.Complete:
			return nil, Errorf(InvalidRequest, "parts[%d]: of the content %d of %d bytes have been uploaded", i, x.Received, x.Size)
		case !SameMediaType(part.MimeType, x.MimeType):
			return nil, Errorf(InvalidRequest, "parts[%d].mimeType is not that of the content, %s", i, clip(x.MimeType))
		case part.Size != 0 && part.Size != x.Size:
			return nil, Errorf(InvalidRequest, "parts[%d].size is not that of the content, %d", i, x.Size)
		}
		kept = either(kept, parts)
		kept[i] = Part{MimeType: part.MimeType, Content: id, Size: x.Size}
	}
	if kept == nil {
		return parts, nil
	}
	return kept, nil
}

// either gives the copy of parts, making it if there is none.
func either(copied, parts []Part) []Part {
	if copied == nil {
		return slices.Clone(parts)
	}
	return copied
}

// checkExternal reports what is wrong with the i-th part of a message as far as it concerns external content.
func (p *Part) checkExternal(i int) error {
	if p.Content == "" {
		return nil
	}
	if _, ok := ParseContentID(string(p.Content)); !ok {
		return Errorf(NotFound, "parts[%d]: there is no such content", i)
	}
	if p.Body != "" || p.Encoding != "" {
		return Errorf(InvalidRequest, "parts[%d] has both body and content", i)
	}
	if p.URL != "" && (&Part{URL: p.URL}).external() != p.Content {
		return Errorf(InvalidRequest, "parts[%d] has a content and the url of something else", i)
	}
	return nil
}

// HasExternal reports whether a part of the content is kept outside of the message.
func (c *Content) HasExternal() bool {
	return slices.ContainsFunc(c.Parts, func(p Part) bool { return p.Content != "" })
}

// Linked gives the message as readers see it, with URLs for its external content: the message itself where it has none.
func (m *Message) Linked(l Links) *Message {
	if m == nil || l == nil || !m.HasExternal() {
		return m
	}
	linked := *m
	linked.Parts = slices.Clone(m.Parts)
	for i := range linked.Parts {
		if p := &linked.Parts[i]; p.Content != "" {
			p.URL, p.URLExpires = l.Download(p.Content)
		}
	}
	return &linked
}

// Linked gives the result as the caller sees it, with URLs for external content.
func (r *Result) Linked(l Links) *Result {
	if r == nil || l == nil {
		return r
	}
	linked := *r
	linked.Message = r.Message.Linked(l)
	for i, e := range r.Events {
		if m := e.Message.Linked(l); m != e.Message {
			if &linked.Events[0] == &r.Events[0] {
				linked.Events = slices.Clone(r.Events)
			}
			with := *e
			with.Message = m
			linked.Events[i] = &with
		}
	}
	if r.Unread != nil {
		linked.Unread = slices.Clone(r.Unread)
		for i := range linked.Unread {
			linked.Unread[i].LastMessage = linked.Unread[i].LastMessage.Linked(l)
		}
	}
	if r.External != nil {
		x := *r.External
		if x.Complete {
			x.URL, x.URLExpires = l.Download(x.ID)
		} else {
			x.UploadURL, x.UploadExpires = l.Upload(x.ID)
		}
		linked.External = &x
	}
	return &linked
}

// GetContent asks for external content: fresh URLs, and how much of it has come (protocol.md section 8).
type GetContent struct {
	Content ContentID `json:"content" doc:"Id of the content."`
	Meta
}

// Name implements [Command].
func (*GetContent) Name() string { return "getContent" }

// Kind implements [Command].
func (*GetContent) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetContent) Needs(Principal) Needs { return Needs{External: []ContentID{c.Content}} }

func (c *GetContent) check(Limits) error {
	if c.Content == "" {
		return Errorf(InvalidRequest, "content is missing")
	}
	return nil
}

func (c *GetContent) decide(h *Heads, p Principal) (Decision, error) {
	x := h.external(c.Content, p)
	// What is not complete is nobody's business but of who uploads it.
	if x == nil || !x.Complete && x.Owner != p.Sender() {
		return Decision{}, Errorf(NotFound, "there is no such content")
	}
	return Decision{Result: Result{External: x}}, nil
}

// ContentClaim says which external content a message that is about to be stored names, and which message that is.
type ContentClaim struct {
	Principal    Principal
	Conversation ConversationID
	// ClientID is that of the message: with conversation and sender it tells which one it is.
	ClientID string
	External []ContentID
}

// ClaimedContent answers a claim.
type ClaimedContent struct {
	// Known: the message is stored already.
	Known bool
	// External is the content that exists, in no order.
	External []ExternalContent
}

// StoredContent is external content with what the store alone needs to know.
type StoredContent struct {
	ExternalContent
	// Digest is the state of SHA-256 after the bytes that have come, in the form of its encoding.BinaryMarshaler.
	Digest []byte
	// Blobs are where these bytes are, in their order and without a gap.
	Blobs []ContentBlob
}

// ContentBlob is a piece of external content.
type ContentBlob struct {
	// Key names the piece where the bytes are kept.
	Key         string
	Start, Size int64
}

// ContentQuota bounds what one user may keep. 0 is no bound.
type ContentQuota struct {
	// Bytes of all of its content; Uploads that are not complete.
	Bytes   int64
	Uploads int
}

// ContentPiece says which bytes of external content a request brings.
type ContentPiece struct {
	// Ranged: they begin at Offset; else they are the whole content, and what came before is forgotten.
	Ranged bool
	Offset int64
	// Length is how many they are, -1 if that is not known; Total the size of the whole content as the client has it, 0 if
	// it did not say.
	Length, Total int64
}
