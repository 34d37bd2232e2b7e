-- The change log: a writing statement leaves what it changed, and a flush tells everybody's changes in one notification.

-- The first ranks the changes of one key within a flush, the second numbers the messages for those who poll. Both may
-- start anew after a crash, which empties the tables beside them too. CACHE must stay 1. UNLOGGED, because a logged
-- sequence makes every 32nd commit wait for the disk; Postgres 14 has only those.
DO $$ BEGIN
    EXECUTE 'CREATE ' || CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'UNLOGGED ' ELSE '' END
        || 'SEQUENCE IF NOT EXISTS /* TEMPLATE: prefix */cache_changes_seq';
    EXECUTE 'CREATE ' || CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'UNLOGGED ' ELSE '' END
        || 'SEQUENCE IF NOT EXISTS /* TEMPLATE: prefix */cache_notices_seq';
END $$;

-- No index and no primary key: rows come, are drained all together, and go. The empty key stands for all keys.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_changes (
    seq bigint NOT NULL DEFAULT nextval('/* TEMPLATE: prefix */cache_changes_seq'),
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- What those read who can't LISTEN: one row a message, numbered under the flush's lock, so that the order of seq is the
-- order of commits. Kept for some minutes.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_notices (
    seq bigint NOT NULL DEFAULT nextval('/* TEMPLATE: prefix */cache_notices_seq') PRIMARY KEY,
    payload text NOT NULL,
    told_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- cache_drain is the flush for a log that has grown although it is drained: a long transaction keeps VACUUM from
-- removing dead rows. It is alone in the table, tells what is there and truncates it. Where a dump or a report holds the
-- table it is refused, not waited for: behind it all writers would queue.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_drain(channel text, head text, class int, id int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    messages bigint;
BEGIN
    -- An older snapshot would truncate rows that it never told.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'cache_drain needs READ COMMITTED';
    END IF;
    PERFORM set_config('lock_timeout', '20ms', true);
    PERFORM pg_advisory_xact_lock(class, id);
    LOCK TABLE /* TEMPLATE: prefix */cache_changes IN ACCESS EXCLUSIVE MODE;
    WITH i AS MATERIALIZED (
        SELECT octet_length(key) || ':' || key || left(string_agg(lpad(to_hex(version), 16, '0'), '' ORDER BY seq DESC), 256) || ';' AS item
        FROM /* TEMPLATE: prefix */cache_changes GROUP BY key
    ), o AS (
        SELECT item, (sum(octet_length(item)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(item)) / 6600 AS part FROM i
    ), p AS (
        SELECT head || CASE WHEN count(*) OVER () > 8 OR bool_or(item ^@ '0:') THEN '*' ELSE string_agg(item, '') END AS payload
        FROM o GROUP BY part
    ), n AS (
        INSERT INTO /* TEMPLATE: prefix */cache_notices (payload)
        SELECT DISTINCT p.payload FROM p, /* TEMPLATE: prefix */cache_state s WHERE s.polled_until > clock_timestamp()
    )
    SELECT count(pg_notify(channel, payload)) INTO messages FROM p;
    TRUNCATE /* TEMPLATE: prefix */cache_changes;
    RETURN messages;
END $$;
