package domain

// TypingState says what somebody does who writes a message.
type TypingState string

// The states of protocol.md section 2.
const (
	TypingStarted  TypingState = "started"
	TypingPaused   TypingState = "paused"
	TypingFinished TypingState = "finished"
)

// Typing tells those who follow a conversation's signals that its principal is writing (protocol.md section 6).
type Typing struct {
	Conversation ConversationID `json:"conversation"`
	State        TypingState    `json:"state,omitempty" enum:"started,paused,finished" doc:"Absent: started."`
	Meta
}

// Name implements [Command].
func (*Typing) Name() string { return "typing" }

// Kind implements [Command].
func (*Typing) Kind() Kind { return Signalling }

// Needs implements [Command].
func (c *Typing) Needs(Principal) Needs { return Needs{Conversation: c.Conversation} }

func (c *Typing) check(Limits) error {
	if c.Conversation.IsZero() {
		return Errorf(InvalidRequest, "conversation is missing")
	}
	switch c.State {
	case "", TypingStarted, TypingPaused, TypingFinished:
		return nil
	}
	return Errorf(InvalidRequest, "state is started, paused or finished")
}

func (c *Typing) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.writable(p)
	if err != nil {
		return Decision{}, err
	}
	s := h.signal(SignalTyping, conv, p)
	if s.State = c.State; s.State == "" {
		s.State = TypingStarted
	}
	return Decision{Signals: []*Signal{s}}, nil
}

// writable gives the conversation of a command in which p may write.
func (h *Heads) writable(p Principal) (*Conversation, error) {
	conv, err := h.live(p)
	if err != nil {
		return nil, err
	}
	if r, ok := rights(conv, p); !ok || !r.CanWrite {
		return nil, Errorf(AccessDenied, "you may not write in this conversation")
	}
	return conv, nil
}

// signal starts a signal of p.
func (h *Heads) signal(t EventType, conv *Conversation, p Principal) *Signal {
	by := p.Initiator()
	return &Signal{Type: t, Conversation: conv.ID, Time: h.Now, Initiator: &by}
}
