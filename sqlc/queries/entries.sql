-- Reading and writing rows. Lists of keys and numbers travel as one array literal in a text parameter and values as one
-- bytea cut by lengths: as fast as native arrays, and the same for every driver.

-- name: GetEntry :one
-- A row that is expired or a tombstone comes back without its value: its version is the fence of a load.
SELECT
    version,
    codec,
    (CASE WHEN expires_at IS NULL OR expires_at > clock_timestamp() THEN value END)::bytea AS value,
    (coalesce(date_part('epoch', expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM /* TEMPLATE: prefix */cache_entries
WHERE key = @key::text;

-- name: GetEntries :many
-- A join, not = ANY: a scan would parse the literal again for every row.
SELECT
    e.key,
    e.version,
    e.codec,
    (CASE WHEN e.expires_at IS NULL OR e.expires_at > clock_timestamp() THEN e.value END)::bytea AS value,
    (coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM unnest((@keys::text)::text[]) AS k (key)
JOIN /* TEMPLATE: prefix */cache_entries e ON e.key = k.key COLLATE "C";

-- name: PutEntry :one
-- The lone write: the row, and in the same statement what the others are to know of it. Nobody can hold a key that did
-- not exist, so an insert stays silent (xmax = 0 is true for an inserted row only). Inline, it tells at once; else, and
-- always while somebody polls, it leaves the change in the log for the next flush.
WITH w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, expires_at, codec)
    VALUES (@key::text, sqlc.narg('value')::bytea, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text)
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version,
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at
    RETURNING key, version, (xmax = 0) AS fresh
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE (NOT w.fresh OR @loud::boolean)
        AND (NOT @inline::boolean OR (SELECT s.polled_until > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING key
), told AS (
    SELECT count(pg_notify(@channel::text, @payload::text)) AS n FROM w
    WHERE (NOT w.fresh OR @loud) AND NOT EXISTS (SELECT FROM logged)
)
SELECT EXISTS (SELECT FROM logged) AS logged, told.n AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM told;

-- name: PutEntries :many
-- Many rows in one statement, in the order of their keys so that two such statements can't deadlock. A size below zero
-- is a tombstone, a ttl below zero never expires. What is told at once goes into as few notifications as fit.
WITH input AS (
    SELECT i.key, i.version, i.ttl_us, i.codec, i.loud, i.size, sum(greatest(i.size, 0)) OVER (ORDER BY i.n) - greatest(i.size, 0) AS lo
    FROM ROWS FROM (
        unnest((@keys::text)::text[]), unnest((@versions::text)::bigint[]), unnest((@ttls_us::text)::bigint[]),
        unnest((@codecs::text)::text[]), unnest((@louds::text)::boolean[]), unnest((@sizes::text)::int[])
    ) WITH ORDINALITY AS i (key, version, ttl_us, codec, loud, size, n)
), w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, expires_at, codec)
    SELECT key, CASE WHEN size >= 0 THEN substring(@vals::bytea FROM lo::int + 1 FOR size) END, version,
        CASE WHEN ttl_us >= 0 THEN clock_timestamp() + ttl_us * interval '1 microsecond' END, codec
    FROM input ORDER BY key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version,
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at
    RETURNING key, version, (xmax = 0) AS fresh
), news AS (
    SELECT w.key, w.version FROM w JOIN input USING (key) WHERE NOT w.fresh OR input.loud
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT key, version FROM news
    WHERE NOT @inline::boolean OR (SELECT s.polled_until > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s)
    RETURNING version
), parts AS (
    SELECT item, (sum(octet_length(item)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(item)) / 6600 AS part
    FROM (SELECT octet_length(key) || ':' || key || lpad(to_hex(version), 16, '0') || ';' AS item
        FROM news WHERE NOT EXISTS (SELECT FROM logged)) items
), messages AS (
    SELECT string_agg(item, '') AS body, count(*) OVER () AS total FROM parts GROUP BY part
), told AS (
    SELECT count(pg_notify(@channel::text, CASE WHEN m.total > 8 THEN '2*' ELSE '2' || m.body END)) AS n FROM messages m
)
SELECT w.key::text AS key, (w.version IN (SELECT l.version FROM logged l))::boolean AS logged, told.n AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM w, told;
