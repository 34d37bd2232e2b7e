-- name: Flush :one
-- One statement drains the log and tells what was in it, whoever wrote it: it commits all of it or nothing. It blocks
-- behind another flush instead of skipping what that one holds, so a flush that returned has told everything that was
-- committed before it was sent. The lock keeps two scans from meeting each other's rows in different orders.
-- An item names the newest 16 versions of its key, newest first; an item of the empty key stands for all keys. More than
-- 1024 keys are "everything", and no item is made of them; so is what does not fit into 8 messages.
WITH one AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(@class::int, @id::int)
), d AS (
    DELETE FROM /* TEMPLATE: prefix */cache_changes USING one RETURNING key, version, seq
), many AS MATERIALIZED (
    SELECT count(*) > 1024 AS yes FROM (SELECT FROM d GROUP BY key) k
), i AS MATERIALIZED (
    SELECT octet_length(key) || ':' || key || left(string_agg(lpad(to_hex(version), 16, '0'), '' ORDER BY seq DESC), 256) || ';' AS item
    FROM d WHERE NOT (SELECT many.yes FROM many) GROUP BY key
    UNION ALL SELECT '0:;' FROM many WHERE many.yes
), o AS (
    SELECT item, (sum(octet_length(item)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(item)) / 6600 AS part FROM i
), p AS MATERIALIZED (
    SELECT @head::text || CASE WHEN count(*) OVER () > 8 OR bool_or(starts_with(item, '0:')) THEN '*' ELSE string_agg(item, '') END AS payload
    FROM o GROUP BY part
), n AS (
    INSERT INTO /* TEMPLATE: prefix */cache_notices (payload)
    SELECT DISTINCT p.payload FROM p, /* TEMPLATE: prefix */cache_state s WHERE s.polled_until > clock_timestamp()
)
SELECT (SELECT count(*) FROM d) AS changes,
    (SELECT count(pg_notify(@channel::text, p.payload)) FROM p) AS messages,
    pg_relation_size('/* TEMPLATE: prefix */cache_changes')::bigint AS bytes;

-- name: VacuumChanges :exec
VACUUM (SKIP_LOCKED, INDEX_CLEANUP off, TRUNCATE off) /* TEMPLATE: prefix */cache_changes;

-- name: DrainChanges :one
SELECT (/* TEMPLATE: prefix */cache_drain(@channel::text, @head::text, @class::int, @id::int))::bigint AS messages;

-- name: HoldChanges :exec
LOCK TABLE /* TEMPLATE: prefix */cache_entries, /* TEMPLATE: prefix */cache_changes IN SHARE ROW EXCLUSIVE MODE;

-- name: KeepPolling :exec
UPDATE /* TEMPLATE: prefix */cache_state SET polled_until = greatest(polled_until, clock_timestamp() + (@for_us::bigint) * interval '1 microsecond');

-- name: MarkNotices :exec
-- The row 0 is the identity of the notices: a crash takes it away with them, and whoever finds another has missed some.
INSERT INTO /* TEMPLATE: prefix */cache_notices (seq, payload) VALUES (0, @mark::text) ON CONFLICT DO NOTHING;

-- name: LastNotice :one
SELECT max(seq)::bigint AS last FROM /* TEMPLATE: prefix */cache_notices;

-- name: GetNotices :many
SELECT seq, payload FROM /* TEMPLATE: prefix */cache_notices WHERE seq = 0 OR seq > @last::bigint ORDER BY seq;

-- name: DeleteNotices :execrows
DELETE FROM /* TEMPLATE: prefix */cache_notices WHERE seq > 0 AND told_at < clock_timestamp() - (@older_us::bigint) * interval '1 microsecond';
