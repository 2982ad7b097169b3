package gateway

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/parley-im/parley/domain"
)

// Do runs a command for whoever is not a session, and waits for its result. Its errors are refusals. A user's commands count
// as those of its sessions do.
func (g *Gateway) Do(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error) {
	if p.IsUser() && !g.hub.allowanceOf(g, p.User).allow(c) {
		err := errTooMany()
		g.metrics.command(c.Name(), err)
		return domain.Receipt{}, err
	}
	type outcome struct {
		receipt domain.Receipt
		err     error
	}
	done := make(chan outcome, 1)
	g.run(p, c, g.now(), func(r domain.Receipt, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		return o.receipt, o.err
	case <-ctx.Done():
		return domain.Receipt{}, domain.Because(domain.Unavailable, ctx.Err(), "the answer was not waited for")
	}
}

// run starts a command: done is called once, from any goroutine.
func (g *Gateway) run(p domain.Principal, c domain.Command, accepted time.Time, done func(domain.Receipt, error)) {
	if finish, ok := g.admit(c, done); ok {
		g.start(p, c, accepted, finish)
	}
}

// enter counts work in, of which underway is told when it is done; false: the gateway drains, and takes no more.
func (g *Gateway) enter() bool {
	g.admission.RLock()
	defer g.admission.RUnlock()
	if g.draining.Load() {
		return false
	}
	g.underway.Add(1)
	return true
}

// admit takes a command, whose outcome is to be given to finish. If not ok it was refused, and done has been called.
func (g *Gateway) admit(c domain.Command, done func(domain.Receipt, error)) (finish func(domain.Receipt, error), ok bool) {
	if !g.enter() {
		done(domain.Receipt{}, domain.Errorf(domain.Unavailable, "the gateway is shutting down"))
		return nil, false
	}
	finish = g.finishing(c, done)
	if err := domain.Check(c, g.limits); err != nil {
		finish(domain.Receipt{}, err)
		return nil, false
	}
	return finish, true
}

// finishing gives what ends a command that was counted in.
func (g *Gateway) finishing(c domain.Command, done func(domain.Receipt, error)) func(domain.Receipt, error) {
	name := c.Name()
	return func(r domain.Receipt, err error) {
		g.metrics.command(name, err)
		r.Result = r.Result.Linked(g.links)
		done(r, err)
		g.underway.Done()
	}
}

func errTooBusy() error { return domain.Errorf(domain.Unavailable, "too many questions at a time") }

// start carries out a command that was checked and counted in.
func (g *Gateway) start(p domain.Principal, c domain.Command, accepted time.Time, finish func(domain.Receipt, error)) {
	// Who gives a Willing here has no session, and is told so.
	if kind := c.Kind(); kind == domain.Read || kind == domain.Logins || kind == domain.Willing {
		if g.reads.Add(1) > maxReads {
			g.reads.Add(-1)
			finish(domain.Receipt{}, errTooBusy())
			return
		}
		go func() {
			defer g.reads.Add(-1)
			if c.Kind() == domain.Logins {
				g.underway.Add(1) // until its sessions are ended, too
				defer g.underway.Done()
				result, after, err := g.logIns(p, c)
				finish(domain.Receipt{Result: &result}, err)
				after()
				return
			}
			result, err := g.read(p, c)
			finish(domain.Receipt{Result: &result}, err)
		}()
		return
	}
	if c.Kind() == domain.Immediate {
		result, err := g.immediate(p, c)
		finish(domain.Receipt{Result: &result}, err)
		return
	}
	it := &item{
		principal: p, command: c, accepted: accepted, size: weightOf(c), done: finish, key: newKey(),
	}
	needs := c.Needs(p)
	id, creates := needs.Conversation, needs.Conversation.IsZero()
	if creates && c.Kind() == domain.Announcing {
		it.newID = domain.ConversationID(uuid.Must(uuid.NewV7()))
		it.shard = g.shardOf(it.newID)
		g.submit(it)
		return
	}
	if creates && needs.Self {
		it.shard = g.shards[int(uint64(p.User)%uint64(len(g.shards)))]
		g.submit(it)
		return
	}
	if creates {
		it.newID = domain.ConversationID(uuid.Must(uuid.NewV7()))
		id = it.newID
	}
	it.stream, it.shard = g.hub.stream(id), g.shardOf(id)
	g.enqueue(it, creates)
}

// weightOf approximates how many bytes a command adds to a batch.
func weightOf(c domain.Command) int {
	var said domain.Content
	switch c := c.(type) {
	case *domain.SendMessage:
		said = c.Content
	case *domain.Announce:
		said = c.Content
	case *domain.EditMessage:
		said = domain.Content{Payload: c.Payload, Parts: c.Parts, Attributes: c.Attributes}
		if c.Text != nil {
			said.Text = *c.Text
		}
	}
	n := 256 + len(said.Text) + len(said.Attributes)
	for _, p := range said.Payload {
		n += len(p)
	}
	for i := range said.Parts {
		n += len(said.Parts[i].Body)
	}
	return n
}

func (g *Gateway) shardOf(id domain.ConversationID) *shard {
	// The last bytes of a UUID are random in every version that is used.
	return g.shards[(int(id[14])<<8|int(id[15]))%len(g.shards)]
}

// enqueue passes an item to its committer; if the conversation's head is not at hand, after it was read. Items of one
// conversation keep their order meanwhile.
func (g *Gateway) enqueue(it *item, creates bool) {
	st := it.stream
	st.mu.Lock()
	if creates {
		st.born = true
	}
	if st.head == nil && !creates || st.loading {
		if g.headless.Add(1) > int64(g.maxQueue) {
			g.headless.Add(-1)
			st.mu.Unlock()
			g.refuse(it)
			return
		}
		st.waiting = append(st.waiting, it)
		load := !st.loading
		st.loading = true
		st.mu.Unlock()
		if load {
			g.background.Go(func() { g.load(st) })
		}
		return
	}
	st.mu.Unlock()
	g.submit(it)
}

func (g *Gateway) submit(it *item) {
	switch {
	case it.command.Kind() == domain.Signalling:
		g.tellOnline(it)
	case !it.shard.submit(it):
		g.refuse(it)
	}
}

func (g *Gateway) refuse(it *item) {
	it.err = domain.Errorf(domain.Unavailable, "too many commands are waiting")
	g.answer(it)
}

// load reads a conversation's head and then lets those that wait for it go on.
func (g *Gateway) load(st *stream) {
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	head, err := g.head(ctx, st.id)
	cancel()
	if err == nil {
		st.announcing.Lock()
		if st.open(head) {
			g.hub.settle(st, head)
		}
		st.announcing.Unlock()
		g.hub.weigh(st, st.holds())
	}
	for {
		st.mu.Lock()
		waiting := st.waiting
		st.waiting = nil
		if len(waiting) == 0 {
			st.loading = false
			st.mu.Unlock()
			return
		}
		st.mu.Unlock()
		g.headless.Add(-int64(len(waiting)))
		for _, it := range waiting {
			if err != nil {
				it.err = err
				g.answer(it)
				continue
			}
			g.submit(it)
		}
	}
}

// consider decides on what the store holds at the moment.
func (g *Gateway) consider(ctx context.Context, p domain.Principal, c domain.Command) (d domain.Decision, err error) {
	defer g.contain(c.Name(), &err)
	heads, err := g.history.Heads(ctx, p, c.Needs(p))
	if err != nil {
		return domain.Decision{}, err
	}
	heads.Now, heads.Limits = domain.Millis(g.now()), g.limits
	return domain.Decide(heads, p, c)
}

// read answers a command that changes nothing.
func (g *Gateway) read(p domain.Principal, c domain.Command) (result domain.Result, err error) {
	defer g.contain(c.Name(), &err)
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	decision, err := g.consider(ctx, p, c)
	if err != nil {
		return domain.Result{}, err
	}
	if page := decision.Page; page != nil {
		events, err := g.history.Events(ctx, page.Conversation, page.From-1, page.To)
		if err != nil {
			return domain.Result{}, err
		}
		decision.Result.Events = make([]*domain.Event, 0, len(events))
		for _, ev := range events {
			if page.Shows(ev.Seq) {
				decision.Result.Events = append(decision.Result.Events, ev)
			}
		}
	}
	return decision.Result, nil
}

// Consider reports why a command of p would be refused if it came at the time, as far as that is known now. It carries nothing
// out.
func (g *Gateway) Consider(ctx context.Context, p domain.Principal, c domain.Command, at time.Time) (err error) {
	defer g.contain(c.Name(), &err)
	if err := domain.Check(c, g.limits); err != nil {
		return err
	}
	needs := c.Needs(p)
	if m, ok := c.(*domain.SendMessage); ok {
		needs.External = m.External() // what its claim would find
	}
	heads, err := g.history.Heads(ctx, p, needs)
	if err != nil {
		return err
	}
	heads.Now, heads.Limits = domain.Millis(at), g.limits
	_, err = domain.Decide(heads, p, c)
	return err
}

// immediate answers a command that does not need the store.
func (g *Gateway) immediate(p domain.Principal, c domain.Command) (domain.Result, error) {
	d, err := g.decide(&domain.Heads{Now: domain.Millis(g.now()), Limits: g.limits}, p, c)
	if err != nil {
		return domain.Result{}, err
	}
	if d.Status != nil {
		g.presence.set(p, *d.Status)
	}
	g.notify(p, d.Notices)
	return d.Result, nil
}

// head reads the present state of a conversation. A conversation that does not exist is an error.
func (g *Gateway) head(ctx context.Context, id domain.ConversationID) (head *domain.Conversation, err error) {
	defer g.contain("reading a head", &err)
	heads, err := g.history.Heads(ctx, domain.Principal{Admin: true}, domain.Needs{Conversation: id})
	switch {
	case err != nil:
		return nil, err
	case heads.Conversation == nil:
		return nil, domain.Errorf(domain.ConversationNotFound, "no such conversation")
	}
	return heads.Conversation, nil
}

// page reads a stretch of a log: the events after one number up to another.
func (g *Gateway) page(
	ctx context.Context, id domain.ConversationID, after, upto domain.Seq,
) (events []*domain.Event, err error) {
	defer g.contain("reading events", &err)
	return g.history.Events(ctx, id, after, upto)
}

// decide runs the rules; a defect in them fails the one command that hits it.
func (g *Gateway) decide(h *domain.Heads, p domain.Principal, c domain.Command) (d domain.Decision, err error) {
	defer g.contain(c.Name(), &err)
	return domain.Decide(h, p, c)
}

// contain makes an internal error of a panic in the function that defers it.
func (g *Gateway) contain(doing string, err *error) {
	if v := recover(); v != nil {
		g.metrics.panics.Inc()
		g.logger.Error("a panic", slog.String("in", doing), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		*err = domain.Errorf(domain.Internal, "something went wrong inside Parley")
	}
}
