package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// The bounds of one batch. No timer: a batch is what gathered while the one
// before was being committed.
const (
	maxBatch      = 512
	maxBatchBytes = 1 << 20
)

// item is a command on its way through a committer.
type item struct {
	principal domain.Principal
	command   domain.Command
	shard     *shard
	// stream is that of the conversation that the command is about; nil: it is about the principal alone.
	stream *stream
	// accepted is when the gateway took the command; until it is answered it may be no older than the deadline.
	accepted time.Time
	size     int
	done     func(domain.Receipt, error)

	// key identifies the command at the store: for messages together with conversation and sender.
	key   string
	newID domain.ConversationID
	// claimed is the external content that the message names.
	claimed domain.ClaimedContent

	// What the committer finds out. head is the state on which a message was decided, or to which a change led.
	head    *domain.Conversation
	draft   domain.Draft
	decided domain.Decision
	receipt domain.Receipt
	err     error
	twin    *item // an earlier item of the batch with the same idempotency key
}

// shard commits the commands of its share of the conversations, in the order in which they came.
type shard struct {
	g   *Gateway
	log Log

	mu     sync.Mutex
	queue  []*item
	closed bool
	wake   chan struct{}

	shipments chan []*item
}

func newShard(g *Gateway, log Log) *shard {
	return &shard{g: g, log: log, wake: make(chan struct{}, 1), shipments: make(chan []*item, 1)}
}

