-- name: Backend :one
-- Which server process answers: two answers differ where a pooler hands every statement to another session.
SELECT pg_backend_pid()::int AS pid, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server;

-- name: SessionSettings :one
-- What a session has by itself, to be put back.
SELECT
    current_setting('idle_session_timeout')::text AS idle_session_timeout,
    current_setting('default_transaction_isolation')::text AS isolation,
    current_setting('lock_timeout')::text AS lock_timeout,
    current_setting('max_locks_per_transaction')::int AS max_locks;

-- name: ConfigureSession :one
-- Changes the settings of a session, if it is the one that is meant.
SELECT (CASE WHEN pg_backend_pid() = @pid::int THEN concat(
    set_config('idle_session_timeout', @idle_session_timeout::text, false),
    set_config('default_transaction_isolation', @isolation::text, false),
    set_config('lock_timeout', @lock_timeout::text, false)
) END IS NOT NULL)::boolean AS done;

-- name: RestoreSession :one
-- Leaves a session as it was found: without locks, with its settings. It was ours alone, so all locks in it are ours.
SELECT (CASE WHEN pg_backend_pid() = @pid::int THEN concat(
    pg_advisory_unlock_all(),
    set_config('idle_session_timeout', @idle_session_timeout::text, false),
    set_config('default_transaction_isolation', @isolation::text, false),
    set_config('lock_timeout', @lock_timeout::text, false)
) END IS NOT NULL)::boolean AS done;

-- name: EndSession :exec
SELECT pg_terminate_backend(pg_backend_pid());
