-- cache_tell guards the side doors: rows changed by hand, by another service, by TRUNCATE. The library's own statements
-- tell what they change themselves and never meet the WHEN conditions below, so it costs them nothing.
-- Beyond 1000 rows in one transaction it says "forget everything", once, instead of a line a row. It tells at once, and
-- through the log too while somebody polls.
-- It runs with its owner's rights and search_path: who may change a row by hand need not know of the log.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    changed text[]; -- the empty key: all
    told int := coalesce(nullif(current_setting('pgcache.told', true), ''), '0')::int + 1;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        changed := '{""}';
    ELSIF told > 1000 THEN
        IF told > 1001 THEN
            RETURN NULL;
        END IF;
        changed := '{""}';
    ELSIF TG_OP = 'UPDATE' AND NEW.key <> OLD.key THEN
        changed := ARRAY[OLD.key, NEW.key];
    ELSE
        changed := ARRAY[OLD.key];
    END IF;
    PERFORM set_config('pgcache.told', told::text, true);
    PERFORM /* TEMPLATE: prefix */cache_publish('2', '', array_agg(CASE WHEN k = '' THEN '*'
        ELSE /* TEMPLATE: prefix */cache_item(k, '0000000000000000') END)) FROM unnest(changed) k;
    INSERT INTO /* TEMPLATE: prefix */cache_changes (key, version)
        SELECT k, 0 FROM unnest(changed) k, /* TEMPLATE: prefix */cache_state s WHERE s.poller_lease > clock_timestamp();
    RETURN NULL;
END $$;

-- A statement of the library always brings a new version.
CREATE OR REPLACE TRIGGER cache_guard_update AFTER UPDATE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (NEW.version = OLD.version OR NEW.key <> OLD.key)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell();

-- The janitor removes only what no node serves any more; Clear, which tells "forget everything", says that it is it.
CREATE OR REPLACE TRIGGER cache_guard_delete AFTER DELETE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (OLD.value IS NOT NULL AND (OLD.expires_at IS NULL OR OLD.expires_at > clock_timestamp())
        AND current_setting('pgcache.clearing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell();

CREATE OR REPLACE TRIGGER cache_guard_truncate AFTER TRUNCATE ON /* TEMPLATE: prefix */cache_entries FOR EACH STATEMENT
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell();
