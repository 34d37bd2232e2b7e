-- name: Probe :exec
-- Sends the notification that proves a listener live, with the identity of the server that this connection talks to.
SELECT pg_notify(@channel::text, @nonce::text || ':' || (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint);

-- name: GetState :one
-- utf8: the text that this session sends and gets is taken for UTF-8. SQL_ASCII, on either side, takes bytes as they are.
SELECT schema_version, id, channel, (key_secret IS NOT NULL)::boolean AS hides_keys, current_setting('transaction_isolation')::text AS isolation,
    pg_client_encoding()::text AS encoding,
    (pg_client_encoding() = 'UTF8' OR current_setting('server_encoding') = 'SQL_ASCII'
        OR pg_client_encoding() = 'SQL_ASCII' AND current_setting('server_encoding') = 'UTF8')::boolean AS utf8
FROM /* TEMPLATE: prefix */cache_state;

-- name: ClaimSweep :execrows
-- One node an interval removes expired rows: the one whose UPDATE finds the last claim old enough, or from before the clock was set
-- back.
UPDATE /* TEMPLATE: prefix */cache_state SET swept_at = clock_timestamp()
WHERE swept_at NOT BETWEEN clock_timestamp() - (@every_us::bigint) * interval '1 microsecond' AND clock_timestamp();

-- name: NoteEnded :exec
SELECT /* TEMPLATE: prefix */cache_note_ended(@grace_us::bigint);

-- name: Expire :one
SELECT (/* TEMPLATE: prefix */cache_expire(@first_block::bigint, @blocks::int, timestamptz 'epoch' + (@until_us::bigint) * interval '1 microsecond', @batch::int, @fenced::boolean))::bigint AS removed;

-- name: Blocks :one
SELECT (pg_relation_size('/* TEMPLATE: prefix */cache_entries') / current_setting('block_size')::bigint)::bigint AS blocks;

-- name: Size :one
-- How many rows have a value, also expired and dead ones, and about what they take: keys, values as stored, and 100 bytes for the rest.
SELECT count(*) AS row_count, coalesce(sum(octet_length(key) + coalesce(pg_column_size(value), 0) + 100), 0)::bigint AS byte_count
FROM /* TEMPLATE: prefix */cache_entries WHERE value IS NOT NULL;

-- name: TrimPoint :one
-- The newest moment of writing that is beyond the bounds, in microseconds since 1970; 0: none.
SELECT coalesce((date_part('epoch', max(written_at)) * 1000000)::bigint, 0)::bigint AS written_us
FROM (
    SELECT written_at, row_number() OVER latest AS nth,
        sum(octet_length(key) + coalesce(pg_column_size(value), 0) + 100) OVER latest AS bytes
    FROM /* TEMPLATE: prefix */cache_entries WHERE value IS NOT NULL
    WINDOW latest AS (ORDER BY written_at DESC, key ROWS UNBOUNDED PRECEDING)
) e
WHERE nth > @max_rows::bigint OR bytes > @max_bytes::bigint;

-- name: Trim :execrows
-- Removes rows that may be live, so it leaves their keys in the change log, for the next flush.
WITH upkeep AS MATERIALIZED (SELECT set_config('pgcache.upkeep', 'on', true)),
removed AS (
    DELETE FROM /* TEMPLATE: prefix */cache_entries c
    USING upkeep, (
        SELECT e.key, e.version FROM /* TEMPLATE: prefix */cache_entries e
        WHERE e.value IS NOT NULL AND e.written_at <= timestamptz 'epoch' + (@written_us::bigint) * interval '1 microsecond'
        LIMIT @batch::bigint
        FOR UPDATE SKIP LOCKED
    ) gone
    WHERE c.key = gone.key AND c.version = gone.version
    RETURNING c.key
)
INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version) SELECT r.key, 0 FROM removed r;

-- name: Now :one
SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us;

-- name: JustExpired :one
-- The time, and whether there are expired rows that only a fence allows to remove: they expired lately, or their transaction
-- may have ended lately.
SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us, EXISTS (
    SELECT FROM /* TEMPLATE: prefix */cache_entries e, /* TEMPLATE: prefix */cache_state s
    WHERE e.expires_at <= clock_timestamp() AND greatest(e.expires_at, e.stale_until) <= clock_timestamp() AND (
        greatest(e.expires_at, e.stale_until) > clock_timestamp() - (@grace_us::bigint) * interval '1 microsecond' AND e.value IS NOT NULL
        OR coalesce(/* TEMPLATE: prefix */cache_xid8(e.xmin) >= s.ended_before::text::bigint, true))
) AS lately;

-- name: NewIncarnation :one
-- Makes an incarnation after a crash, which has removed it. 0: none can be made yet, see cache_incarnate.
SELECT /* TEMPLATE: prefix */cache_incarnate(false)::bigint AS id;

-- name: ChangeIncarnation :exec
SELECT /* TEMPLATE: prefix */cache_incarnate(true);

-- name: SetLocal :exec
SELECT set_config(@name::text, @setting::text, true);

-- name: TruncateEntries :exec
SELECT /* TEMPLATE: prefix */cache_truncate();

-- name: ClearEntries :one
SELECT (/* TEMPLATE: prefix */cache_clear(timestamptz 'epoch' + (@until_us::bigint) * interval '1 microsecond', @batch::int))::bigint AS removed;

-- name: ClearEntryWaiting :one
SELECT (/* TEMPLATE: prefix */cache_clear_waiting(timestamptz 'epoch' + (@until_us::bigint) * interval '1 microsecond'))::bigint AS removed;

-- name: PublishAll :exec
-- "Forget everything", at once, and through the log too while somebody polls.
WITH logged AS (
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
    SELECT '', 0 FROM /* TEMPLATE: prefix */cache_state s WHERE s.poller_lease > clock_timestamp()
)
SELECT /* TEMPLATE: prefix */cache_publish('2', '', '{*}');
