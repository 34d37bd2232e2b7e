-- name: Flush :one
-- changes is -1 where another flush is under way: see cache_flush.
SELECT f.changes::bigint AS changes, coalesce(f.messages, 0)::bigint AS messages, coalesce(f.bytes, 0)::bigint AS bytes
FROM /* TEMPLATE: prefix */cache_flush(@sender::text, @class::int, @id::int, @drain::boolean) f;

-- name: Pending :one
SELECT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_changes)::boolean AS pending;

-- name: Oldest :one
-- How old the oldest change in the log is, in microseconds; -1: there is none. One from later than now is from before the clock was set
-- back, and counts as an hour old.
SELECT (CASE WHEN count(*) = 0 THEN -1 WHEN max(c.logged_at) > clock_timestamp() + interval '1 second' THEN 3600000000
    ELSE greatest(0, date_part('epoch', clock_timestamp() - min(c.logged_at)) * 1000000) END)::bigint AS age_us
FROM /* TEMPLATE: prefix */cache_changes c;

-- name: ClaimFlushing :execrows
-- Who flushes for watched tables: one node, until its lease ends. Where another is, this writes nothing. A lease that ends later than
-- one from now is from before the clock was set back.
UPDATE /* TEMPLATE: prefix */cache_state SET flusher = @node::bigint, flusher_lease = clock_timestamp() + (@for_us::bigint) * interval '1 microsecond'
WHERE flusher = @node::bigint
    OR flusher_lease NOT BETWEEN clock_timestamp() AND clock_timestamp() + (@for_us::bigint) * interval '1 microsecond';

-- name: VacuumChanges :exec
VACUUM (SKIP_LOCKED, INDEX_CLEANUP off, TRUNCATE off) /* TEMPLATE: prefix */cache_changes;

-- name: MayVacuum :one
-- VACUUM by a role that may not only leaves a warning in the server's log, every time.
SELECT (CASE WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN')
    ELSE pg_has_role(c.relowner, 'USAGE') END)::boolean AS may
FROM pg_catalog.pg_class c WHERE c.oid = '/* TEMPLATE: prefix */cache_changes'::regclass;

-- name: Writers :many
-- The virtual transactions that write entries or remove groups: see cache_writers.
SELECT id::text AS id FROM unnest(/* TEMPLATE: prefix */cache_writers()) AS id;

-- name: KeepPolling :exec
-- Extends the poller lease, and never shortens it.
UPDATE /* TEMPLATE: prefix */cache_state SET poller_lease = greatest(poller_lease, clock_timestamp() + (@for_us::bigint) * interval '1 microsecond');

-- name: LastNotice :one
-- The transaction id after which a node that begins to poll reads notices: those up to it are committed already, and no flush that is
-- under way has a smaller one. Notices of transactions that are yet to begin were restored from another server.
SELECT (greatest((pg_snapshot_xmin(now.snapshot)::text::bigint - 1)::text::xid8,
    (SELECT n.xid FROM /* TEMPLATE: prefix */cache_notices n WHERE n.xid < pg_snapshot_xmax(now.snapshot) ORDER BY n.xid DESC LIMIT 1)))::text AS last,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM (SELECT pg_current_snapshot() AS snapshot) now;

-- name: Poll :many
-- It answers at least one row, for the columns beside the notices. A node may have missed notices if no lease is in force, or if
-- incarnation or server are not those of its last poll.
SELECT
    (coalesce((SELECT i.id FROM /* TEMPLATE: prefix */cache_incarnation i), 0))::bigint AS incarnation,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    (s.poller_lease > clock_timestamp())::boolean AS leased,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    coalesce(n.xid::text, '')::text AS xid, n.payload
FROM /* TEMPLATE: prefix */cache_state s LEFT JOIN /* TEMPLATE: prefix */cache_notices n
    ON n.xid > (SELECT (@last::text)::xid8) AND n.xid < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
ORDER BY n.xid, n.part;

-- name: DeleteNotices :execrows
DELETE FROM /* TEMPLATE: prefix */cache_notices WHERE published_at < clock_timestamp() - (@older_us::bigint) * interval '1 microsecond';
