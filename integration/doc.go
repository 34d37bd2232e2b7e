// Package integration runs the library's suites against every supported PostgreSQL and through PgBouncer. Its tests are
// all there is; see README.md.
package integration
