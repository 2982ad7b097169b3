package persistence

import (
	"database/sql"
	"embed"
	"encoding/json"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/parley-im/parley/domain"
)

//go:embed migrations
var migrations embed.FS

// dialect is where the two databases differ, as far as it is a matter of words. Statements are written once, with
// parameters $1, $2 … that both understand.
type dialect struct {
	// name is the URL's scheme, and the folder of the migrations.
	name  string
	goose goose.Dialect
	// begin starts a transaction that will write.
	begin string
	// lock ends a SELECT whose rows shall be locked until the transaction ends. SQLite has one writer at a time anyway.
	lock string
	// lockWeakly is the same for rows that others may refer to meanwhile by a foreign key.
	lockWeakly string
	// snapshot is how a transaction begins whose statements all see the same state.
	snapshot *sql.TxOptions
	// versionTable asks whether the table of migrations exists.
	versionTable string
	// sets: parameters may be arrays (Postgres); else sets of values come as a JSON text.
	sets bool
}

func postgresDialect() *dialect {
	return &dialect{
		name: "postgres", goose: goose.DialectPostgres, begin: "BEGIN ISOLATION LEVEL READ COMMITTED", lock: " FOR UPDATE",
		lockWeakly:   " FOR NO KEY UPDATE",
		snapshot:     &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
		versionTable: "SELECT count(*) FROM pg_class WHERE oid = to_regclass('goose_db_version')", sets: true,
	}
}

func sqliteDialect() *dialect {
	return &dialect{
		name: "sqlite", goose: goose.DialectSQLite3, begin: "BEGIN IMMEDIATE",
		versionTable: "SELECT count(*) FROM sqlite_master WHERE name = 'goose_db_version'",
	}
}

func (d *dialect) migrations() (fs.FS, error) { return fs.Sub(migrations, "migrations/"+d.name) }

// amongIDs is the condition that a column of UUIDs is one of the parameter made by ids.
func (d *dialect) amongIDs(column, param string) string {
	if d.sets {
		return column + " = ANY (" + param + ")"
	}
	return column + " IN (SELECT unhex(value) FROM json_each(" + param + "))"
}

// among is the condition that a column of numbers or texts is one of the parameter made by numbers or texts.
func (d *dialect) among(column, param string) string {
	if d.sets {
		return column + " = ANY (" + param + ")"
	}
	return column + " IN (SELECT value FROM json_each(" + param + "))"
}

func (d *dialect) ids(ids []domain.ConversationID) any {
	if d.sets {
		return uuidArray(ids)
	}
	hexes := make([]string, len(ids))
	for i, id := range ids {
		hexes[i] = hexID(id)
	}
	return d.texts(hexes)
}

func (d *dialect) numbers(ns []int64) any {
	if d.sets {
		return bigintArray(ns)
	}
	return jsonList(ns)
}

func (d *dialect) texts(ts []string) any {
	if d.sets {
		return textArray(ts)
	}
	return jsonList(ts)
}

func jsonList[T any](list []T) string {
	b, err := json.Marshal(list)
	if err != nil {
		return "[]" // Cannot be: numbers and texts always marshal.
	}
	return string(b)
}
