-- name: GetIncarnation :one
-- The incarnation and the database's time. 0: a crash has removed it, see NewIncarnation.
SELECT coalesce((SELECT i.id FROM /* TEMPLATE: prefix */cache_incarnation i), 0)::bigint AS incarnation,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us;

-- name: StoreLoaded :many
-- Stores what a loader returned. It does not store a row if, since the load looked,
--   - the row is no longer the one that the load saw (fence; 0: none);
--   - a Clear, a TRUNCATE or a crash came (incarnation);
--   - so much time went by that the tombstone of a Delete may be gone (looked_us, by the server's clock: that of a suspended machine
--     stands still);
--   - a group of the row was removed (snapshot is that of the look, '' where there was no removal record), or a tag that the row
--     had at the look and has no more (left_tags; the row itself may have expired and be gone).
-- ON CONFLICT judges the newest row, not the statement's snapshot:
--
--     load reads row v1, loader runs        Set or Delete writes v2
--                                           commit
--     StoreLoaded(fence v1): row is v2 -> 0 rows
--
-- The statement ends leases ('': none), also where nothing is stored: whoever gets one of them next sees the row.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', '100ms', true) IS NOT NULL -- callers share it: a row that somebody holds is not waited for
        AND (@leases::text = '' OR /* TEMPLATE: prefix */cache_release(nullif(@leases::text, '')::bigint[], nullif(@owners::text, '')::bigint[])) AS set
), input AS (
    SELECT i.key, i.version, i.fence, i.ttl_us, i.codec, i.publish_new, i.incarnation, i.looked_us, i.size, i.tags::text[] AS tags, i.stale_us, i.snapshot, i.left_tags::text[] AS left_tags, sum(i.size) OVER (ORDER BY i.n) - i.size AS lo
    FROM ROWS FROM (
        unnest((SELECT (@keys::text)::text[])), unnest((SELECT (@versions::text)::bigint[])), unnest((SELECT (@fences::text)::bigint[])),
        unnest((SELECT (@ttls_us::text)::bigint[])), unnest((SELECT (@codecs::text)::text[])), unnest((SELECT (@publish_new::text)::boolean[])),
        unnest((SELECT (@incarnations::text)::bigint[])), unnest((SELECT (@looked_us::text)::bigint[])), unnest((SELECT (@sizes::text)::int[])),
        unnest((SELECT nullif(@tags::text, '')::text[])), unnest((SELECT nullif(@stales_us::text, '')::bigint[])),
        unnest((SELECT nullif(@snapshots::text, '')::text[])), unnest((SELECT nullif(@left_tags::text, '')::text[]))
    ) WITH ORDINALITY AS i (key, version, fence, ttl_us, codec, publish_new, incarnation, looked_us, size, tags, stale_us, snapshot, left_tags, n)
), stored AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT key, substring(@vals::bytea FROM lo::int + 1 FOR size), version, version,
        CASE WHEN ttl_us >= 0 THEN clock_timestamp() + ttl_us * interval '1 microsecond' END, codec,
        tags, clock_timestamp() + (ttl_us + stale_us) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(key, tags) END
    FROM input
    WHERE NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = input.key AND e.version <> input.fence)
        AND incarnation = (SELECT c.id FROM /* TEMPLATE: prefix */cache_incarnation c)
        AND clock_timestamp() < timestamptz 'epoch' + (looked_us + @grace_us::bigint) * interval '1 microsecond'
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_overtaken(key, tags || left_tags, coalesce(snapshot, '')) ELSE false END
        AND (SELECT p.set FROM patience p) AND (SELECT /* TEMPLATE: prefix */cache_committed())
    ORDER BY key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    WHERE (c.key, c.version) IN (SELECT b.key, b.fence FROM input b)
    RETURNING key, version & ~(version >> 62) AS version, xmax <> 0 AND (version >> 62) & version = 0 AS overwritten
), w AS (
    SELECT stored.key, stored.version, stored.overwritten OR input.publish_new AS changed FROM stored JOIN input ON input.key = stored.key
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (NOT @inline::boolean OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT w.key::text AS key, (w.version IN (SELECT l.version FROM logged l))::boolean AS logged, published.n::bigint AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM w, published;

-- name: LockAndLook :many
-- got is '-' where another backend has answered, else it has a digit for each lock: see cache_look.
SELECT coalesce(r.n, 0)::bigint AS n, coalesce(r.version, 0)::bigint AS version, coalesce(r.codec, '')::text AS codec, r.value::bytea AS value,
    coalesce(r.remaining_us, 0)::bigint AS remaining_us, coalesce(r.server, 0)::bigint AS server,
    coalesce(r.incarnation, 0)::bigint AS incarnation, coalesce(r.now_us, 0)::bigint AS now_us,
    coalesce(r.tags, '')::text AS tags, coalesce(r.snapshot, '')::text AS snapshot, coalesce(r.got, '-')::text AS got
FROM /* TEMPLATE: prefix */cache_look(@pid::int, @class::int, (@ids::text)::int[], (@keys::text)::text[], @largest::int, @stale::boolean)
    AS r (n, version, codec, value, remaining_us, server, incarnation, now_us, got, tags, snapshot);

-- name: Look :many
-- The look of a load that has no lock, or one that a foreign guard gave it. Incarnation 0: see NewIncarnation. stale and
-- remaining_us are those of cache_look.
SELECT k.n, coalesce(e.version, 0)::bigint AS version, (CASE WHEN octet_length(e.value) > @largest::int THEN 'too large' ELSE coalesce(e.codec, '') END)::text AS codec,
    (CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp() OR @stale::boolean AND e.stale_until > clock_timestamp())
        AND octet_length(e.value) <= @largest::int
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END THEN e.value END)::bytea AS value,
    (CASE WHEN e.expires_at <= clock_timestamp() THEN coalesce(-date_part('epoch', e.stale_until - clock_timestamp()) * 1000000, 0)
        ELSE coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18) END)::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    coalesce((SELECT i.id FROM /* TEMPLATE: prefix */cache_incarnation i), 0)::bigint AS incarnation,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    coalesce(to_json(e.tags)::text, '')::text AS tags,
    (CASE WHEN /* TEMPLATE: any_removal */true THEN pg_current_snapshot()::text ELSE '' END)::text AS snapshot
FROM unnest((SELECT (@keys::text)::text[])) WITH ORDINALITY AS k (key, n)
LEFT JOIN /* TEMPLATE: prefix */cache_entries e ON e.key = k.key COLLATE "C";

-- name: TryLocks :many
-- 1: got it, 0: somebody has it, -1: another backend answers, and nothing was tried.
SELECT (CASE WHEN pg_backend_pid() = @pid::int THEN pg_try_advisory_lock(@class::int, i.id)::int ELSE -1 END)::int AS got
FROM unnest((SELECT (@ids::text)::int[])) WITH ORDINALITY AS i (id, n) ORDER BY i.n;

-- name: Unlocks :many
SELECT (CASE WHEN pg_backend_pid() = @pid::int THEN pg_advisory_unlock(@class::int, i.id)::int ELSE -1 END)::int AS was_held
FROM unnest((SELECT (@ids::text)::int[])) WITH ORDINALITY AS i (id, n) ORDER BY i.n;
