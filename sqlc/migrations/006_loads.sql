-- cache_look is how a load begins: it tries the advisory locks ids, and reads after that what the rows of keys
-- are and which incarnation they belong to. Each statement in a VOLATILE function sees what was committed before it:
--
--     a load elsewhere holds the lock, stores v1
--                                                     a plain SELECT, its snapshot taken: no row
--     commits, unlocks
--                                                     ... gets the lock, and would load once more
--
-- stale says that a load may be answered with what has expired: such a row comes with its value, and remaining_us is then minus
-- the time until stale_until.
-- snapshot says which removals of groups the load knows, '' where there is none: see 007.
--
-- got has a 1 for each lock that was taken. It is null, and nothing was done, if another backend than pid answers: a
-- pooler is between.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_look(pid int, class int, ids int[], keys text[], largest int, stale boolean)
    RETURNS TABLE (n bigint, version bigint, codec text, value bytea, remaining_us bigint, server bigint,
        incarnation bigint, now_us bigint, got text,
        tags text, snapshot text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    id int;
    my_got text := '';
    my_incarnation bigint;
    my_now bigint;
    my_server bigint;
BEGIN
    IF pg_backend_pid() <> pid THEN
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM /* TEMPLATE: prefix */cache_committed();
    FOREACH id IN ARRAY ids LOOP
        my_got := my_got || pg_try_advisory_lock(class, id)::int;
    END LOOP;
    SELECT i.id INTO my_incarnation FROM /* TEMPLATE: prefix */cache_incarnation i; -- NULL: see cache_incarnate
    my_now := date_part('epoch', clock_timestamp()) * 1000000;
    my_server := date_part('epoch', pg_postmaster_start_time()) * 1000000;
    RETURN QUERY SELECT k.n, e.version, CASE WHEN octet_length(e.value) > largest THEN 'too large' ELSE e.codec END,
        CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp() OR stale AND e.stale_until > clock_timestamp())
            AND octet_length(e.value) <= largest
            AND NOT CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_dead(e.key, e.tags, e.seen) ELSE false END THEN e.value END,
        CASE WHEN e.expires_at <= clock_timestamp() THEN coalesce(-date_part('epoch', e.stale_until - clock_timestamp()) * 1000000, 0)
            ELSE coalesce(date_part('epoch', e.expires_at - clock_timestamp()) * 1000000, 9e18) END::bigint,
        my_server, my_incarnation, my_now, my_got,
        to_json(e.tags)::text, CASE WHEN /* TEMPLATE: any_removal */true THEN pg_current_snapshot()::text ELSE '' END
    FROM unnest(keys) WITH ORDINALITY AS k (key, n)
    LEFT JOIN /* TEMPLATE: prefix */cache_entries e ON e.key = k.key COLLATE "C";
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_look(int, int, int[], text[], int, boolean) FROM PUBLIC;
