-- Writes that depend on what the row holds, and reads of whole entries. Each write judges the newest row, whatever the snapshot
-- of its statement: ON CONFLICT does, and so does UPDATE under READ COMMITTED. Under another level they answer nothing and write
-- nothing. What was not done leaves the row as it is. A row of the codec '!none' says that there is nothing (NegativeTTL): it is no
-- value here, except to ReplaceEntry, which goes by the version.
--
-- The row that such a write meets may be newer than the snapshot of its statement. Whether it is dead is asked of a new snapshot
-- (cache_dead_now), because the old one may show a record that another has replaced since:
--
--     SetIfAbsent: snapshot (record 1), waits for the row        transaction: replaces record 1 by record 2, sets the row
--                                                                COMMIT
--     by its snapshot the row has not seen record 1: dead, and the SetIfAbsent would write over it

-- name: Increment :many
-- Adds to counters, in the order of their keys so that two such statements can't deadlock. A counter is a whole number in JSON. A
-- row that is not live begins anew, with the TTL that the statement brings; a live one keeps its own. What is no counter, or
-- would leave the range of a bigint, is missing from the answer. A cast could fail the statement and quote the value in the
-- server's log, so the text is looked at first. The SET sees what the WHERE has seen: the row is locked in between.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT i.key, convert_to(i.delta::text, 'UTF8'), i.version, i.version,
        CASE WHEN i.ttl_us >= 0 THEN clock_timestamp() + i.ttl_us * interval '1 microsecond' END, 'json',
        i.tags::text[], clock_timestamp() + (i.ttl_us + i.stale_us) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(i.key, i.tags::text[]) END
    FROM patience, ROWS FROM (
        unnest((SELECT (@keys::text)::text[])), unnest((SELECT (@versions::text)::bigint[])), unnest((SELECT (@deltas::text)::bigint[])),
        unnest((SELECT (@ttls_us::text)::bigint[])),
        unnest((SELECT nullif(@tags::text, '')::text[])), unnest((SELECT nullif(@stales_us::text, '')::bigint[]))
    ) AS i (key, version, delta, ttl_us, tags, stale_us)
    ORDER BY i.key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62), codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        (value, expires_at, tags, seen, stale_until) = (
            SELECT CASE WHEN l.live THEN convert_to((encode(c.value, 'escape')::bigint + encode(EXCLUDED.value, 'escape')::bigint)::text, 'UTF8') ELSE EXCLUDED.value END,
                CASE WHEN l.live THEN c.expires_at ELSE EXCLUDED.expires_at END,
                CASE WHEN l.live THEN c.tags ELSE EXCLUDED.tags END,
                CASE WHEN l.live THEN c.seen WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen_now(c.key, EXCLUDED.tags) END,
                CASE WHEN l.live THEN c.stale_until ELSE EXCLUDED.stale_until END
            FROM (SELECT c.value IS NOT NULL AND c.codec <> '!none' AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead_now(c.key, c.tags, c.seen) ELSE false END AS live) l
        )
    WHERE CASE
        WHEN NOT (c.value IS NOT NULL AND c.codec <> '!none' AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead_now(c.key, c.tags, c.seen) ELSE false END) THEN true
        WHEN c.codec <> 'json' OR octet_length(c.value) > 20 THEN false
        WHEN encode(c.value, 'escape') !~ '^(0|-?[1-9][0-9]*)$' THEN false
        ELSE encode(c.value, 'escape')::numeric + encode(EXCLUDED.value, 'escape')::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
    END
    RETURNING key, version & ~(version >> 62) AS version, encode(value, 'escape')::bigint AS number, xmax <> 0 AND (version >> 62) & version = 0 AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (NOT @inline::boolean OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT coalesce(w.version, 0)::bigint AS version, coalesce(w.number, 0)::bigint AS number, (w.version IN (SELECT l.version FROM logged l))::boolean AS logged,
    published.n::bigint AS messages, (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM patience CROSS JOIN published LEFT JOIN w ON true;

-- name: PutAbsent :one
-- Writes a row unless a live one is there. Of two at once the second waits for the first, and finds its row.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, stale_until, seen)
    SELECT @key::text, @value::bytea, @version::bigint, @version::bigint,
        clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', @codec::text,
        nullif(@tags::text, '')::text[], clock_timestamp() + (sqlc.narg('ttl_us')::bigint + sqlc.narg('stale_us')::bigint) * interval '1 microsecond',
        CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(@key::text, nullif(@tags::text, '')::text[]) END
    FROM patience
    ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value,
        version = EXCLUDED.version | ((c.version & EXCLUDED.version) >> 62), stamp = EXCLUDED.stamp | ((c.version & EXCLUDED.stamp) >> 62),
        expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
        tags = EXCLUDED.tags, seen = CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen_now(c.key, EXCLUDED.tags) END, stale_until = EXCLUDED.stale_until
    WHERE NOT (c.value IS NOT NULL AND c.codec <> '!none' AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead_now(c.key, c.tags, c.seen) ELSE false END)
    RETURNING key, version & ~(version >> 62) AS version, xmax <> 0 AND (version >> 62) & version = 0 AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (NOT @inline::boolean OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT (SELECT count(*) FROM w)::bigint AS done, EXISTS (SELECT FROM logged) AS logged, published.n::bigint AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM patience, published;

-- name: ReplaceEntry :one
-- Writes over a live row that is still of the version fence, and over nothing else. It is no upsert: a row that Clear removes
-- meanwhile must not come back. The version says that the row is the one that the snapshot shows, so the snapshot judges it, and also
-- what the new row has seen: a removal that commits meanwhile removes the new row too.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    UPDATE /* TEMPLATE: prefix */cache_entries c SET value = @value::bytea, version = @version::bigint | ((c.version & @version::bigint) >> 62), stamp = @version::bigint | ((c.version & @version::bigint) >> 62),
        expires_at = clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', codec = @codec::text, written_at = clock_timestamp(),
        tags = nullif(@tags::text, '')::text[],
        seen = CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(c.key, nullif(@tags::text, '')::text[]) END,
        stale_until = clock_timestamp() + (sqlc.narg('ttl_us')::bigint + sqlc.narg('stale_us')::bigint) * interval '1 microsecond'
    FROM patience
    WHERE c.key = @key::text AND c.version = @fence::bigint
        AND c.value IS NOT NULL AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(c.key, c.tags, c.seen) ELSE false END
    RETURNING c.key, c.version & ~(c.version >> 62) AS version, (c.version >> 62) & c.version = 0 AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (NOT @inline::boolean OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT (SELECT count(*) FROM w)::bigint AS done, EXISTS (SELECT FROM logged) AS logged, published.n::bigint AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM patience, published;

-- name: TouchEntry :one
-- Gives a live row another end, and another version: nodes that hold the row hold its old end. How long it may be handed out after
-- its end stays as it is.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(nullif(@patience::text, ''), current_setting('lock_timeout')), true) AS was
    WHERE current_setting('transaction_isolation') = 'read committed'
), w AS (
    UPDATE /* TEMPLATE: prefix */cache_entries c SET version = @version::bigint | ((c.version & @version::bigint) >> 62), stamp = @version::bigint | ((c.version & @version::bigint) >> 62),
        expires_at = clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond', written_at = clock_timestamp(),
        stale_until = clock_timestamp() + sqlc.narg('ttl_us')::bigint * interval '1 microsecond' + (c.stale_until - c.expires_at)
    FROM patience
    WHERE c.key = @key::text
        AND c.value IS NOT NULL AND c.codec <> '!none' AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead_now(c.key, c.tags, c.seen) ELSE false END
    RETURNING c.key, c.version & ~(c.version >> 62) AS version, (c.version >> 62) & c.version = 0 AS changed
), logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT w.key, w.version FROM w
    WHERE w.changed AND (NOT @inline::boolean OR (SELECT s.poller_lease > clock_timestamp() FROM /* TEMPLATE: prefix */cache_state s))
    RETURNING version
), published AS (
    SELECT CASE WHEN count(*) > 0 THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(/* TEMPLATE: prefix */cache_item(w.key, s.key_secret, lpad(to_hex(w.version), 16, '0')))) ELSE 0 END AS n
    FROM w, /* TEMPLATE: prefix */cache_state s WHERE w.changed AND NOT EXISTS (SELECT FROM logged)
)
SELECT (SELECT count(*) FROM w)::bigint AS done, EXISTS (SELECT FROM logged) AS logged, published.n::bigint AS messages,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server
FROM patience, published;