// submit queues an item; false: there are too many.
func (s *shard) submit(it *item) bool {
	s.mu.Lock()
	if s.closed || len(s.queue) >= s.g.maxQueue {
		s.mu.Unlock()
		return false
	}
	s.queue = append(s.queue, it)
	s.g.metrics.queued.Inc()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// take gives the next batch, waiting for one; nil when the shard is closed and empty.
func (s *shard) take() []*item {
	for {
		s.mu.Lock()
		n, bytes := 0, 0
		for n < len(s.queue) && n < maxBatch && (n == 0 || bytes+s.queue[n].size <= maxBatchBytes) {
			bytes += s.queue[n].size
			n++
		}
		batch := s.queue[:n:n]
		if s.queue = s.queue[n:]; len(s.queue) == 0 {
			s.queue = nil // lets go of the array
		}
		closed := s.closed
		s.mu.Unlock()
		if n > 0 {
			s.g.metrics.queued.Sub(float64(n))
			return batch
		}
		if closed {
			return nil
		}
		<-s.wake
	}
}

// close lets commit end once the queue is empty.
func (s *shard) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// commit is the committer: it takes batches and passes on what it committed, until the shard is closed and empty.
func (s *shard) commit() {
	defer close(s.shipments)
	for batch := s.take(); batch != nil; batch = s.take() {
		s.process(batch)
		s.shipments <- batch
	}
}

// process decides and commits a batch. Messages that follow one another make one transaction, changes that follow
// one another another, so that the order of a pipelining client is kept.
func (s *shard) process(batch []*item) {
	defer func() {
		// One command that hits a defect must not end the gateway; nothing of the rest of its batch is acknowledged.
		if p := recover(); p != nil {
			s.g.metrics.panics.Inc()
			s.g.logger.Error("a batch ended in a panic", slog.Any("panic", p))
			for _, it := range batch {
				if it.err == nil && it.receipt.Seq == 0 {
					it.err = domain.Errorf(domain.Internal, "something went wrong inside Parley")
				}
			}
		}
	}()
	batch = arranged(s.inTime(batch))
	for len(batch) > 0 {
		appends, n := batch[0].command.Kind() == domain.Append, 1
		for n < len(batch) && (batch[n].command.Kind() == domain.Append) == appends {
			n++
		}
		if appends {
			s.appendAll(batch[:n])
		} else {
			s.changeAll(batch[:n])
		}
		batch = batch[n:]
	}
}

// arranged gives a batch with read marks moved behind the messages that came after them, which they do not concern: each
// change from one kind to the other costs a transaction.
func arranged(batch []*item) []*item {
	marks := func(it *item) bool { return it.command.Kind() == domain.Marking }
	if !slices.ContainsFunc(batch, marks) {
		return batch
	}
	list := make([]*item, 0, len(batch))
	var later []*item
	for _, it := range batch {
		switch it.command.Kind() {
		case domain.Marking:
			later = append(later, it)
			continue
		case domain.Append:
		default:
			list = append(list, later...)
			later = nil
		}
		list = append(list, it)
	}
	return append(list, later...)
}

// inTime refuses the commands that waited longer than the attempts for a command may take, so that a store that hangs
// costs its timeout once and not once per batch. It gives the others.
func (s *shard) inTime(batch []*item) []*item {
	now := s.g.now()
	late := func(it *item) bool { return now.Sub(it.accepted) > s.g.commitDeadline }
	if !slices.ContainsFunc(batch, late) {
		return batch
	}
	var rest []*item
	for _, it := range batch {
		if late(it) {
			it.err = domain.Errorf(domain.Unavailable, "the store is too slow")
			continue
		}
		rest = append(rest, it)
	}
	return rest
}

// appendAll decides messages on the cached heads and stores them. Those whose head has moved on are decided again
// on the new one, in their order.
func (s *shard) appendAll(items []*item) {
	if items = s.claim(items); len(items) == 0 {
		return
	}
	for round := 0; len(items) > 0; round++ {
		drafted := s.decide(items)
		if len(drafted) == 0 {
			return
		}
		placements, err := s.store(drafted)
		if err != nil {
			s.fail(drafted, err, func(half []*item) { s.appendAll(half) })
			return
		}
		items = s.placed(drafted, placements)
		if round == 10 {
			for _, it := range items {
				it.err = domain.Errorf(domain.Unavailable, "the conversation keeps changing")
			}
			return
		}
		s.reload(items)
	}
}

// decide runs the rules for messages and gives those that are to be stored.
func (s *shard) decide(items []*item) []*item {
	drafted := make([]*item, 0, len(items))
	type identity struct {
		conversation domain.ConversationID
		sender       domain.SenderID
		key          string
	}
	seen := make(map[identity]*item, len(items))
	heads := domain.Heads{Now: domain.Millis(s.g.now()), Limits: s.g.limits}
	// All messages of a conversation are decided on one head, though a newer one may come in meanwhile: were the
	// earlier decided on an older head than the later, it would be stale and end up behind it.
	current := make(map[*stream]*domain.Conversation)
	for _, it := range items {
		if it.err != nil {
			continue
		}
		if current[it.stream] == nil {
			current[it.stream] = it.stream.Head()
		}
		it.head = current[it.stream]
		heads.Conversation, heads.External, heads.Again = it.head, it.claimed.External, it.claimed.Known
		decision, err := s.g.decide(&heads, it.principal, it.command)
		if err != nil {
			it.err = err
			continue
		}
		ev := decision.Events[0]
		if ev.ClientID == "" {
			ev.ClientID = it.key
		}
		id := identity{ev.Conversation, ev.Sender, ev.ClientID}
		if first := seen[id]; first != nil && first != it {
			it.twin = first
			continue
		}
		seen[id] = it
		it.decided = decision
		it.draft = domain.Draft{Event: ev, Version: heads.Conversation.Version}
		drafted = append(drafted, it)
	}
	return drafted
}

// placed notes what became of the drafts and gives those that were decided on a stale head.
func (s *shard) placed(items []*item, placements []domain.Placement) (stale []*item) {
	for i, it := range items {
		pl, ev := placements[i], it.draft.Event
		switch pl.Status {
		case domain.Stored:
			ev.At(ev.Conversation, pl.Seq)
		case domain.Stale:
			stale = append(stale, it)
			continue
		case domain.Missing:
			it.err = domain.Errorf(domain.ConversationNotFound, "no such conversation")
			continue
		case domain.Known:
			it.draft.Event = nil
		}
		it.receipt = domain.Receipt{
			Conversation: ev.Conversation, Seq: pl.Seq, Message: domain.NewMessageID(ev.Conversation, pl.Seq),
			Duplicate: pl.Status == domain.Known, Result: &it.decided.Result,
		}
	}
	return stale
}

// changeAll decides and stores changes under the store's locks.
func (s *shard) changeAll(items []*item) {
	requests := make([]domain.ChangeRequest, len(items))
	for i, it := range items {
		requests[i] = domain.ChangeRequest{
			Key: it.key, Principal: it.principal, Needs: it.command.Needs(it.principal),
			Decide: func(h *domain.Heads) (domain.Decision, error) {
				h.Now, h.NewID, h.Limits = domain.Millis(s.g.now()), it.newID, s.g.limits
				return s.g.decide(h, it.principal, it.command)
			},
		}
	}
	var changed []domain.Changed
	err := s.retry(items, func(ctx context.Context) (err error) {
		changed, err = s.log.Change(ctx, requests)
		return err
	})
	if err != nil {
		s.fail(items, err, func(half []*item) { s.changeAll(half) })
		return
	}
	s.g.metrics.observeBatch(len(items))
	for i, it := range items {
		c := changed[i]
		if it.err = c.Err; it.err != nil {
			continue
		}
		it.decided, it.head = c.Decision, c.Decision.Conversation
		if it.head == nil {
			it.head = c.Before // a message was edited or removed, which leaves the state as it is
		}
		it.receipt = domain.Receipt{Result: &it.decided.Result}
		if conv := c.Decision.Result.Conversation; conv != nil {
			it.receipt.Conversation = conv.ID
		}
		if read := c.Decision.Read; read != nil {
			it.receipt.Conversation = read.Conversation
		}
		for _, ev := range c.Decision.Events {
			it.receipt.Conversation, it.receipt.Seq = ev.Conversation, ev.Seq
			if ev.Message != nil {
				it.receipt.Message = ev.Message.ID
			}
		}
		if ex := c.Decision.Result.Existing; ex != nil && *ex || c.Decision.Result.Duplicate {
			it.receipt.Duplicate = true
		}
		if c.Decision.Conversation != nil {
			it.stream.advance(c.Decision.Conversation)
		}
	}
}

// newKey makes a key that nobody has used.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}
