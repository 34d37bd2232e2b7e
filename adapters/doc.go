// Package adapters is a module of its own, so that the projects that it plugs into are no dependencies of the library. Each
// folder is an adapter for one of them: see docs/adapters.md.
package adapters
