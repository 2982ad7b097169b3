package bridge

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/parley-im/parley/domain"
)

// paging are the parameters of lists of accounts and services, and in others under the same names.
type paging struct {
	Cursor string `query:"cursor" doc:"Where the next page starts: nextCursor of the page before."`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Entries of a page."`
}

// pageOf reads a page, and gives the cursor of the one after it; empty: there is none. read gives at most limit entries
// after the one of the key.
func pageOf[T any](
	kind string, p paging, read func(after string, limit int) ([]T, error), key func(T) string,
) (list []T, next string, err error) {
	after, err := parseCursor(kind, p.Cursor)
	if err != nil {
		return nil, "", err
	}
	// One more than asked for tells whether there is another page.
	if list, err = read(after, p.Limit+1); err != nil {
		return nil, "", err
	}
	if len(list) > p.Limit {
		list = list[:p.Limit]
		next = cursorAfter(kind, key(list[p.Limit-1]))
	}
	return list, next, nil
}

// numbered is pageOf for what is in the order of its numbers.
func numbered[T any](
	kind string, p paging, read func(after int64, limit int) ([]T, error), number func(T) int64,
) (list []T, next string, err error) {
	return pageOf(kind, p, func(after string, limit int) ([]T, error) {
		n, err := strconv.ParseInt(after, 10, 64)
		if after != "" && (err != nil || n < 1) {
			return nil, errNoCursor()
		}
		return read(n, limit)
	}, func(v T) string { return strconv.FormatInt(number(v), 10) })
}

// following gives the texts of a sorted list that come after one of them.
func following(sorted []string, after string, limit int) []string {
	i, found := slices.BinarySearch(sorted, after)
	if found {
		i++
	}
	return sorted[i:min(i+limit, len(sorted))]
}

// cursorAfter makes the cursor of the page after an entry. Clients must not look into it, so it does not invite them to.
func cursorAfter(kind, key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + ":" + key))
}

// parseCursor gives the key of a cursor of the kind; empty: the first page is meant.
func parseCursor(kind, cursor string) (key string, err error) {
	if cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	key, ok := strings.CutPrefix(string(b), kind+":")
	if err != nil || !ok || key == "" {
		return "", errNoCursor()
	}
	return key, nil
}

func errNoCursor() error {
	return domain.Errorf(domain.InvalidRequest, "the cursor is not one of ours")
}
