package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// This file has the faults of sessions and of the server's processes.

// listeners matches the sessions that listen: their last statement is LISTEN or the empty one, a heartbeat.
const listeners = "(query LIKE 'LISTEN%' OR query = ';')"

// terminate ends the sessions of the fleet that pass.
func terminate(which string) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		var n int
		err := r.admin.QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1 AND "+which, r.schema).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("there is no such session")
		}
		return nil, err
	}
}

// backend is the process of one of the fleet's sessions that pass.
func (r *run) backend(ctx context.Context, which string) (pid int, err error) {
	err = r.admin.QueryRowContext(ctx, "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND "+which+" ORDER BY random() LIMIT 1", r.schema).Scan(&pid)
	return pid, err
}

func sendSignal(pid int, s syscall.Signal) error {
	if err := kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return os.NewSyscallError(fmt.Sprintf("signal %v to %d", s, pid), err)
	}
	return nil
}

// stopBackend stops a server process for a while.
func stopBackend(which string) fault {
	return func(ctx context.Context, r *run) (func() error, error) {
		pid, err := r.backend(ctx, which)
		if err != nil {
			return nil, err
		}
		if err := sendSignal(pid, sigStop); err != nil {
			return nil, err
		}
		return func() error { return sendSignal(pid, sigCont) }, nil
	}
}

// stopAll stops all sessions, as a machine does that is suspended.
func stopAll(ctx context.Context, r *run) (func() error, error) {
	rows, err := r.admin.QueryContext(ctx, "SELECT pid FROM pg_stat_activity WHERE usename = $1", r.schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has said it
	var pids []int
	for rows.Next() {
		var pid int
		if err := rows.Scan(&pid); err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	all := func(s syscall.Signal) (err error) {
		for _, pid := range pids {
			err = errors.Join(err, sendSignal(pid, s))
		}
		return err
	}
	return func() error { return all(sigCont) }, errors.Join(rows.Err(), all(sigStop))
}

// crash kills a server process. The server ends all sessions, recovers, and has lost what is in UNLOGGED tables.
func crash(ctx context.Context, r *run) (func() error, error) {
	witness, err := r.admin.Conn(ctx) // ends with the crash
	if err != nil {
		return nil, err
	}
	defer witness.Close()
	if err := witness.PingContext(ctx); err != nil {
		return nil, err
	}
	pid, err := r.backend(ctx, "true")
	if err != nil {
		return nil, err
	}
	durable := r.fleet.nodes[0].Durable
	start := clock()
	gone := r.wipe()
	if err := sendSignal(pid, syscall.SIGKILL); err != nil {
		return nil, err
	}
	for witness.PingContext(ctx) == nil {
		if clock()-start > time.Minute {
			return nil, errors.New("the server does not crash")
		}
		time.Sleep(time.Millisecond)
	}
	if err := up(ctx, r.admin); err != nil {
		return nil, err
	}
	gone(!durable)
	return nil, nil
}

// restart stops the server in an orderly way and starts it again.
func restart(ctx context.Context, r *run) (func() error, error) {
	if err := r.server.Restart(ctx, "fast"); err != nil {
		return nil, err
	}
	return nil, up(ctx, r.admin)
}

// up waits until the server answers.
func up(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		if !wait(ctx, 5*time.Millisecond) {
			return fmt.Errorf("the server does not come back: %w", err)
		}
	}
}

// wipe notes of all keys that they may go from now on, and with what it returns, whether they have gone.
func (r *run) wipe() (end func(happened bool)) {
	var ends []func(bool)
	for _, h := range r.keys {
		ends = append(ends, h.wipe())
	}
	return func(happened bool) {
		for _, end := range ends {
			end(happened)
		}
	}
}
