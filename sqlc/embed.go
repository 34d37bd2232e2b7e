// Package sqlc holds every line of SQL that a person edits: the migrations and the queries. internal/dbsqlc is generated
// from it, see sqlc.yaml.
package sqlc

import "embed"

// Migrations are the numbered migrations, with their templates as they stand.
//
//go:embed migrations/*.sql
var Migrations embed.FS
