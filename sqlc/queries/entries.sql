-- Reading and writing rows. Lists of keys and numbers travel as one array literal in a text parameter and values as one
-- bytea cut by lengths: as fast as native arrays, and the same for every driver. The array comes out of a sub-select:
-- a planner that sees how short it is takes a new plan for cheaper than the cached one, and plans every execution anew.
--
-- What the writes of this folder have in common (what takes the place of a row, what goes into the change log, what is published) is
-- spelled out in each: a function in its place would cost every write its call. TestPartsAgree in internal/store sees to it that they
-- are the same.

-- name: GetEntry :one
-- A row that is expired, a tombstone or dead (a group of it was removed: see 007) comes back without its value: its version is the
-- fence of a load. So does one whose value is larger than this node takes, which another service or a node of other options wrote;
-- codec says so.
SELECT
    e.version,
    (CASE WHEN octet_length(e.value) > @largest::int THEN 'too large' ELSE e.codec END)::text AS codec,
    (CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND octet_length(e.value) <= @largest::int
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END THEN e.value END)::bytea AS value,
    (coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    to_json(e.tags)::text AS tags
FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = @key::text;

-- name: GetEntries :many
-- A join, not = ANY: a scan would parse the literal again for every row. n is the place of the key in the list. Keys
-- without a row are left out; with none at all there is one answer, with n NULL, for the server's identity.
SELECT
    k.n,
    e.version,
    (CASE WHEN octet_length(e.value) > @largest::int THEN 'too large' ELSE e.codec END)::text AS codec,
    (CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND octet_length(e.value) <= @largest::int
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END THEN e.value END)::bytea AS value,
    (coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (SELECT (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint) AS server,
    to_json(e.tags)::text AS tags
FROM (SELECT 1) AS one
LEFT JOIN (unnest((SELECT (@keys::text)::text[])) WITH ORDINALITY AS k (key, n)
    JOIN /* TEMPLATE: prefix */cache_entries e ON e.key = k.key COLLATE "C") ON true;

-- name: PutEntry :one
-- Writes one row that may be kept in memory, and in the same statement its change into the change log, for the next flush. Nobody can
-- hold a key that did not exist, so an insert is not logged (xmax = 0 is true for an inserted row only), but for a tombstone.
-- No answer: the session is not READ COMMITTED, and nothing was written. A stricter level judges rows by a snapshot from
-- before the statement waited.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, seen)
    SELECT @key::text, sqlc.narg('value')::bytea, @version::bigint, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text,
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(@key::text, NULL) END
    WHERE current_setting('transaction_isolation') = 'read committed'
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version, stamp = EXCLUDED.stamp, expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version, (xmax <> 0 OR value IS NULL) AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version) SELECT w.key, w.version FROM w WHERE w.changed
)
SELECT w.changed::boolean AS logged, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server FROM w;

-- name: PutEntryNeverKept :one
-- The same for a row that is never kept in memory, whose version has bit 62: nobody can hold one, so where it takes the place of
-- another of this kind, bit 0 of the new version says so, and the write stays silent. See docs/decisions/0032. PutEntry does without, because
-- it costs a lone write a twentieth.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, seen)
    SELECT @key::text, sqlc.narg('value')::bytea, @version::bigint, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text,
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(@key::text, NULL) END
    WHERE current_setting('transaction_isolation') = 'read committed'
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version & ~(version >> 62) AS version, (xmax <> 0 AND (version >> 62) & version = 0 OR value IS NULL) AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version) SELECT w.key, w.version FROM w WHERE w.changed
)
SELECT w.changed::boolean AS logged, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server FROM w;

