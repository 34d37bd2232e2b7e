package pools

import (
	"context"
	"database/sql"

	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/pgcache/go/pgcache"
)

// User is a row of the business table, and what is cached of it.
type User struct {
	ID   int64 `bun:",pk"`
	Name string
}

// Users is the view that all recipes use.
func Users(cache *pgcache.Cache) *pgcache.Typed[User] {
	return pgcache.For[User](cache, pgcache.Namespace("user"))
}

// Rename is a transaction of database/sql itself.
func Rename(ctx context.Context, db *sql.DB, users *pgcache.Typed[User], name string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "UPDATE users SET name = $1 WHERE id = 42", name); err != nil {
		return err
	}
	if err := users.WithTx(tx).Delete(ctx, "42"); err != nil {
		return err
	}
	return tx.Commit()
}

// RenameSqlx is one of sqlx: *sqlx.Tx has what WithTx needs.
func RenameSqlx(ctx context.Context, db *sql.DB, users *pgcache.Typed[User], name string) error {
	x := sqlx.NewDb(db, "pgx") // on the same pool

	tx, err := x.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.NamedExecContext(ctx, "UPDATE users SET name = :name WHERE id = 42", map[string]any{"name": name}); err != nil {
		return err
	}
	if err := users.WithTx(tx).Delete(ctx, "42"); err != nil {
		return err
	}
	return tx.Commit()
}

// RenameGorm is one of gorm: its ConnPool is the *sql.Tx.
func RenameGorm(ctx context.Context, db *sql.DB, users *pgcache.Typed[User], name string) error {
	orm, err := gorm.Open(postgres.New(postgres.Config{Conn: db})) // on the same pool
	if err != nil {
		return err
	}
	return orm.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Model(&User{}).Where("id = ?", 42).Update("name", name).Error; err != nil {
			return err
		}
		return users.WithTx(tx.Statement.ConnPool.(pgcache.Querier)).Delete(ctx, "42")
	})
}

// RenameBun is one of bun: its Tx holds the *sql.Tx, which is what WithTx needs.
func RenameBun(ctx context.Context, db *sql.DB, users *pgcache.Typed[User], name string) error {
	orm := bun.NewDB(db, pgdialect.New()) // on the same pool

	return orm.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewUpdate().Model(&User{ID: 42, Name: name}).WherePK().Exec(ctx)
		if err != nil {
			return err
		}
		return users.WithTx(tx.Tx).Delete(ctx, "42") // tx.Tx: bun's own would write the arguments into the SQL
	})
}
