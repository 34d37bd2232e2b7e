-- What is written in a transaction of the caller's, and whether such transactions have ended.

-- name: PutEntryTx :one
-- Like PutEntry, under whatever isolation level the transaction has: the change log has the change with the COMMIT, and never where it
-- is rolled back. An insert is logged too: the writing node learns from the notification of its version that the transaction has
-- committed.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, seen)
    SELECT @key::text, sqlc.narg('value')::bytea, @version::bigint, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text,
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(@key::text, NULL) END
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, stamp = EXCLUDED.stamp,
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version) SELECT w.key, w.version FROM w
)
SELECT pg_current_xact_id()::text AS xid, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server FROM w;

-- name: PutEntriesTx :one
-- The same for many rows, in the order of their keys, as PutEntries. With inline the COMMIT notifies; then the changes are logged only while somebody polls.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT i.key, CASE WHEN i.size >= 0 THEN substring(@vals::bytea FROM i.lo FOR i.size) END, i.version, i.version,
        CASE WHEN i.ttl_us >= 0 THEN clock_timestamp() + i.ttl_us * interval '1 microsecond' END, i.codec,
        i.tags::text[], clock_timestamp() + (i.ttl_us + i.stale_us) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(i.key, i.tags::text[]) END
    FROM ROWS FROM (
        unnest((SELECT (@keys::text)::text[])), unnest((SELECT (@versions::text)::bigint[])), unnest((SELECT (@ttls_us::text)::bigint[])),
        unnest((SELECT (@codecs::text)::text[])), unnest((SELECT (@los::text)::int[])), unnest((SELECT (@sizes::text)::int[])),
        unnest((SELECT nullif(@tags::text, '')::text[])), unnest((SELECT nullif(@stales_us::text, '')::bigint[]))
    ) AS i (key, version, ttl_us, codec, lo, size, tags, stale_us)
    ORDER BY i.key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, stamp = EXCLUDED.stamp,
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE NOT (SELECT @inline::boolean) OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s)
), published AS (
    SELECT CASE WHEN (SELECT @inline::boolean) AND count(*) > 0
        THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s
)
SELECT pg_current_xact_id()::text AS xid, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server, published.n::bigint AS messages
FROM published;

-- name: EndedTransactions :many
-- Those of xids that have ended, either way. A transaction so old that nobody remembers its status has ended too.
SELECT x.id::text AS xid FROM unnest((SELECT (@xids::text)::text[])) AS x (id)
WHERE coalesce(pg_xact_status(x.id::xid8), '') <> 'in progress';
