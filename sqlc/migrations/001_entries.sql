-- The rows of the cache, and the state that goes with them.
--
-- The comments that say TEMPLATE are filled in once per Cache: the schema and the prefix of every object, whether the
-- table is UNLOGGED, and the channel that the triggers tell.

-- No index but the primary key: a btree on a column that every Set changes would cost the HOT updates. fillfactor leaves
-- room for them on the page.
CREATE /* TEMPLATE: persistence */UNLOGGED TABLE /* TEMPLATE: prefix */cache_entries (
    key text COLLATE "C" NOT NULL PRIMARY KEY,
    value bytea,                     -- NULL: a tombstone, left by Delete so that a loader begun before it can't store
    version bigint NOT NULL,         -- made by the writer: an identity, equal or not, never an order
    expires_at timestamptz,          -- NULL: never; always the database's clock
    codec text COLLATE "C" NOT NULL, -- the name of the codec that wrote value
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- a bounded table drops what was written longest ago
    CONSTRAINT finite CHECK (expires_at IS NULL OR isfinite(expires_at))
) WITH (
    fillfactor = 75,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05
);

-- One row, always logged: it must outlive a crash that empties an UNLOGGED cache_entries.
CREATE TABLE /* TEMPLATE: prefix */cache_state (
    one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    schema_version int NOT NULL,
    channel text NOT NULL,                           -- what the triggers below tell
    generation bigint NOT NULL DEFAULT 1,            -- Clear turns it, and so fences every load begun before
    swept_at timestamptz NOT NULL DEFAULT '-infinity' -- when a node last took on removing expired rows
);

-- cache_tell guards the side doors: rows changed by hand, by another service, by TRUNCATE. The library's own statements
-- tell what they change themselves and never meet the WHEN conditions below, so it costs them nothing.
-- Beyond 1000 rows in one transaction it says "forget everything", once, instead of a line a row.
CREATE FUNCTION /* TEMPLATE: prefix */cache_tell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told int := coalesce(nullif(current_setting('pgcache.told', true), ''), '0')::int + 1;
BEGIN
    IF TG_OP = 'TRUNCATE' OR told > 1000 THEN
        PERFORM pg_notify(TG_ARGV[0], '2*');
        RETURN NULL;
    END IF;
    PERFORM set_config('pgcache.told', told::text, true);
    PERFORM pg_notify(TG_ARGV[0], '2' || octet_length(OLD.key) || ':' || OLD.key || '0000000000000000;');
    IF TG_OP = 'UPDATE' AND NEW.key <> OLD.key THEN
        PERFORM pg_notify(TG_ARGV[0], '2' || octet_length(NEW.key) || ':' || NEW.key || '0000000000000000;');
    END IF;
    RETURN NULL;
END $$;

-- A statement of the library always brings a new version.
CREATE TRIGGER cache_guard_update AFTER UPDATE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (NEW.version = OLD.version OR NEW.key <> OLD.key)
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell(/* TEMPLATE: channel */'cache_events');

-- The janitor removes only what no node serves any more; Clear, which tells "forget everything", says that it is it.
CREATE TRIGGER cache_guard_delete AFTER DELETE ON /* TEMPLATE: prefix */cache_entries FOR EACH ROW
    WHEN (OLD.value IS NOT NULL AND (OLD.expires_at IS NULL OR OLD.expires_at > clock_timestamp())
        AND current_setting('pgcache.clearing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell(/* TEMPLATE: channel */'cache_events');

CREATE TRIGGER cache_guard_truncate AFTER TRUNCATE ON /* TEMPLATE: prefix */cache_entries FOR EACH STATEMENT
    EXECUTE FUNCTION /* TEMPLATE: prefix */cache_tell(/* TEMPLATE: channel */'cache_events');
