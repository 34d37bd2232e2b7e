-- What Doctor looks at. Each statement is one that an application role may send; what it may not see is NULL or 0.

-- name: ServerHealth :one
SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery()::boolean AS in_recovery,
    (current_setting('default_transaction_read_only') = 'on')::boolean AS read_only,
    (current_setting('track_counts') = 'on')::boolean AS track_counts, (current_setting('autovacuum') = 'on')::boolean AS autovacuum,
    pg_notification_queue_usage()::float8 AS queue,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    (SELECT count(*) FROM pg_catalog.pg_locks)::bigint AS locks,
    (current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint))::bigint AS lock_room;

-- name: TableHealth :many
SELECT c.oid::regclass::text AS name, c.relpersistence::text AS persistence, coalesce(c.reltuples, 0)::float8 AS guessed,
    coalesce(s.n_live_tup, 0)::bigint AS live, coalesce(s.n_dead_tup, 0)::bigint AS dead,
    coalesce(s.n_tup_upd, 0)::bigint AS updates, coalesce(s.n_tup_hot_upd, 0)::bigint AS hot_updates,
    (coalesce(array_to_string(c.reloptions, ','), '') ~* 'autovacuum_enabled=(off|false|no|0)')::boolean AS no_autovacuum
FROM (VALUES (to_regclass('/* TEMPLATE: prefix */cache_entries')), (to_regclass('/* TEMPLATE: prefix */cache_changes')),
    (to_regclass('/* TEMPLATE: prefix */cache_notices')), (to_regclass('/* TEMPLATE: prefix */cache_groups')),
    (to_regclass('/* TEMPLATE: prefix */cache_leases'))) AS o (oid)
JOIN pg_catalog.pg_class c ON c.oid = o.oid
LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = c.oid;

-- name: GuardFaults :many
-- The guards that are gone, or do not fire in every session where they should.
SELECT g.name::text AS name, (t.tgname IS NULL)::boolean AS gone
FROM unnest('{insert,update,rekey,rename,delete,truncate,applied}'::text[]) AS w (word)
CROSS JOIN LATERAL (SELECT 'cache_guard_' || w.word AS name) g
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = to_regclass('/* TEMPLATE: prefix */cache_entries') AND t.tgname = g.name
WHERE t.tgname IS NULL OR t.tgenabled <> 'A' AND (t.tgenabled <> 'R' OR w.word <> 'applied') ORDER BY w.word;

-- name: SubscribedTables :many
-- The cache's own tables that a subscription fills. The others are UNLOGGED: nobody publishes them.
SELECT r.srrelid::regclass::text AS name FROM pg_catalog.pg_subscription_rel r
WHERE r.srrelid IN (to_regclass('/* TEMPLATE: prefix */cache_entries'), to_regclass('/* TEMPLATE: prefix */cache_groups'),
    to_regclass('/* TEMPLATE: prefix */cache_state'), to_regclass('/* TEMPLATE: prefix */cache_watches'))
ORDER BY 1;

-- name: OldSnapshots :many
-- Open and prepared transactions that keep VACUUM from removing rows, the oldest first. hidden counts the sessions that the role can't see.
SELECT x.what::text AS what, x.seconds::float8 AS seconds, x.idle::boolean AS idle, x.hidden::bigint AS hidden FROM (
    SELECT format('session %s of %s (%s)', a.pid, a.usename, a.application_name) AS what,
        date_part('epoch', clock_timestamp() - a.xact_start) AS seconds, coalesce(a.state LIKE 'idle in transaction%', false) AS idle, 0 AS hidden
    FROM pg_catalog.pg_stat_activity a WHERE a.xact_start IS NOT NULL AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    UNION ALL
    SELECT format('prepared transaction %L of %s', p.gid, p.owner), date_part('epoch', clock_timestamp() - p.prepared), true, 0 FROM pg_catalog.pg_prepared_xacts p
        WHERE p.database = current_database()
    UNION ALL
    SELECT 'hidden', 0, false, count(*) FROM pg_catalog.pg_stat_activity a
    WHERE a.backend_type IS NULL AND a.pid <> pg_backend_pid() AND a.datname = current_database()
) x WHERE x.seconds > @longer::float8 OR x.hidden > 0
ORDER BY x.seconds DESC LIMIT 5;

-- name: RecoveredTransactions :many
-- Prepared transactions that keep an incarnation from being made, see cache_recovered; none where there is one.
SELECT r.gid::text AS gid FROM unnest(/* TEMPLATE: prefix */cache_recovered()) AS r (gid)
WHERE NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_incarnation);

-- name: WatchFaults :many
SELECT w.watched, array_to_string(/* TEMPLATE: prefix */cache_watch_faults(w.id), '; ')::text AS faults,
    EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r WHERE r.srrelid = to_regclass(w.watched))::boolean AS replicated
FROM /* TEMPLATE: prefix */cache_watches w ORDER BY w.watched;
