package main

import (
	"context"
	"errors"
	"strings"
)

// This file has faults of the server's settings and of what it can run out of, but for its disk.

// system sets a setting of the server for a while.
func system(setting, value string) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		reset := func() error { return r.exec(ctx, "ALTER SYSTEM RESET "+setting, "SELECT pg_reload_conf()") }
		err := r.exec(ctx, "ALTER SYSTEM SET "+setting+" = "+value, "SELECT pg_reload_conf()")
		if err != nil {
			return nil, errors.Join(err, reset())
		}
		return reset, nil
	}
}

// isolation gives sessions of the fleet that begin from now on another level, in turns.
func isolation(ctx context.Context, r *run) (func() error, error) {
	level := some([]string{"repeatable read", "serializable", "read committed"})
	return nil, r.exec(ctx, "ALTER ROLE "+r.schema+" SET default_transaction_isolation = '"+level+"'")
}

// secret changes whether messages show keys, and what hides them.
func secret(ctx context.Context, r *run) (func() error, error) {
	value := some([]string{"NULL", "sha256(random()::text::bytea)"})
	return nil, r.exec(ctx, "UPDATE "+r.table("state")+" SET key_secret = "+value)
}

func atLevel(level string) []spec {
	params := map[string]string{"default_transaction_isolation": level}
	return []spec{{Params: params}, {Pool: "pq", Params: params}, {Poll: true, Params: params}, {Pool: "pgxpool", Params: params}}
}

// fillQueue fills the queue of notifications behind a session that listens and does not read.
func fillQueue(ctx context.Context, r *run) (func() error, error) {
	idle, err := r.admin.Conn(ctx)
	if err != nil {
		return nil, err
	}
	undo := func() error {
		_, err := idle.ExecContext(ctx, "ROLLBACK; UNLISTEN *")
		return errors.Join(err, idle.Close())
	}
	if _, err := idle.ExecContext(ctx, "LISTEN faults_idle"); err != nil {
		return nil, errors.Join(err, undo())
	}
	if _, err := idle.ExecContext(ctx, "BEGIN; SELECT 1"); err != nil {
		return nil, errors.Join(err, undo())
	}
	for range 1000 {
		_, err := r.admin.ExecContext(ctx, "SELECT pg_notify('faults_idle', n || repeat('x', 7000)) FROM generate_series(1, 100) n")
		if err != nil && strings.Contains(err.Error(), "too many notifications") {
			// What is left for smaller ones.
			for err = nil; err == nil; {
				_, err = r.admin.ExecContext(ctx, "SELECT pg_notify('faults_idle', 'x')")
			}
			return undo, nil
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
	}
	return nil, errors.Join(errors.New("the queue does not fill"), undo())
}
