-- The guards are triggers for what others change: by hand, from another service, with TRUNCATE. The library's own statements
-- publish what they change themselves, and write stamp = version, not 0, which nobody else does: so the WHEN conditions below are
-- false for them, and a guard costs them nothing. Guards run with their owner's rights and search_path: a role that may change
-- a row by hand needs no right on the change log.

-- cache_changed publishes keys whose rows were changed, at once, and through the log too while a node polls; '' is all.
-- Beyond 1000 in one transaction it is "everything", once, instead of a message a row.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_changed(changed text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    key text := changed;
    published int := coalesce(nullif(current_setting('pgcache.published', true), ''), '0')::int + 1;
BEGIN
    IF key <> '' THEN
        IF published > 1001 THEN
            RETURN;
        ELSIF published > 1000 THEN
            key := '';
        END IF;
        PERFORM set_config('pgcache.published', published::text, true);
    END IF;
    PERFORM /* TEMPLATE: prefix */cache_publish('2', '', ARRAY[CASE WHEN key = '' THEN '*'
        ELSE /* TEMPLATE: prefix */cache_item(key, s.key_secret, '0000000000000000') END]) FROM /* TEMPLATE: prefix */cache_state s;
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
        SELECT key, 0 FROM /* TEMPLATE: prefix */cache_state s WHERE s.poller_lease > clock_timestamp();
END $$;

-- cache_guard_write checks what others write, and gives it a new version: a version identifies one write, and programs that don't
-- know of versions leave that of the write before. The checks are no constraints of the table, because every statement of the library
-- would parse those anew.
--
-- It also notes which removal records its statement saw (see 007). For that it is STABLE, so that it reads by that statement's snapshot.
-- A change that leaves the value of a live row as it was keeps what was noted, and adds what concerns the groups that the row comes
-- to. Such a change of a dead row must not bring the value back, by taking it out of the group that was removed: it becomes a
-- tombstone. OLD may be newer than the statement's snapshot, so cache_dead_now judges it.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_guard_write() RETURNS trigger LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    removals boolean := /* TEMPLATE: any_removal */true;
    seen bigint[];
BEGIN
    IF array_ndims(NEW.tags) <> 1 THEN -- nodes read them as one list
        RAISE EXCEPTION 'tags of a cache entry must be a list' USING ERRCODE = '23514';
    ELSIF octet_length(NEW.codec) > 32 THEN -- every reader gets it with the value
        RAISE EXCEPTION 'codec of a cache entry has % bytes, at most 32 are allowed', octet_length(NEW.codec) USING ERRCODE = '23514';
    ELSIF NOT isfinite(NEW.expires_at) OR NOT isfinite(NEW.stale_until) THEN -- how long is left could not be computed
        RAISE EXCEPTION 'expires_at and stale_until of a cache entry must be finite, or NULL: it never expires, is never stale' USING ERRCODE = '23514';
    END IF;
    IF removals THEN
        seen := /* TEMPLATE: prefix */cache_seen(NEW.key, NEW.tags);
    END IF;
    IF TG_OP = 'INSERT' OR NEW.value IS DISTINCT FROM OLD.value THEN
        NEW.seen := seen;
    ELSIF NEW.seen IS DISTINCT FROM OLD.seen THEN
        NULL; -- a statement like the library's, which knows
    ELSIF removals AND /* TEMPLATE: prefix */cache_dead_now(OLD.key, OLD.tags, OLD.seen) THEN
        NEW.value := NULL;
        NEW.tags := NULL;
        NEW.seen := NULL;
        NEW.expires_at := clock_timestamp() + interval '5 minutes';
        NEW.stale_until := NULL;
    ELSIF NEW.key <> OLD.key OR NEW.tags IS DISTINCT FROM OLD.tags THEN
        NEW.seen := OLD.seen || seen;
    ELSE
        NEW.seen := OLD.seen;
    END IF;
    NEW.version := /* TEMPLATE: prefix */cache_random();
    NEW.stamp := NULL; -- an upsert that sets every column sets what this returns: it must meet the guard again
    IF TG_OP = 'UPDATE' THEN -- nobody can hold a key that did not exist
        NEW.stamp := NEW.version;
        IF NEW.written_at = OLD.written_at THEN -- a Clear or a Trim that began before, and has fenced loads, must not remove it
            NEW.written_at := clock_timestamp();
        END IF;
        PERFORM /* TEMPLATE: prefix */cache_changed(NEW.key);
    END IF;
    RETURN NEW;
END $$;

-- cache_guard_gone leaves a tombstone, for as long as a Delete does, so that a loader begun before can't store.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_guard_gone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO /* TEMPLATE: prefix */cache_entries (key, value, version, stamp, expires_at, codec)
        SELECT OLD.key, NULL, v.id, v.id, clock_timestamp() + interval '5 minutes', OLD.codec FROM (SELECT /* TEMPLATE: prefix */cache_random() AS id) v
        ON CONFLICT (key) DO NOTHING;
    PERFORM /* TEMPLATE: prefix */cache_changed(OLD.key);
    RETURN NULL;
END $$;

-- cache_guard_empty makes a new incarnation, which fences every load that has begun, because no row is left whose version would. It also
-- makes nodes forget what they hold.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_guard_empty() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM /* TEMPLATE: prefix */cache_incarnate(true);
    PERFORM /* TEMPLATE: prefix */cache_changed('');
    RETURN NULL;
END $$;

-- cache_guard_applied is for what a subscription brings from another database: rows of the library's that were published there, not
-- here. A row that is there already would end the subscription at its INSERT: a tombstone that cache_guard_gone has left, or one of a
-- node here. Other sessions in which triggers fire as in a replica do without it: they may be the library's.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_guard_applied() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    known boolean := TG_OP = 'UPDATE';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_stat_get_subscription(NULL) s WHERE s.pid = pg_backend_pid()) THEN
        RETURN NEW;
    ELSIF NOT known THEN
        PERFORM set_config('pgcache.upkeep', 'on', true);
        DELETE FROM /* TEMPLATE: prefix */cache_entries e WHERE e.key = NEW.key;
        known := FOUND;
        PERFORM set_config('pgcache.upkeep', '', true);
    END IF;
    IF known THEN
        PERFORM /* TEMPLATE: prefix */cache_changed(NEW.key);
    END IF;
    RETURN NEW;
END $$;

-- A stamp of 0 is no stamp: programs that write every column leave 0 in those that they do not mean.
CREATE OR REPLACE TRIGGER cache_guard_insert BEFORE INSERT ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (nullif(NEW.stamp, 0) IS DISTINCT FROM NEW.version)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_write();

CREATE OR REPLACE TRIGGER cache_guard_update BEFORE UPDATE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (nullif(NEW.stamp, 0) IS DISTINCT FROM NEW.version OR NEW.version = OLD.version)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_write();

-- OF key: the server does not even look at the condition for statements that set no key, as the library's. It is before
-- cache_guard_update by its name, and makes that one's condition false.
CREATE OR REPLACE TRIGGER cache_guard_rekey BEFORE UPDATE OF key ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (NEW.key <> OLD.key)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_write();

CREATE OR REPLACE TRIGGER cache_guard_rename AFTER UPDATE OF key ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (NEW.key <> OLD.key)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_gone();

-- The library removes only rows that no load can need any more, or fences all loads before. It sets pgcache.upkeep when it does.
CREATE OR REPLACE TRIGGER cache_guard_delete AFTER DELETE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (current_setting('pgcache.upkeep', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_gone();

CREATE OR REPLACE TRIGGER cache_guard_truncate AFTER TRUNCATE ON /* TEMPLATE: prefix */cache_entries FOR EACH STATEMENT
    WHEN (current_setting('pgcache.upkeep', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_empty();

CREATE OR REPLACE TRIGGER cache_guard_applied BEFORE INSERT OR UPDATE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_applied();

-- After a TRUNCATE nodes that poll have missed the notices that they had not read. The new incarnation tells them.
CREATE OR REPLACE TRIGGER cache_guard_notices AFTER TRUNCATE ON /* TEMPLATE: prefix */cache_notices FOR EACH STATEMENT
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_guard_empty();

-- Guards also fire in sessions that replicate or restore.
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_insert;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_update;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_rekey;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_rename;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_delete;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE ALWAYS TRIGGER cache_guard_truncate;
ALTER TABLE /* TEMPLATE: prefix */cache_entries ENABLE REPLICA TRIGGER cache_guard_applied;
ALTER TABLE /* TEMPLATE: prefix */cache_notices ENABLE ALWAYS TRIGGER cache_guard_notices;

-- Who changes rows by hand needs none of these: a trigger that fires asks for no EXECUTE, and what it calls, it calls as its owner.
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_changed(text), /* TEMPLATE: prefix */cache_guard_write() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_guard_gone(), /* TEMPLATE: prefix */cache_guard_empty(), /* TEMPLATE: prefix */cache_guard_applied() FROM PUBLIC;