-- name: PutEntryAndPublish :one
-- PutEntryNeverKept, for any row, but it publishes inline. While a node polls it does not: the change goes into the change log instead.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, seen)
    SELECT @key::text, sqlc.narg('value')::bytea, @version::bigint, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text,
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(@key::text, NULL) END
    WHERE current_setting('transaction_isolation') = 'read committed'
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version & ~(version >> 62) AS version, (xmax <> 0 AND (version >> 62) & version = 0 OR value IS NULL) AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s)
    RETURNING key
), published AS (
    SELECT count(pg_notify(s.channel, /* TEMPLATE: prefix */cache_head('2', s.id, s.key_secret)
        || /* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) AS n
    FROM w, /* TEMPLATE: prefix */cache_state s
    WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT EXISTS (SELECT FROM logged) AS logged, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    published.n AS messages
FROM published WHERE EXISTS (SELECT FROM w);

-- name: PutEntries :one
-- Writes many rows, in the order of their keys so that two such statements can't deadlock. vals has all values one after the other: that
-- of a row begins at lo and has size bytes. A size below zero is a tombstone, a row with a ttl below zero never expires. Changes go into
-- the change log but for those that no node needs to know, whose versions come back as silent.
-- Callers share it, so it must not wait for a row that a transaction holds: patience sets lock_timeout for this statement
-- alone, before the first row is locked, because the sort reads all of the input first. Empty: the session's own.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT i.key, CASE WHEN i.size >= 0 THEN substring(@vals::bytea FROM i.lo FOR i.size) END, i.version, i.version,
        CASE WHEN i.ttl_us >= 0 THEN clock_timestamp() + i.ttl_us * interval '1 microsecond' END, i.codec,
        i.tags::text[], clock_timestamp() + (i.ttl_us + i.stale_us) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(i.key, i.tags::text[]) END
    FROM patience, ROWS FROM (
        unnest((SELECT (@keys::text)::text[])), unnest((SELECT (@versions::text)::bigint[])), unnest((SELECT (@ttls_us::text)::bigint[])),
        unnest((SELECT (@codecs::text)::text[])), unnest((SELECT (@los::text)::int[])), unnest((SELECT (@sizes::text)::int[])),
        unnest((SELECT nullif(@tags::text, '')::text[])), unnest((SELECT nullif(@stales_us::text, '')::bigint[]))
    ) AS i (key, version, ttl_us, codec, lo, size, tags, stale_us)
    ORDER BY i.key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version & ~(version >> 62) AS version, (xmax <> 0 AND (version >> 62) & version = 0 OR value IS NULL) AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version) SELECT w.key, w.version FROM w WHERE w.changed
)
SELECT coalesce(string_agg(w.version::text, ',') FILTER (WHERE NOT w.changed), '')::text AS silent,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM w HAVING count(*) > 0;

-- name: PutEntriesAndPublish :one
-- PutEntries, but it publishes inline, in as few notifications as fit, unless a node polls.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT i.key, CASE WHEN i.size >= 0 THEN substring(@vals::bytea FROM i.lo FOR i.size) END, i.version, i.version,
        CASE WHEN i.ttl_us >= 0 THEN clock_timestamp() + i.ttl_us * interval '1 microsecond' END, i.codec,
        i.tags::text[], clock_timestamp() + (i.ttl_us + i.stale_us) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(i.key, i.tags::text[]) END
    FROM patience, ROWS FROM (
        unnest((SELECT (@keys::text)::text[])), unnest((SELECT (@versions::text)::bigint[])), unnest((SELECT (@ttls_us::text)::bigint[])),
        unnest((SELECT (@codecs::text)::text[])), unnest((SELECT (@los::text)::int[])), unnest((SELECT (@sizes::text)::int[])),
        unnest((SELECT nullif(@tags::text, '')::text[])), unnest((SELECT nullif(@stales_us::text, '')::bigint[]))
    ) AS i (key, version, ttl_us, codec, lo, size, tags, stale_us)
    ORDER BY i.key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until
    RETURNING key, version & ~(version >> 62) AS version, (xmax <> 0 AND (version >> 62) & version = 0 OR value IS NULL) AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s)
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT coalesce((SELECT string_agg(w.version::text, ',') FROM w WHERE NOT w.changed), '')::text AS silent,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    EXISTS (SELECT FROM logged) AS logged, published.n::bigint AS messages
FROM published WHERE EXISTS (SELECT FROM w);
