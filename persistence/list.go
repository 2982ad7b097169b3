package persistence

import (
	"context"

	"github.com/parley-im/parley/domain"
)

// The comparisons of pairs leave the planner one index for both the condition and the order.
const (
	selectMine = `SELECT p.conversation_id FROM participants p JOIN conversation_data d ON d.id = p.conversation_id
		WHERE p.user_id = $1 AND (p.user_id, p.conversation_id) > ($1, $2) AND NOT d.removed
		ORDER BY p.user_id, p.conversation_id LIMIT $3`

	selectPublicOf = `SELECT id FROM conversation_data WHERE root_id = $1 AND (root_id, id) > ($1, $2) AND account_id IN ($1, $3)
		AND public_join AND NOT removed ORDER BY root_id, id LIMIT $4`
	selectPublic = `SELECT id FROM conversation_data WHERE root_id = $1 AND (root_id, id) > ($1, $2)
		AND public_join AND NOT removed ORDER BY root_id, id LIMIT $3`
	selectTree = `SELECT id FROM conversation_data WHERE root_id = $1 AND (root_id, id) > ($1, $2) AND NOT removed
		ORDER BY root_id, id LIMIT $3`
	selectAllPublic = `SELECT id FROM conversation_data WHERE id > $1 AND public_join AND NOT removed ORDER BY id LIMIT $2`
	selectAll       = `SELECT id FROM conversation_data WHERE id > $1 AND NOT removed ORDER BY id LIMIT $2`
)

// list reads a page of conversations' ids.
func (s *Store) list(ctx context.Context, q runner, c *domain.ConversationQuery) ([]domain.ConversationID, error) {
	after, limit := c.After[:], int64(c.Limit)
	switch {
	case c.Member != 0:
		return scanIDs(ctx, q, selectMine, int64(c.Member), after, limit)
	case c.Root == 0 && c.Public:
		return scanIDs(ctx, q, selectAllPublic, after, limit)
	case c.Root == 0:
		return scanIDs(ctx, q, selectAll, after, limit)
	case c.Public && c.Account != 0:
		return scanIDs(ctx, q, selectPublicOf, int64(c.Root), after, int64(c.Account), limit)
	case c.Public:
		return scanIDs(ctx, q, selectPublic, int64(c.Root), after, limit)
	}
	return scanIDs(ctx, q, selectTree, int64(c.Root), after, limit)
}
