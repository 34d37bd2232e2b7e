-- A group is all rows with a tag, all rows whose keys begin with a prefix, or one key. To remove a group, whatever its size, is to insert
-- one removal record: no row is touched, so nobody waits for a row and no row's writer waits. A row is dead, and counts as absent, if
-- a record of one of its groups is visible that the statement which wrote the row did not see. The row notes which records it saw.
-- Snapshots decide, not the order of commits, so this also holds for a record whose transaction commits late:
--
--     transaction: removes the group        a loader reads old data, stores it: has not seen the record
--     COMMIT: the row is dead

-- Programs that remove no groups must not pay for them: statements look for records only while this is not 1. A sequence, because to
-- read it costs no look into a table, and because nextval and setval are seen at once by everybody:
--
--     a record is inserted: not 1, before the record is there        1: no snapshot shows a record
--
-- It becomes 1 under a lock that conflicts with that of an INSERT into cache_groups, and only when VACUUM has left no page of the table.
-- VACUUM does that when no snapshot shows what was there, so a statement that finds 1 could have seen no record.
CREATE SEQUENCE IF NOT EXISTS /* TEMPLATE: prefix */cache_groups_mark;

-- The removal records. A removal inserts one, and deletes older ones only where nobody has locked them, so two transactions that remove one
-- group don't wait for each other. As persistent as cache_entries: a crash that left rows and lost records would bring dead rows back.
CREATE /* TEMPLATE: persistence */UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_groups (
    kind text COLLATE "C" NOT NULL, -- t: a tag, p: a prefix ('': everything), k: a key. A CHECK would cost every writer of a watched table 20 us
    name text COLLATE "C" NOT NULL,
    -- An identity, never an order. Rows note it, so no record may ever have that of one before: a sequence can be set back, by a restore, a
    -- failover or a setval, and random() by a setseed of the session. gen_random_uuid costs 10 us, this less than 3.
    id bigint NOT NULL DEFAULT hashfloat8extended(date_part('epoch', clock_timestamp()), (random() * 9e18)::bigint) & 9223372036854775807,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    after pg_snapshot NOT NULL DEFAULT pg_current_snapshot(), -- whoever sees this record sees every one that this shows
    mark bigint DEFAULT CASE WHEN pg_sequence_last_value('/* TEMPLATE: prefix */cache_groups_mark') = 1 THEN nextval('/* TEMPLATE: prefix */cache_groups_mark') END,
    PRIMARY KEY (kind, name, xid, id) -- backwards, of a name the newest comes first
) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.1);

-- cache_removals are the visible records of the groups of a row. STABLE: they are judged by the snapshot of the statement that
-- asks, which is what it may know.
--
-- Prefixes are looked for from the end of the key: the record that sorts last before a bound is a prefix of the key, or else it
-- shows how much of the key any further prefix can have at most. So the index is asked once for each that matches and a few
-- times more, however many there are.
--
-- Where an old snapshot keeps VACUUM from removing deleted records, the statistics say that the table has few rows and many pages. Then
-- the planner would read the whole table, or the whole index, for one name, and that for each row of a statement. The settings of these
-- functions forbid it both.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_removals(key text, tags text[]) RETURNS TABLE (id bigint, xid xid8)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET enable_seqscan = off SET enable_indexonlyscan = off AS $$
#variable_conflict use_column
DECLARE
    bound text COLLATE "C" := $1;
    found_name text COLLATE "C";
BEGIN
    IF $2 IS NULL THEN
        RETURN QUERY SELECT g.id, g.xid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'k' AND g.name = $1;
    ELSE -- by themselves, tags would be looked for by their kind alone, and filtered
        RETURN QUERY SELECT g.id, g.xid FROM /* TEMPLATE: prefix */cache_groups g
            WHERE g.kind = 'k' AND g.name = $1 OR g.kind = 't' AND g.name = ANY ($2);
    END IF;
    LOOP
        SELECT g.name INTO found_name FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'p' AND g.name <= bound ORDER BY g.name DESC, g.xid DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF starts_with($1, found_name) THEN
            RETURN QUERY SELECT g.id, g.xid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'p' AND g.name = found_name;
            EXIT WHEN found_name = '';
            bound := left(found_name, -1);
        ELSE
            bound := left($1, /* TEMPLATE: prefix */cache_common($1, found_name));
        END IF;
    END LOOP;
