-- What people and monitoring look at: cmd/pgcache and pgcache/pgcacheui. Nothing here writes, and each statement is bounded by its
-- LIMIT or its list, beside the timeout of its caller.

-- name: InspectEntry :one
-- One row as it lies there, also one that no Get returns: a tombstone, an expired row, or one of a removed group. A value larger
-- than largest is left where it is.
SELECT e.version, e.codec, (CASE WHEN octet_length(e.value) <= @largest::int THEN e.value END)::bytea AS value,
    (e.value IS NULL)::boolean AS tombstone,
    coalesce(octet_length(e.value), 0)::bigint AS byte_count, coalesce(pg_column_size(e.value), 0)::bigint AS stored_bytes,
    (e.expires_at IS NULL)::boolean AS forever, coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 0)::bigint AS remaining_us,
    (date_part('epoch', e.written_at) * 1000000)::bigint AS written_us, (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    coalesce(to_json(e.tags)::text, '[]')::text AS tags,
    coalesce(date_part('epoch', e.stale_until - clock_timestamp()) * 1000000, 0)::bigint AS stale_us,
    (CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END)::boolean AS dead
FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = @key::text;

-- name: ListEntries :many
-- A page of keys in their order, along the primary key. until '' is no bound.
SELECT e.key, e.codec, (e.value IS NULL)::boolean AS tombstone, coalesce(octet_length(e.value), 0)::bigint AS byte_count,
    (e.expires_at IS NULL)::boolean AS forever, coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 0)::bigint AS remaining_us,
    (date_part('epoch', clock_timestamp() - e.written_at) * 1000000)::bigint AS age_us,
    (CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END)::boolean AS dead
FROM /* TEMPLATE: prefix */cache_entries e
WHERE e.key >= @first::text AND e.key > @after::text AND (@until::text = '' OR e.key < @until::text)
    AND (@gone::boolean OR (e.value IS NOT NULL AND e.codec <> '!none' AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END))
ORDER BY e.key LIMIT @most::int;

-- name: ListTags :many
-- The tags that begin with a text, those of most entries first. It reads the rows of the whole table, but none of the values that
-- lie apart from their rows.
SELECT t.tag::text AS tag, count(*)::bigint AS entries, sum(octet_length(e.value))::bigint AS byte_count
FROM /* TEMPLATE: prefix */cache_entries e CROSS JOIN LATERAL unnest(e.tags) AS t (tag)
WHERE e.tags IS NOT NULL AND e.value IS NOT NULL AND e.codec <> '!none' AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
    AND starts_with(t.tag, @beginning::text) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END
GROUP BY t.tag ORDER BY count(*) DESC, t.tag COLLATE "C" LIMIT @most::int;

-- name: WrittenAt :many
-- When the rows of keys were written, by the database's clock.
SELECT e.key, e.version, (date_part('epoch', e.written_at) * 1000000)::bigint AS written_us
FROM unnest((SELECT (@keys::text)::text[])) AS k (key)
JOIN /* TEMPLATE: prefix */cache_entries e ON e.key = k.key COLLATE "C";

-- name: Figures :one
-- Sizes and counters, from the catalogs and the statistics: it reads no entry. pending stops counting at a thousand.
SELECT
    pg_relation_size('/* TEMPLATE: prefix */cache_entries')::bigint AS entries_bytes,
    pg_total_relation_size('/* TEMPLATE: prefix */cache_entries')::bigint AS entries_total,
    pg_total_relation_size('/* TEMPLATE: prefix */cache_changes')::bigint AS log_bytes,
    pg_total_relation_size('/* TEMPLATE: prefix */cache_notices')::bigint AS notices_bytes,
    coalesce(s.n_live_tup, 0)::bigint AS live_rows, coalesce(s.n_dead_tup, 0)::bigint AS dead_rows,
    coalesce(s.n_tup_ins, 0)::bigint AS inserted, coalesce(s.n_tup_upd, 0)::bigint AS updated,
    coalesce(s.n_tup_hot_upd, 0)::bigint AS hot_updated, coalesce(s.n_tup_del, 0)::bigint AS deleted,
    coalesce(s.idx_scan, 0)::bigint AS index_scans, coalesce(s.idx_tup_fetch, 0)::bigint AS index_fetches, coalesce(s.seq_scan, 0)::bigint AS seq_scans,
    (SELECT count(*) FROM (SELECT c.logged_at FROM /* TEMPLATE: prefix */cache_changes c LIMIT 1000) l)::bigint AS pending,
    pg_notification_queue_usage()::float8 AS queue_usage,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    current_setting('server_version')::text AS server_version, current_database()::text AS database
FROM (SELECT 1) AS one
LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = '/* TEMPLATE: prefix */cache_entries'::regclass;

-- name: SessionOf :one
-- Whose session a process of the server is, as far as the role may see it.
SELECT coalesce(a.application_name, '')::text AS application, coalesce(a.usename, '')::text AS role, coalesce(host(a.client_addr), '')::text AS address
FROM pg_catalog.pg_stat_activity a WHERE a.pid = @pid::int;

-- name: ListWatches :many
-- The watched tables with their templates, and what is wrong with each.
SELECT w.watched, to_json(w.keys)::text AS keys, to_json(w.tags)::text AS tags, w.most::int AS most,
    to_json(/* TEMPLATE: prefix */cache_watch_faults(w.id))::text AS faults
FROM /* TEMPLATE: prefix */cache_watches w ORDER BY w.watched COLLATE "C";
