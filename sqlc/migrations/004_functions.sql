-- The functions through which other services and other languages write. What they write is published when the transaction commits, and
-- fences loads like the library's own Set and Delete. They run with their owner's rights: EXECUTE is all that a role needs.

CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_check_key(key text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF coalesce(octet_length(key), 0) NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'cache key of % bytes, want 1 to 1024', coalesce(octet_length(key), 0) USING ERRCODE = '22023';
    END IF;
END $$;

-- cache_set stores value under key. ttl NULL: it never expires. codec is the name of the codec that nodes read it with. tags are
-- the groups that the entry belongs to, in place of those it had.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_set(key text, value bytea, ttl interval DEFAULT NULL, codec text DEFAULT 'json', tags text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    id bigint := /* TEMPLATE: prefix */cache_random();
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_check_key(key);
    PERFORM /* TEMPLATE: prefix */cache_check_tags(tags, 32);
    IF value IS NULL OR codec IS NULL OR octet_length(codec) NOT BETWEEN 1 AND 32 OR ttl <= interval '0' OR NOT isfinite(ttl) THEN
        RAISE EXCEPTION 'cache_set needs a value, a codec of 1 to 32 bytes and a ttl that is positive and finite, or NULL' USING ERRCODE = '22023';
    END IF;
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec, tags, seen)
        VALUES (key, value, id, id, clock_timestamp() + ttl, codec, nullif(tags, '{}'),
            CASE WHEN /* TEMPLATE: any_removal */true THEN /* TEMPLATE: prefix */cache_seen(key, tags) END)
        ON CONFLICT ON CONSTRAINT /* TEMPLATE: bare */cache_entries_pkey DO UPDATE SET value = EXCLUDED.value, version = EXCLUDED.version, stamp = EXCLUDED.stamp,
            expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
            tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until;
    PERFORM /* TEMPLATE: prefix */cache_changed(key);
END $$;

-- cache_delete removes what is stored under key, and keeps loaders that have begun from storing it again.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_delete(key text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    id bigint := /* TEMPLATE: prefix */cache_random();
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_check_key(key);
    INSERT INTO /* TEMPLATE: prefix */cache_entries AS c (key, value, version, stamp, expires_at, codec)
        VALUES (key, NULL, id, id, clock_timestamp() + interval '5 minutes', '')
        ON CONFLICT ON CONSTRAINT /* TEMPLATE: bare */cache_entries_pkey DO UPDATE SET value = NULL, version = EXCLUDED.version, stamp = EXCLUDED.stamp,
            expires_at = EXCLUDED.expires_at, codec = EXCLUDED.codec, written_at = EXCLUDED.written_at,
            tags = EXCLUDED.tags, seen = EXCLUDED.seen, stale_until = EXCLUDED.stale_until;
    PERFORM /* TEMPLATE: prefix */cache_changed(key);
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_check_key(text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_set(text, bytea, interval, text, text[]), /* TEMPLATE: prefix */cache_delete(text) FROM PUBLIC;

-- What runs with its owner's rights finds names in its own schema alone: what a session's search_path begins with, or may
-- be written to by others, is no part of it. The caller's temporary schema comes last; else it would come first.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY[
        '/* TEMPLATE: prefix */cache_guard_write()', '/* TEMPLATE: prefix */cache_guard_gone()', '/* TEMPLATE: prefix */cache_guard_empty()', '/* TEMPLATE: prefix */cache_guard_applied()',
        '/* TEMPLATE: prefix */cache_set(text, bytea, interval, text, text[])', '/* TEMPLATE: prefix */cache_delete(text)'
    ]::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, (SELECT p.pronamespace::regnamespace FROM pg_proc p WHERE p.oid = f));
    END LOOP;
END $$;
