package pools

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// open returns what a recipe makes of an empty schema, ready.
func open(t *testing.T, recipe func(dsn string) (*App, error)) *App {
	t.Helper()
	app, err := recipe(pgcachetest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := errors.Join(app.Cache.Migrate(ctx), app.Cache.Ready(ctx)); err != nil {
		t.Fatal(errors.Join(err, app.Close()))
	}
	return app
}

// TestPools: each recipe gives a cache whose listener is live and which answers from memory, and ends in the order that the
// page says.
func TestPools(t *testing.T) {
	t.Parallel()
	for name, recipe := range map[string]func(dsn string) (*App, error){
		"pgx": Pgx, "pq": Pq, "otelsql": Otel,
		"pgxpool": func(dsn string) (*App, error) { return Pgxpool(t.Context(), dsn) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := open(t, recipe)
			users := Users(app.Cache)
			if err := users.Set(t.Context(), "1", User{1, "Ann"}); err != nil {
				t.Fatal(err)
			}
			for range 3 { // a busy machine may think its listener lost for a moment
				if u, found, err := users.Get(t.Context(), "1"); err != nil || !found || u.Name != "Ann" {
					t.Fatal(u, found, err)
				}
			}
			if app.Cache.Stats().LocalHits == 0 {
				t.Error("never answered from memory")
			}
			ended := make(chan error, 1)
			go func() { ended <- app.Close() }()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(15 * time.Second):
				t.Error("closing blocks")
			}
		})
	}
}

// TestWithTx: with each library, the cache changes at the commit of the business data, and not before.
func TestWithTx(t *testing.T) {
	t.Parallel()
	for name, rename := range map[string]func(context.Context, *sql.DB, *pgcache.Typed[User], string) error{
		"database/sql": Rename, "sqlx": RenameSqlx, "gorm": RenameGorm, "bun": RenameBun,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := open(t, Pgx)
			defer app.Close()
			users := Users(app.Cache)
			prepare(t, app.DB)
			name := func() string { return load(t, app.DB, users) }
			if got := name(); got != "Bob" {
				t.Fatal(got)
			}
			if err := rename(t.Context(), app.DB, users, "Ann"); err != nil {
				t.Fatal(err)
			}
			if got := name(); got != "Ann" {
				t.Errorf("after the commit it is %s", got)
			}
		})
	}
}

// TestRollback: what was deleted within a transaction that is rolled back is there as before. Bun's transaction as it is
// does not do: the page says to take the one within.
func TestRollback(t *testing.T) {
	t.Parallel()
	app := open(t, Pgx)
	defer app.Close()
	users := Users(app.Cache)
	prepare(t, app.DB)
	load(t, app.DB, users)

	errBack := errors.New("back")
	orm := bun.NewDB(app.DB, pgdialect.New())
	err := orm.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		return errors.Join(users.WithTx(tx.Tx).Delete(ctx, "42"), errBack)
	})
	if !errors.Is(err, errBack) || err.Error() != errBack.Error() {
		t.Fatal(err)
	}
	if u, found, err := users.Get(t.Context(), "42"); err != nil || !found || u.Name != "Bob" {
		t.Error(u, found, err)
	}

	err = orm.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		return users.WithTx(tx).Delete(ctx, "42")
	})
	if err == nil {
		t.Error("bun.Tx itself works: then the page need not say otherwise")
	} else {
		t.Log(err)
	}
}

// prepare makes the business table with a user 42, Bob.
func prepare(t *testing.T, db *sql.DB) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (id bigint PRIMARY KEY, name text); INSERT INTO users VALUES (42, 'Bob')"); err != nil {
		t.Fatal(err)
	}
}

// load is what a service does: its loader reads the business table.
func load(t *testing.T, db *sql.DB, users *pgcache.Typed[User]) string {
	t.Helper()
	u, err := users.GetOrSet(t.Context(), "42", func(ctx context.Context) (u User, err error) {
		err = db.QueryRowContext(ctx, "SELECT id, name FROM users WHERE id = 42").Scan(&u.ID, &u.Name)
		return u, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return u.Name
}
