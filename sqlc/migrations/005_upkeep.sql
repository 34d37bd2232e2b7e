-- How the library removes rows. The setting pgcache.upkeep tells the guards of 003 that it is the library, and not somebody by hand.
-- It is not a SET clause of the functions: to name a setting that no module defines in one is the superuser's right alone, and
-- Migrate must do without.

-- cache_truncate empties the table at once, or fails: it does not keep writers waiting behind a reader for long. The
-- incarnation changes with it: a load that has begun by now may have begun before a Set whose row is removed here.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_truncate() RETURNS void LANGUAGE plpgsql
SET lock_timeout = '100ms' AS $$
BEGIN
    PERFORM set_config('pgcache.upkeep', 'on', true);
    TRUNCATE /* TEMPLATE: prefix */cache_entries;
    PERFORM set_config('pgcache.upkeep', '', true);
    PERFORM /* TEMPLATE: prefix */cache_incarnate(true);
    PERFORM /* TEMPLATE: prefix */cache_changed('');
END $$;

-- cache_clear removes at most batch of the rows that were written by until. It leaves those that somebody has locked. A row from
-- the future goes too: it was written before the clock was set back.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_clear(until timestamptz, batch int) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '1s' AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM set_config('pgcache.upkeep', 'on', true);
    DELETE FROM /* TEMPLATE: prefix */cache_entries WHERE ctid = ANY (array(
        SELECT e.ctid FROM /* TEMPLATE: prefix */cache_entries e WHERE e.written_at <= until OR e.written_at > clock_timestamp() LIMIT batch FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM set_config('pgcache.upkeep', '', true);
    RETURN removed;
END $$;

-- cache_clear_waiting removes one such row, and waits for it up to lock_timeout. One, because a row that is removed stays
-- locked until the statement ends: a batch that waits for its last row would keep the writers of all others waiting.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_clear_waiting(until timestamptz) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout = '1s' AS $$
DECLARE
    found_key text COLLATE "C";
BEGIN
    SELECT e.key INTO found_key FROM /* TEMPLATE: prefix */cache_entries e WHERE e.written_at <= until OR e.written_at > clock_timestamp() LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM set_config('pgcache.upkeep', 'on', true);
    DELETE FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = found_key;
    PERFORM set_config('pgcache.upkeep', '', true);
    RETURN 1;
END $$;

-- cache_xid8 is the full id of a transaction from its lower half, which is what a row has (xmin). It must be one of the last two billion.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_xid8(id xid) RETURNS bigint LANGUAGE sql STABLE
AS $$ SELECT s.newest - (s.newest - id::text::bigint) % 4294967296
    FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) s $$;

-- cache_expire removes at most batch rows that had expired by until from some blocks of the table, so that the janitor
-- reads each block about once however many rows it removes. A row that may still be handed out where a load fails stays until
-- stale_until. It never waits for a writer. A row that was found is locked, so it is the one that is removed.
--
-- Unless all loads that have begun are fenced, a row is removed only if its transaction ended long enough ago (ended_before). The TTL of a
-- row begins with the statement that wrote it, however long its transaction stays open after that:
--
--     transaction: cache_delete        a load looks: no row      (minutes go by, the tombstone expires)
--     COMMIT                           the janitor removes the tombstone
--                                      the load stores what is from before the COMMIT
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_expire(first_block bigint, blocks int, until timestamptz, batch int, fenced boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
    ended bigint := (SELECT s.ended_before::text::bigint FROM /* TEMPLATE: prefix */cache_state s);
BEGIN
    PERFORM set_config('pgcache.upkeep', 'on', true);
    DELETE FROM /* TEMPLATE: prefix */cache_entries WHERE ctid = ANY (array(
        SELECT e.ctid FROM /* TEMPLATE: prefix */cache_entries e
        WHERE e.ctid >= format('(%s,0)', first_block)::tid AND e.ctid < format('(%s,0)', first_block + blocks)::tid AND e.expires_at <= until
            AND greatest(e.expires_at, e.stale_until) <= until
            AND (fenced OR /* TEMPLATE: prefix */cache_xid8(e.xmin) < ended)
        LIMIT batch FOR UPDATE SKIP LOCKED
    )) AND expires_at <= until AND greatest(expires_at, stale_until) <= until;
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM set_config('pgcache.upkeep', '', true);
    RETURN removed;
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_truncate(), /* TEMPLATE: prefix */cache_clear(timestamptz, int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_clear_waiting(timestamptz), /* TEMPLATE: prefix */cache_xid8(xid) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_expire(bigint, int, timestamptz, int, boolean) FROM PUBLIC;
