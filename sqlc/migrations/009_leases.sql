-- What keeps processes apart that load the same key where the locks of sessions can't be used: see Lease in package pgcache.

-- A row is a lease that somebody holds, or that a process which died has left. Not logged: a crash of the server ends all
-- leases, and changes the incarnation, so that nothing is stored that was loaded under one of them.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_leases (
    id bigint NOT NULL PRIMARY KEY, -- a hash of the key, or of the list of keys
    owner bigint NOT NULL,          -- random, another one for each lease
    until timestamptz NOT NULL      -- by the database's clock, as always
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- cache_lease takes leases for term_us and returns the ids of those it got. which has the places in ids of the leases that it tries. was
-- are earlier owners that may be replaced: the caller itself, whose release may still be under way. A lease that ends later than term_us
-- from now was taken before the clock was set back, and is void.
--
-- A lease that somebody holds costs no write: who waits for it asks again and again. The INSERT judges the newest row, and waits
-- for a statement that takes or releases the same lease; all go in the order of ids. Where something else holds the table it
-- waits no longer than lock_timeout, and fails: the load goes on without a lease. enable_seqscan: a plan that was made while
-- the table was a page would read all its dead rows later.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_lease(which int[], ids bigint[], owners bigint[], was bigint[], term_us bigint) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET lock_timeout = '100ms' SET enable_seqscan = off AS $$
DECLARE
    i int;
    term interval := term_us * interval '1 microsecond';
    taken bigint[] := '{}';
BEGIN
    FOREACH i IN ARRAY which LOOP
        CONTINUE WHEN EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_leases l WHERE l.id = ids[i] AND l.owner NOT IN (owners[i], was[i])
            AND l.until > clock_timestamp() AND l.until <= clock_timestamp() + term);
        INSERT INTO /* TEMPLATE: prefix */cache_leases AS l (id, owner, until) VALUES (ids[i], owners[i], clock_timestamp() + term)
            ON CONFLICT (id) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until
            WHERE l.until <= clock_timestamp() OR l.until > clock_timestamp() + term OR l.owner IN (owners[i], was[i]);
        IF FOUND THEN
            taken := taken || ids[i];
        END IF;
    END LOOP;
    RETURN taken;
END $$;

-- cache_renew makes leases last for term_us from now, and returns the ids of those that are still their owner's. ids are in order.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_renew(ids bigint[], owners bigint[], term_us bigint) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET lock_timeout = '100ms' SET enable_seqscan = off AS $$
DECLARE
    kept bigint[] := '{}';
BEGIN
    FOR i IN 1..cardinality(ids) LOOP
        UPDATE /* TEMPLATE: prefix */cache_leases l SET until = clock_timestamp() + term_us * interval '1 microsecond' WHERE l.id = ids[i] AND l.owner = owners[i];
        IF FOUND THEN
            kept := kept || ids[i];
        END IF;
    END LOOP;
    RETURN kept;
END $$;

-- cache_release ends leases, those that are still their owner's. ids are in order.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_release(ids bigint[], owners bigint[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET lock_timeout = '100ms' SET enable_seqscan = off AS $$
BEGIN
    FOR i IN 1..cardinality(ids) LOOP
        DELETE FROM /* TEMPLATE: prefix */cache_leases l WHERE l.id = ids[i] AND l.owner = owners[i];
    END LOOP;
    RETURN true;
END $$;

-- cache_look_leased is how a load begins that has a lease: it takes the leases, and looks after that, as cache_look does with
-- locks. leases says for each key which of ids is its lease: 3 is the third, 0 none. A key that has a live row needs none, since
-- its load ends with that row, but for -3: that row is of no use to the load.
--
-- got is 1 for each key whose lease was taken.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_look_leased(keys text[], leases int[], ids bigint[], owners bigint[], was bigint[], term_us bigint,
    largest int, stale boolean)
    RETURNS TABLE (n bigint, version bigint, codec text, value bytea, remaining_us bigint, server bigint,
        incarnation bigint, now_us bigint, got text,
        tags text, snapshot text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    wanted int[];
    taken bigint[] := '{}';
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_committed();
    wanted := array(
        SELECT w.lease FROM (
            SELECT DISTINCT abs(k.lease) AS lease FROM unnest((SELECT keys), (SELECT leases)) AS k (key, lease)
            WHERE k.lease < 0 OR k.lease > 0 AND NOT EXISTS (
                SELECT FROM /* TEMPLATE: prefix */cache_entries e
                WHERE e.key = k.key COLLATE "C" AND octet_length(e.value) <= largest AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
                    AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END
            )
        ) w ORDER BY ids[w.lease]
    );
    IF cardinality(wanted) > 0 THEN
        taken := /* TEMPLATE: prefix */cache_lease(wanted, ids, owners, was, term_us);
    END IF;
    RETURN QUERY SELECT l.n, l.version, l.codec, l.value, l.remaining_us, l.server, l.incarnation, l.now_us,
        CASE WHEN ids[abs(leases[l.n::int])] = ANY (taken) THEN '1' ELSE '0' END, l.tags, l.snapshot
    FROM /* TEMPLATE: prefix */cache_look(pg_backend_pid(), 0, '{}', keys, largest, stale)
        AS l (n, version, codec, value, remaining_us, server, incarnation, now_us, got, tags, snapshot);
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_lease(int[], bigint[], bigint[], bigint[], bigint), /* TEMPLATE: prefix */cache_renew(bigint[], bigint[], bigint) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_release(bigint[], bigint[]) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_look_leased(text[], int[], bigint[], bigint[], bigint[], bigint, int, boolean) FROM PUBLIC;