END $$;

-- cache_common is how many characters two texts have in common at their beginnings.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_common(a text, b text) RETURNS int LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    lo int := 0;
    hi int := least(length(a), length(b));
    mid int;
BEGIN
    WHILE lo < hi LOOP
        mid := (lo + hi + 1) / 2;
        IF left(a, mid) COLLATE "C" = left(b, mid) COLLATE "C" THEN
            lo := mid;
        ELSE
            hi := mid - 1;
        END IF;
    END LOOP;
    RETURN lo;
END $$;

-- cache_seen is what a row that is written notes in seen: the ids of the visible records of its groups; NULL: there are none. Callers
-- first ask whether there may be any record at all (the template any_removal, see Names.Render in internal/store), which costs little.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_seen(key text, tags text[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET enable_seqscan = off SET enable_indexonlyscan = off AS $$
DECLARE
    ids bigint[];
BEGIN
    -- The same as cache_removals, which costs more: mostly there is no prefix.
    IF $2 IS NULL THEN
        SELECT array_agg(g.id) INTO ids FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'k' AND g.name = $1;
    ELSE
        SELECT array_agg(g.id) INTO ids FROM /* TEMPLATE: prefix */cache_groups g
            WHERE g.kind = 'k' AND g.name = $1 OR g.kind = 't' AND g.name = ANY ($2);
    END IF;
    -- Backwards through the index: deleted records, which are read while a snapshot is old, come after the newest of their prefix. EXISTS would
    -- begin with the oldest.
    PERFORM FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'p' AND g.name <= $1 ORDER BY g.name DESC, g.xid DESC LIMIT 1;
    IF FOUND THEN
        SELECT array_agg(r.id) INTO ids FROM /* TEMPLATE: prefix */cache_removals($1, $2) r;
    END IF;
    RETURN ids;
END $$;

-- cache_dead says that a group of the row has been removed since it was written.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_dead(key text, tags text[], seen bigint[]) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT NOT coalesce(/* TEMPLATE: prefix */cache_seen($1, $2) <@ coalesce($3, '{}'), true) $$;

-- cache_dead_now and cache_seen_now are the same by a snapshot of their own: VOLATILE. They are for a row that the statement
-- has locked, which may be newer than the snapshot of the statement.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_dead_now(key text, tags text[], seen bigint[]) RETURNS boolean LANGUAGE plpgsql VOLATILE
AS $$ BEGIN RETURN /* TEMPLATE: prefix */cache_dead($1, $2, $3); END $$;

CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_seen_now(key text, tags text[]) RETURNS bigint[] LANGUAGE plpgsql VOLATILE
AS $$ BEGIN RETURN /* TEMPLATE: prefix */cache_seen($1, $2); END $$;

-- cache_overtaken says that a group of what a load brings, or of the row that it saw, has been removed since the load looked. looked is
-- the snapshot of its look, '' if there was no record then.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_overtaken(key text, tags text[], looked text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_removals($1, $2) r
    WHERE NOT coalesce(pg_visible_in_snapshot(r.xid, nullif($3, '')::pg_snapshot), false)) $$;

-- cache_remove removes groups of one kind when the transaction commits, which notifies of it; with inline = false the change log has
-- it instead, for the next flush. It returns the ids of the records.
--
-- Older records of the group are deleted, but for those that somebody has locked: the new record says what they say. Under a stricter
-- isolation level none is deleted, because one that another transaction has just deleted would be an error.
--
-- Where the records take more than 64 MiB everything is removed instead, which is one record: but not for groups that have a record
-- already, because VACUUM can't make the table smaller while an old snapshot is held, and each removal would empty the cache.
--
-- jit: to read cache_state, which has one row, is a scan that enable_seqscan makes dear, and a dear statement is compiled, in 300 ms.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_remove(kind text, names text[], inline boolean) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    my_kind text := kind;
    my_names text[] := array(SELECT DISTINCT n COLLATE "C" FROM unnest(names) AS n);
    ids bigint[];
BEGIN
    IF my_kind IS NULL OR cardinality(my_names) = 0 THEN
        RETURN '{}';
    END IF;
    IF pg_relation_size('/* TEMPLATE: prefix */cache_groups') > 64 * 1024 * 1024 AND EXISTS (SELECT FROM unnest(my_names) AS n
        WHERE NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = my_kind AND g.name = n)) THEN
        my_kind := 'p';
        my_names := '{""}';
    END IF;
    IF current_setting('transaction_isolation') = 'read committed' THEN
        DELETE FROM /* TEMPLATE: prefix */cache_groups WHERE ctid = ANY (array(
            -- Name by name: of a table without statistics the planner would read all records of the kind.
            SELECT o.ctid FROM unnest(my_names) AS n CROSS JOIN LATERAL (
                SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = my_kind AND g.name = n FOR UPDATE SKIP LOCKED
            ) o
        ));
    END IF;
    WITH made AS (
        INSERT INTO /* TEMPLATE: prefix */cache_groups (kind, name) SELECT my_kind, n FROM unnest(my_names) AS n RETURNING name, id
    ), published AS (
        SELECT CASE WHEN inline THEN /* TEMPLATE: prefix */cache_publish('2', '', array_agg(CASE
            WHEN my_kind = 'p' AND (made.name = '' OR s.key_secret IS NOT NULL) THEN '*'
            ELSE /* TEMPLATE: prefix */cache_group_item(my_kind, made.name, s.key_secret, made.id) END)) END AS n
        FROM made, /* TEMPLATE: prefix */cache_state s
    ), logged AS (
        INSERT INTO /* TEMPLATE: prefix */cache_changes (kind, key, version)
        SELECT my_kind, made.name, made.id FROM made, /* TEMPLATE: prefix */cache_state s WHERE NOT inline OR s.poller_lease > clock_timestamp()
    )
    SELECT array_agg(made.id) INTO ids FROM made, published;
    RETURN ids;
END $$;

-- cache_compact deletes records that a newer one of the same kind and name makes superfluous. The triggers of watched tables leave that
-- to it, because it would cost the writer of the table. Each of records is a kind and a name in one text. A record goes only if the
-- snapshot of the newer one (after) showed it: then a statement whose row notes the newer record saw the older one too. The order of
-- ids or of transactions would not say that:
--
--     transaction 1: record a      transaction 2: record b, COMMIT      a row is written: notes b
--     COMMIT: the row is dead      <- it would live again if a were removed because b has the higher number
--
-- A transaction's own id is visible in its snapshots. Records of another server, which a dump brought, may have snapshots of the
-- future: they say nothing. See cache_note_ended.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_compact(records text[]) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    DELETE FROM /* TEMPLATE: prefix */cache_groups WHERE ctid = ANY (array(
        SELECT o.ctid FROM unnest(records) AS r CROSS JOIN LATERAL (
            SELECT g.after, g.xid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = left(r, 1) AND g.name = substr(r, 2)
                AND pg_snapshot_xmax(g.after) <= pg_snapshot_xmax(pg_current_snapshot())
            ORDER BY pg_snapshot_xmax(g.after) DESC LIMIT 1
        ) newest CROSS JOIN LATERAL (
            SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = left(r, 1) AND g.name = substr(r, 2)
                AND pg_visible_in_snapshot(g.xid, newest.after) AND g.xid <> newest.xid FOR UPDATE SKIP LOCKED
        ) o
    ));
END $$;

CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_check_tags(tags text[], most int) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF cardinality(tags) > most OR array_ndims(tags) > 1 OR EXISTS (SELECT FROM unnest(tags) AS t WHERE coalesce(octet_length(t), 0) NOT BETWEEN 1 AND 256) THEN
        RAISE EXCEPTION 'cache tags must be a list of at most %, with 1 to 256 bytes each', most USING ERRCODE = '22023';
    END IF;
END $$;

-- cache_delete_tags removes every entry that has one of the tags.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_delete_tags(tags text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_check_tags(tags, 10000);
    PERFORM /* TEMPLATE: prefix */cache_remove('t', tags, true);
END $$;

-- cache_delete_prefix removes every entry whose key begins with prefix, which is no pattern.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_delete_prefix(prefix text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_check_key(prefix);
    PERFORM /* TEMPLATE: prefix */cache_remove('p', ARRAY[prefix], true);
END $$;

-- cache_bury removes at most batch dead rows from some blocks of the table, and leaves those that somebody has locked. left_over
-- is how many dead rows of ended transactions are still there. Of a transaction that may have ended lately no row goes: a load
-- may have begun before it.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_bury(first_block bigint, blocks int, batch int, OUT removed bigint, OUT left_over bigint) LANGUAGE plpgsql AS $$
DECLARE
    found tid[];
    ended bigint := (SELECT s.ended_before::text::bigint FROM /* TEMPLATE: prefix */cache_state s);
BEGIN
    found := array(
        SELECT e.ctid FROM /* TEMPLATE: prefix */cache_entries e
        WHERE e.ctid >= format('(%s,0)', first_block)::tid AND e.ctid < format('(%s,0)', first_block + blocks)::tid
            AND CASE WHEN /* TEMPLATE: prefix */cache_xid8(e.xmin) < ended THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END
        LIMIT batch
    );
    removed := 0;
    IF cardinality(found) > 0 THEN
        PERFORM set_config('pgcache.upkeep', 'on', true);
        DELETE FROM /* TEMPLATE: prefix */cache_entries WHERE ctid = ANY (array(
            SELECT e.ctid FROM /* TEMPLATE: prefix */cache_entries e WHERE e.ctid = ANY (found) AND /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS removed = ROW_COUNT;
        PERFORM set_config('pgcache.upkeep', '', true);
    END IF;
    left_over := cardinality(found) - removed;
END $$;

-- cache_horizon is a transaction id. Every snapshot of this database, of now or to come, sees all transactions before it.
--
--     REPEATABLE READ: snapshot, no write so far       a group is removed
--                                                      5 minutes, no transaction with an id is as old as that
--                                                      the record goes, if snapshots were not looked at
--     Set, of what its snapshot shows: not dead
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_horizon() RETURNS xid8 LANGUAGE sql STABLE
AS $$ SELECT least(pg_snapshot_xmin(pg_current_snapshot())::text::bigint, min(/* TEMPLATE: prefix */cache_xid8(a.backend_xmin)))::text::xid8
    FROM pg_stat_activity a WHERE a.datname = current_database() AND a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid() $$;

-- cache_note_ended notes the transaction id before which all transactions have ended and all snapshots see them (cache_horizon). What it
-- noted grace_us ago becomes ended_before, by which cache_expire, cache_bury and cache_retiring go.
--
-- What a dump has brought from another server has the ids of that server's transactions, which may be those of transactions to come here.
-- By them every record of now would be one of long ago, and no load would have seen a record that came with the dump. So all is noted
-- anew, and the records get the id of this transaction. Where the dump found a cache_state that was there already, as with pg_dump
-- --data-only, noted_on is this server. Then such records are known by their ids or snapshots: they are of transactions to come.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_note_ended(grace_us bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    server bigint := /* TEMPLATE: prefix */cache_server();
BEGIN
    UPDATE /* TEMPLATE: prefix */cache_state SET noted_on = server, ended_before = NULL, retire_before = NULL, retire_after = NULL,
        next_before = /* TEMPLATE: prefix */cache_horizon(), next_at = clock_timestamp()
    WHERE noted_on <> server;
    IF FOUND THEN
        UPDATE /* TEMPLATE: prefix */cache_groups SET xid = pg_current_xact_id(), after = '1:1:';
    ELSE
        UPDATE /* TEMPLATE: prefix */cache_groups SET xid = pg_current_xact_id(), after = '1:1:' WHERE ctid = ANY (array(
            SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g
            WHERE g.xid >= pg_snapshot_xmax(pg_current_snapshot()) OR pg_snapshot_xmax(g.after) > pg_snapshot_xmax(pg_current_snapshot()) FOR UPDATE SKIP LOCKED
        ));
    END IF;
    -- Where the clock was set back, how long ago next_before was noted is not known: grace_us begins anew.
    UPDATE /* TEMPLATE: prefix */cache_state SET ended_before = CASE WHEN next_at <= clock_timestamp() THEN next_before ELSE ended_before END,
        next_before = /* TEMPLATE: prefix */cache_horizon(), next_at = clock_timestamp()
    WHERE next_at NOT BETWEEN clock_timestamp() - grace_us * interval '1 microsecond' AND clock_timestamp();
END $$;

-- cache_retiring is the transaction id before which removal records may be deleted, once a pass over cache_entries that begins now has left
-- no dead row; '0': none may. Every snapshot shows the records before ended_before. But a transaction may still be open that wrote an entry under an
-- earlier snapshot, and its entry would be dead:
--
--     transaction 1: removes the group
--                                          transaction 2: Set, which has not seen the record
--     COMMIT                               (stays open: the oldest that runs is now transaction 2)
--                                          the pass does not see its row, the record of transaction 1 goes
--                                          COMMIT: the row lives
--
-- So the records wait for every transaction that had begun when they came to be before ended_before.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_retiring() RETURNS xid8 LANGUAGE plpgsql AS $$
DECLARE
    state record;
    oldest xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
    SELECT s.ended_before, s.retire_before, s.retire_after, EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_groups g WHERE g.xid < s.ended_before) AS due
        INTO STRICT state FROM /* TEMPLATE: prefix */cache_state s;
    IF NOT state.due OR state.retire_after > oldest THEN
        RETURN '0';
    END IF;
    UPDATE /* TEMPLATE: prefix */cache_state SET retire_before = state.ended_before, retire_after = pg_snapshot_xmax(pg_current_snapshot());
    RETURN coalesce(state.retire_before, '0');
END $$;

-- cache_mark_groups makes cache_groups_mark 1 when the table has no page left. A dump may have set it to 1 beside records.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_mark_groups() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    marked boolean := /* TEMPLATE: any_removal */true;
    used boolean := pg_relation_size('/* TEMPLATE: prefix */cache_groups') > 0;
BEGIN
    IF used AND NOT marked THEN
        PERFORM nextval('/* TEMPLATE: prefix */cache_groups_mark');
    ELSIF marked AND NOT used THEN
        LOCK TABLE /* TEMPLATE: prefix */cache_groups IN SHARE MODE NOWAIT;
        IF pg_relation_size('/* TEMPLATE: prefix */cache_groups') = 0 THEN
            PERFORM setval('/* TEMPLATE: prefix */cache_groups_mark', 1);
        END IF;
    END IF;
EXCEPTION WHEN lock_not_available THEN -- somebody inserts a record, or VACUUM is at work
END $$;

SELECT /* TEMPLATE: prefix */cache_mark_groups();

-- Everybody may execute what reads call: cache_removals, and what calls it, shows only records that the caller may SELECT.
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_overtaken(text, text[], text), /* TEMPLATE: prefix */cache_dead_now(text, text[], bigint[]), /* TEMPLATE: prefix */cache_seen_now(text, text[]) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_remove(text, text[], boolean), /* TEMPLATE: prefix */cache_check_tags(text[], int), /* TEMPLATE: prefix */cache_compact(text[]), /* TEMPLATE: prefix */cache_horizon(), /* TEMPLATE: prefix */cache_note_ended(bigint), /* TEMPLATE: prefix */cache_retiring(), /* TEMPLATE: prefix */cache_mark_groups() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_delete_tags(text[]), /* TEMPLATE: prefix */cache_delete_prefix(text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_bury(bigint, int, int) FROM PUBLIC;

-- As in 004: what runs with its owner's rights finds names in its own schema alone.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY[
        '/* TEMPLATE: prefix */cache_delete_tags(text[])', '/* TEMPLATE: prefix */cache_delete_prefix(text)'
    ]::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, (SELECT p.pronamespace::regnamespace FROM pg_proc p WHERE p.oid = f));
    END LOOP;
END $$;