-- name: GetWholeEntry :one
-- GetEntry with what else an entry has.
SELECT
    e.version,
    (CASE WHEN octet_length(e.value) > @largest::int THEN 'too large' ELSE e.codec END)::text AS codec,
    (CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND octet_length(e.value) <= @largest::int
        AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END THEN e.value END)::bytea AS value,
    (coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    to_json(e.tags)::text AS tags, (e.expires_at IS NULL)::boolean AS forever
FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = @key::text;

-- name: KeysPage :many
-- The keys after a key, from start on, with those that are not live: so a page reads a bounded part of the index, and the last key
-- says where the next one begins.
SELECT e.key, (e.value IS NOT NULL AND e.codec <> '!none' AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END)::boolean AS live
FROM /* TEMPLATE: prefix */cache_entries e
WHERE e.key >= @start::text AND e.key > @after::text
ORDER BY e.key LIMIT @page::int;

-- name: EntriesPage :many
-- The same with values, of which a page has at most bytes, or one that is larger. looked is how many rows the page has read.
SELECT p.key, p.version, (CASE WHEN octet_length(p.value) > @largest::int THEN 'too large' ELSE p.codec END)::text AS codec,
    (CASE WHEN octet_length(p.value) <= @largest::int THEN p.value END)::bytea AS value,
    (coalesce(date_part('epoch', p.expires_at - clock_timestamp()) * 1000000, 9e18))::bigint AS remaining_us,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    to_json(p.tags)::text AS tags, (p.expires_at IS NULL)::boolean AS forever, p.live::boolean AS live, p.looked
FROM (
    SELECT e.key, e.version, e.codec, e.expires_at, e.tags, e.live, CASE WHEN e.live THEN e.value END AS value, count(*) OVER () AS looked,
        coalesce(sum(octet_length(e.value)) FILTER (WHERE e.live) OVER (ORDER BY e.key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM (
        SELECT r.key, r.version, r.codec, r.expires_at, r.tags, r.value,
            r.value IS NOT NULL AND r.codec <> '!none' AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp()) AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(r.key, r.tags, r.seen) ELSE false END AS live
        FROM /* TEMPLATE: prefix */cache_entries r
        WHERE r.key >= @start::text AND r.key > @after::text
        ORDER BY r.key LIMIT @page::int
    ) e
) p
WHERE p.before < @bytes::bigint
ORDER BY p.key;
