-- The change log: a writing statement leaves what it changed, and a flush publishes everybody's changes in one notification.

-- No index and no primary key: a flush removes all rows that it sees. seq ranks the changes of one key within a
-- flush. The empty key stands for all keys. Where kind is not empty the change is a removal record (see 007): kind and key are its
-- kind and its name, version is its id.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_changes (
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    kind text COLLATE "C" NOT NULL DEFAULT '',
    logged_at timestamptz NOT NULL DEFAULT clock_timestamp() -- a row older than a second says that flushes fail
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- The notices: what nodes that can't LISTEN read, one row for each message. xid is the transaction of the flush. A flush gets it under
-- the flush's lock, so the order of xid is the order of commits. A sequence could be set back, by a restore of data alone, TRUNCATE or by hand, below what a node has read.
-- Kept for some minutes. The index is not unique: no flush may fail because of what is there.
CREATE UNLOGGED TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_notices (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    part bigint NOT NULL DEFAULT 1, -- of the flush's messages
    payload text NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX IF NOT EXISTS /* TEMPLATE: bare */cache_notices_xid ON /* TEMPLATE: prefix */cache_notices (xid);

-- cache_item is a key with its versions, newest first, as it stands in a message: see internal/notify. With a secret the key
-- is a hash. Nodes count the bytes of the key in UTF-8, whatever the encoding of the database is. The planner replaces a call by the
-- expression.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_item(key text, secret bytea, versions text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN secret IS NULL THEN CASE WHEN getdatabaseencoding() IN ('UTF8', 'SQL_ASCII') THEN octet_length(key) ELSE octet_length(convert_to(key, 'UTF8')) END || ':' || key
    ELSE '22:' || left(encode(sha256(secret || convert_to(key, 'UTF8')), 'base64'), 22) END || versions || ';' $$;

-- cache_group_item is the item of a removed group (kind t: a tag, p: a prefix). record is the id of the removal record. With a secret
-- a tag is a hash, and callers publish "everything" instead of a prefix.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_group_item(kind text, name text, secret bytea, record bigint) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT kind || /* TEMPLATE: prefix */cache_item(CASE WHEN secret IS NULL THEN name ELSE kind || name END, secret, lpad(to_hex(record), 16, '0')) $$;

-- cache_head is the beginning of a message. kind is '1' for a flush, '2' for a statement that publishes inline; the message has '3' and
-- '4' in their place where keys are hashes.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_head(kind text, id text, secret bytea) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN secret IS NULL THEN kind WHEN kind = '1' THEN '3' ELSE '4' END || id $$;

-- cache_publish notifies of items, in as few messages as fit; '*' among them, or more than 8 messages, is "everything".
-- kind is that of cache_head, sender what follows the cache's id. While a node polls, a flush leaves its messages
-- in cache_notices too.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_publish(kind text, sender text, items text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    cache record;
    messages text[];
    message text;
BEGIN
    SELECT s.channel, /* TEMPLATE: prefix */cache_head(kind, s.id, s.key_secret) || sender AS head, kind = '1' AND s.poller_lease > clock_timestamp() AS polled
        INTO STRICT cache FROM /* TEMPLATE: prefix */cache_state s;
    IF '*' = ANY (items) THEN
        messages := ARRAY['*'];
    ELSE
        SELECT array_agg(m.body) INTO messages FROM (
            SELECT string_agg(i.item, '') AS body FROM (
                SELECT item, (sum(octet_length(item)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(item)) / 6600 AS part
                FROM unnest(items) AS item
            ) i GROUP BY i.part
        ) m;
        IF cardinality(messages) > 8 THEN
            messages := ARRAY['*'];
        END IF;
    END IF;
    IF messages IS NULL THEN
        RETURN 0;
    END IF;
    FOREACH message IN ARRAY messages LOOP
        PERFORM pg_notify(cache.channel, cache.head || message);
    END LOOP;
    IF cache.polled THEN
        INSERT INTO /* TEMPLATE: prefix */cache_notices (part, payload) SELECT m.part, cache.head || m.body FROM unnest(messages) WITH ORDINALITY AS m (body, part);
    END IF;
    RETURN cardinality(messages);
END $$;

-- cache_flush empties the change log and publishes what was in it, whoever wrote it, all or nothing: a flush that returned
-- has published everything that was committed before it was sent. The lock keeps two flushes from meeting each other's
-- rows in different orders; where another flush has it, changes is -1 and nothing was done. No wait here is longer than
-- lock_timeout: the session has other work.
--
-- drain also truncates the log, alone in it for some milliseconds: a long transaction keeps VACUUM from removing the rows that
-- flushes have deleted, and every flush reads them. Where a dump or a report holds the table it is refused, not waited for: behind it all
-- writers would queue.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_flush(sender text, class int, id int, drain boolean,
    OUT changes bigint, OUT messages int, OUT bytes bigint) LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
DECLARE
    items text[];
    records text[];
BEGIN
    -- Under a stricter level the DELETE would see what was there before the lock was taken, and TRUNCATE would remove the rest.
    PERFORM /* TEMPLATE: prefix */cache_committed();
    IF NOT pg_try_advisory_xact_lock(class, id) THEN
        changes := -1;
        RETURN;
    END IF;
    IF drain THEN
        PERFORM set_config('lock_timeout', '20ms', true);
        LOCK TABLE /* TEMPLATE: prefix */cache_changes IN ACCESS EXCLUSIVE MODE;
    END IF;
    -- An item names the newest 16 versions of its key. More items than cache_publish takes, or than 1024, are not made: of a namespace
    -- that has many keys among them the whole is named, and where that is not enough, everything.
    WITH d AS (
        DELETE FROM /* TEMPLATE: prefix */cache_changes RETURNING key, version, seq, kind
    ), many AS MATERIALIZED (
        SELECT count(*) > 1024 OR coalesce(sum(k.bytes), 0) > 50000 AS yes,
            coalesce(bool_or(k.key = '' OR k.kind = 'p' AND s.key_secret IS NOT NULL), false) AS everything
        FROM (SELECT d.kind, d.key, octet_length(d.key) + 8 + 16 * least(count(*), 16) AS bytes FROM d GROUP BY d.kind, d.key) k, /* TEMPLATE: prefix */cache_state s
    ), ns AS MATERIALIZED (
        SELECT k.name, count(*) > 64 AND k.name <> ':' AND (SELECT s.key_secret IS NULL FROM /* TEMPLATE: prefix */cache_state s) AS large,
            count(*) AS keys, sum(k.bytes) AS bytes
        FROM (SELECT CASE WHEN strpos(d.key, ':') > 0 THEN split_part(d.key, ':', 1) ELSE '' END || ':' AS name,
                octet_length(d.key) + 8 + 16 * least(count(*), 16) AS bytes
            FROM d WHERE d.kind IN ('', 'k') AND (SELECT many.yes AND NOT many.everything FROM many) GROUP BY d.key) k
        GROUP BY k.name
    ), g AS MATERIALIZED (
        SELECT DISTINCT d.kind, d.key, d.version FROM d WHERE d.kind IN ('t', 'p')
    ), all_of AS MATERIALIZED (
        SELECT many.everything OR many.yes AND coalesce((SELECT sum(r.keys) > 1024 OR sum(r.bytes) > 50000 FROM (
            SELECT ns.keys, ns.bytes FROM ns WHERE NOT ns.large
            UNION ALL SELECT 1, octet_length(g.key) + 24 FROM g
        ) r), false) AS yes FROM many
    ), i AS (
        SELECT /* TEMPLATE: prefix */cache_item(k.key, s.key_secret, k.versions) AS item FROM (
            SELECT d.key, left(string_agg(lpad(to_hex(d.version), 16, '0'), '' ORDER BY d.seq DESC), 256) AS versions
            FROM d WHERE d.kind IN ('', 'k') AND NOT (SELECT all_of.yes FROM all_of)
                AND CASE WHEN (SELECT many.yes FROM many) AND strpos(d.key, ':') > 0
                    THEN split_part(d.key, ':', 1) || ':' <> ALL (ARRAY(SELECT ns.name FROM ns WHERE ns.large)) ELSE true END
            GROUP BY d.key
        ) k, /* TEMPLATE: prefix */cache_state s
        UNION ALL SELECT /* TEMPLATE: prefix */cache_group_item(g.kind, g.key, s.key_secret, g.version) FROM g, /* TEMPLATE: prefix */cache_state s
            WHERE NOT (SELECT all_of.yes FROM all_of)
        UNION ALL SELECT 'p' || /* TEMPLATE: prefix */cache_item(ns.name, NULL, repeat('0', 16)) FROM ns WHERE ns.large AND NOT (SELECT all_of.yes FROM all_of)
        UNION ALL SELECT '*' FROM all_of WHERE all_of.yes
    )
    SELECT (SELECT count(*) FROM d), (SELECT array_agg(i.item) FROM i),
        array(SELECT DISTINCT d.kind || d.key FROM d WHERE d.kind <> '' LIMIT 256) INTO changes, items, records;
    messages := 0;
    IF items IS NOT NULL THEN
        messages := /* TEMPLATE: prefix */cache_publish('1', sender, items);
    END IF;
    IF records <> '{}' THEN
        PERFORM /* TEMPLATE: prefix */cache_compact(records);
    END IF;
    IF drain THEN
        TRUNCATE /* TEMPLATE: prefix */cache_changes;
    END IF;
    bytes := pg_relation_size('/* TEMPLATE: prefix */cache_changes');
END $$;

-- cache_writers are the transactions that are writing entries or removing groups, but for the caller's. Those that are prepared, which
-- no backend runs any more, have "prepared " before their name.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_writers() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN array(SELECT CASE WHEN l.pid IS NULL THEN 'prepared ' ELSE '' END || l.virtualtransaction FROM pg_locks l
        WHERE l.relation IN ('/* TEMPLATE: prefix */cache_entries'::regclass, '/* TEMPLATE: prefix */cache_groups'::regclass) AND l.mode = 'RowExclusiveLock' AND l.granted
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND l.pid IS DISTINCT FROM pg_backend_pid());
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_item(text, bytea, text), /* TEMPLATE: prefix */cache_group_item(text, text, bytea, bigint), /* TEMPLATE: prefix */cache_head(text, text, bytea), /* TEMPLATE: prefix */cache_publish(text, text, text[]) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_flush(text, int, int, boolean), /* TEMPLATE: prefix */cache_writers() FROM PUBLIC;

-- cache_recovered are the transactions by their gid that were prepared before the server's last start, changed what is cached, and can
-- still be committed. They have their locks again, under a virtual transaction that is no backend's: -1/xid. (Before 14.1 those
-- prepared since have such a one too.)
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_recovered() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('max_prepared_transactions') = '0' THEN
        RETURN '{}';
    END IF;
    -- One that is just being committed is no longer in the view, but keeps its locks until all see what it wrote.
    RETURN array(SELECT DISTINCT coalesce(p.gid, l.virtualtransaction) FROM pg_locks l
        LEFT JOIN pg_prepared_xacts p ON l.virtualtransaction = concat('-1/', p.transaction)
        WHERE l.relation IN ('/* TEMPLATE: prefix */cache_entries'::regclass, '/* TEMPLATE: prefix */cache_groups'::regclass, '/* TEMPLATE: prefix */cache_changes'::regclass)
            AND l.mode = 'RowExclusiveLock' AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND l.pid IS NULL AND l.virtualtransaction !~ '^[0-9]');
END $$;

-- cache_incarnate returns the incarnation, and makes one where a crash has removed it. another: where there is one it is replaced. It
-- returns 0 and makes none while cache_recovered has any: what these changed is in the change log no more, so nobody would hear of it.
--
--     transaction: UPDATE; cache_delete; PREPARE        a crash empties the log, and the entries
--                                                       a load reads what was before the UPDATE
--     COMMIT PREPARED                                   stores it: for its whole TTL
--
-- Without an incarnation no load is stored, and nodes keep nothing for longer than a pulse. Making the first one also removes everything
-- that was stored meanwhile, if the crash may have lost removal records of prepared transactions: an entry that is written before such a
-- transaction commits must be removed by its commit.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_incarnate(another boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
BEGIN
    IF another THEN
        UPDATE /* TEMPLATE: prefix */cache_incarnation SET id = /* TEMPLATE: prefix */cache_random() RETURNING id INTO found_id;
    ELSE
        SELECT i.id INTO found_id FROM /* TEMPLATE: prefix */cache_incarnation i;
    END IF;
    IF found_id IS NOT NULL THEN
        RETURN found_id;
    ELSIF /* TEMPLATE: prefix */cache_recovered() <> '{}' THEN
        RETURN 0;
    END IF;
    INSERT INTO /* TEMPLATE: prefix */cache_incarnation (id) VALUES (/* TEMPLATE: prefix */cache_random()) ON CONFLICT DO NOTHING RETURNING id INTO found_id;
    IF found_id IS NULL THEN -- somebody else has made one meanwhile
        RETURN /* TEMPLATE: prefix */cache_incarnate(another);
    ELSIF current_setting('max_prepared_transactions') <> '0'
        AND (SELECT c.relpersistence = 'u' FROM pg_class c WHERE c.oid = '/* TEMPLATE: prefix */cache_groups'::regclass) THEN
        PERFORM /* TEMPLATE: prefix */cache_remove('p', '{""}', false);
    END IF;
    RETURN found_id;
END $$;

REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_recovered(), /* TEMPLATE: prefix */cache_incarnate(boolean) FROM PUBLIC;
