-- The rows of the cache, and the state that goes with them.
--
-- The comments that say TEMPLATE are filled in once per Cache: the schema and the prefix of every object, whether the
-- table is UNLOGGED.

-- No index but the primary key: a btree on a column that every Set changes would cost the HOT updates. fillfactor leaves
-- room for them on the page.
CREATE /* TEMPLATE: persistence */UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_entries (
    key text COLLATE "C" NOT NULL PRIMARY KEY,
    value bytea,                     -- NULL: a tombstone, left by Delete so that a loader begun before it can't store
    version bigint NOT NULL DEFAULT 0, -- made by the writer: an identity, equal or not, never an order
    stamp bigint,                    -- equal to version, or NULL in a row that others inserted: see 003
    expires_at timestamptz,          -- NULL: never; always the database's clock
    codec text COLLATE "C" NOT NULL DEFAULT 'json', -- the name of the codec that wrote value
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- a bounded table drops what was written longest ago
    tags text[],                     -- the groups it belongs to; NULL: none
    seen bigint[],                   -- which removals of groups that name it had been done when it was written: see 007; NULL: none
    stale_until timestamptz          -- until then a loader that fails or is slow may be answered with it; NULL: it ends at expires_at
) WITH (
    fillfactor = 75,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05
);

-- cache_server identifies the server by what initdb gave it. The tables note transaction ids of this server: on another one, where a dump
-- was restored, they say nothing. 0: the role may not ask. (What statements answer as "server" is when the server started.)
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_server() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT c.system_identifier FROM pg_control_system() c);
EXCEPTION WHEN insufficient_privilege OR undefined_function THEN
    RETURN 0;
END $$;

-- One row, always logged: it must outlive a crash that empties an UNLOGGED cache_entries.
CREATE TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_state (
    one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    schema_version int NOT NULL,
    id text COLLATE "C" NOT NULL DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 8), -- messages carry it: a channel may be shared by several caches
    channel text NOT NULL,                             -- where changes are published
    key_secret bytea,                                  -- messages name keys by a hash that is keyed with it; NULL: as they are
    swept_at timestamptz NOT NULL DEFAULT '-infinity', -- when a node last took on removing expired rows
    ended_before xid8,                                 -- all transactions before it had ended long enough ago: see 005
    next_before xid8, next_at timestamptz NOT NULL DEFAULT '-infinity', -- what takes its place, and when it was read
    retire_before xid8, retire_after xid8,             -- records before the one may be retired when no transaction before the other runs: see 007
    noted_on bigint NOT NULL DEFAULT /* TEMPLATE: prefix */cache_server(), -- the server whose transactions these are
    poller_lease timestamptz NOT NULL DEFAULT '-infinity', -- until then some node polls: see 002
    flusher bigint NOT NULL DEFAULT 0, flusher_lease timestamptz NOT NULL DEFAULT '-infinity' -- who flushes for watched tables, until when: see 008
);

-- One row with a random number that changes whenever rows may have gone without a trace: Clear and TRUNCATE change it, and
-- a crash of the server, which empties UNLOGGED tables, removes it. A loader's value is stored only if it is still the
-- number from before the loader began. Only cache_incarnate (see 002) makes another.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_incarnation (
    one boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    id bigint NOT NULL
);

-- cache_random is a random number other than 0.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_random() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint + 1 $$;

-- For a new cache only. This file may be run again, after a crash has removed the row: then only cache_incarnate may make another,
-- because it looks for prepared transactions first.
INSERT INTO /* TEMPLATE: prefix */cache_incarnation (id) SELECT /* TEMPLATE: prefix */cache_random()
    WHERE NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_state) ON CONFLICT DO NOTHING;

-- cache_committed fails unless the transaction is READ COMMITTED: under a stricter level a statement judges by a snapshot from
-- before it waited for locks. The library then sends the statement again, in a transaction that is READ COMMITTED.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_committed() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'this needs READ COMMITTED' USING ERRCODE = 'PC001';
    END IF;
    RETURN true;
END $$;

-- Rights are granted to roles by name, see docs/rights.md, so PUBLIC has none.
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_server(), /* TEMPLATE: prefix */cache_random(), /* TEMPLATE: prefix */cache_committed() FROM PUBLIC;
