-- Watched tables: whoever changes such a table removes, in the same commit, the entries that its templates name.

-- Logged: triggers on the watched tables outlive a crash too. A watch is found by its function, which its triggers call: a
-- table may be renamed, or restored from a dump with another oid.
CREATE TABLE IF NOT EXISTS /* TEMPLATE: prefix */cache_watches (
    id text COLLATE "C" NOT NULL PRIMARY KEY, -- the names of its function and its triggers end with it
    watched text NOT NULL,                    -- the table, as it was called when it was watched
    keys text[] NOT NULL,
    tags text[] NOT NULL,
    most int NOT NULL,                        -- names a transaction removes one by one
    columns text[] NOT NULL,                  -- those that the templates name, with their types
    watched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- cache_watch_function is the name of a watch's function, without its schema.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_function(id text) RETURNS text LANGUAGE sql IMMUTABLE
AS $$ SELECT btrim('/* TEMPLATE: bare */cache_watch_', '"') || id $$;

-- cache_watched removes prefixes, '' for everything. Triggers of a watch call it where they can't remove names one by one: a transaction
-- has more names than most, or a name is too long or not known.
--
-- What the transaction has removed need not be removed again: whoever writes an entry before the commit has not seen the
-- record. Only what the transaction itself wrote since has, so the record is made anew where it wrote. (The counts of a
-- backend grow, and start anew only between transactions.)
--
-- Where nobody flushes, the log and the records must not grow without bound. One write in fifty looks at their sizes. Beyond 16 MiB of the
-- log or 64 MiB of records it removes everything, which includes all removals before, and deletes what it sees in sixteen pages of
-- each that is too large. Under a stricter isolation level it deletes nothing, because a row that another transaction has just
-- deleted would be an error.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watched(setting text, prefixes text[]) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    before text := current_setting(setting, true);
    wrote text;
    pages bigint[];
BEGIN
    IF to_regclass('/* TEMPLATE: prefix */cache_entries') IS NULL OR to_regclass('/* TEMPLATE: prefix */cache_groups') IS NULL
        OR to_regclass('/* TEMPLATE: prefix */cache_changes') IS NULL THEN
        RETURN;
    END IF;
    -- The first of the pages that are cleared, of the log and of the records.
    pages := ARRAY[
        CASE WHEN pg_relation_size('/* TEMPLATE: prefix */cache_changes') > 16777216 THEN floor(random() * pg_relation_size('/* TEMPLATE: prefix */cache_changes') / 8192) END,
        CASE WHEN pg_relation_size('/* TEMPLATE: prefix */cache_groups') > 67108864 THEN floor(random() * pg_relation_size('/* TEMPLATE: prefix */cache_groups') / 8192) END];
    IF pages[1] IS NOT NULL OR pages[2] IS NOT NULL THEN
        prefixes := '{""}';
    END IF;
    wrote := concat('all ', pg_stat_get_xact_tuples_inserted('/* TEMPLATE: prefix */cache_entries'::regclass) + pg_stat_get_xact_tuples_updated('/* TEMPLATE: prefix */cache_entries'::regclass));
    IF before = wrote AND current_setting('track_counts') <> 'off' AND cardinality(prefixes) <= (
        -- Anybody could set the setting.
        SELECT count(*) FROM unnest(prefixes) AS p
        WHERE EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'p' AND g.name = p AND g.xid = pg_current_xact_id())) THEN
        RETURN;
    END IF;
    PERFORM set_config(setting, wrote, true);
    IF current_setting('transaction_isolation') = 'read committed' THEN
        DELETE FROM /* TEMPLATE: prefix */cache_groups WHERE ctid = ANY (array(
            SELECT o.ctid FROM unnest(prefixes) AS p CROSS JOIN LATERAL (
                SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.kind = 'p' AND g.name = p FOR UPDATE SKIP LOCKED
            ) o
        ));
        IF pages[1] IS NOT NULL THEN
            DELETE FROM /* TEMPLATE: prefix */cache_changes WHERE ctid = ANY (array(
                SELECT c.ctid FROM /* TEMPLATE: prefix */cache_changes c
                WHERE c.ctid >= format('(%s,0)', pages[1])::tid AND c.ctid < format('(%s,0)', pages[1] + 16)::tid FOR UPDATE SKIP LOCKED
            ));
        END IF;
        IF pages[2] IS NOT NULL THEN
            DELETE FROM /* TEMPLATE: prefix */cache_groups WHERE ctid = ANY (array(
                SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g
                WHERE g.ctid >= format('(%s,0)', pages[2])::tid AND g.ctid < format('(%s,0)', pages[2] + 16)::tid FOR UPDATE SKIP LOCKED
            ));
        END IF;
    END IF;
    WITH made AS (
        INSERT INTO /* TEMPLATE: prefix */cache_groups (kind, name) SELECT 'p', p FROM unnest(prefixes) AS p RETURNING kind, name, id
    )
    INSERT INTO /* TEMPLATE: prefix */cache_changes (kind, key, version) SELECT m.kind, m.name, m.id FROM made m;
END $$;

-- cache_template makes an expression over a row r of a template: {column} stands for the column's value, {{ and }} for braces.
-- prefix is the text before the first column. columns are compared as texts, so no setting may change how names are quoted.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_template(template text, watched oid, OUT prefix text, OUT expression text, OUT columns text[])
LANGUAGE plpgsql STABLE SET quote_all_identifiers = off AS $$
#variable_conflict use_variable
DECLARE
    token text[];
    part text := '';
    found_type oid;
    base oid;
    parts text[] := '{}';
BEGIN
    columns := '{}';
    FOR token IN SELECT regexp_matches(template, '(\{\{|\}\}|[^{}]+)|\{([^{}]+)\}|(.)', 'g') LOOP
        IF token[3] IS NOT NULL THEN
            RAISE EXCEPTION 'template %: a brace that encloses no column''s name must be doubled', quote_literal(template) USING ERRCODE = 'PC002';
        ELSIF token[1] IS NOT NULL THEN
            part := part || CASE token[1] WHEN '{{' THEN '{' WHEN '}}' THEN '}' ELSE token[1] END;
            CONTINUE;
        END IF;
        SELECT a.atttypid INTO found_type FROM pg_attribute a
            WHERE a.attrelid = watched AND a.attname = token[2] AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'template %: table % has no column %', quote_literal(template), watched::regclass, quote_ident(token[2]) USING ERRCODE = 'PC002';
        END IF;
        -- The text of a value must not depend on a session's settings, and must be made by nobody's function: it is made
        -- with the rights of the cache's owner.
        WITH RECURSIVE bases AS (
            SELECT t.oid, t.typbasetype, t.typtype FROM pg_type t WHERE t.oid = found_type
            UNION ALL SELECT t.oid, t.typbasetype, t.typtype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
        ) SELECT b.oid INTO base FROM bases b WHERE b.typtype <> 'd';
        IF base NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'oid'::regtype, 'bool'::regtype, 'uuid'::regtype,
                'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype, 'date'::regtype)
            AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid = base AND t.typtype = 'e')
            AND NOT EXISTS (
                SELECT FROM pg_type t JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                    JOIN pg_extension x ON x.oid = d.refobjid WHERE t.oid = base AND x.extname = 'citext') THEN
            RAISE EXCEPTION 'template %: column % is of type %, whose text is not fixed: use an integer, numeric, text, uuid, boolean, date or enum, or a generated column of such a type',
                quote_literal(template), quote_ident(token[2]), format_type(found_type, NULL) USING ERRCODE = 'PC002';
        END IF;
        prefix := coalesce(prefix, part);
        parts := parts || array_remove(ARRAY[CASE WHEN part <> '' THEN quote_literal(part) END,
            format(CASE WHEN base = 'date'::regtype THEN '(CASE WHEN isfinite(r.%1$I) THEN to_char(r.%1$I, ''YYYY-MM-DD'') ELSE r.%1$I::text END)' ELSE 'r.%1$I::text' END
                || ' COLLATE pg_catalog."C"', token[2])], NULL);
        columns := columns || format('%I %s', token[2], format_type(found_type, NULL));
        part := '';
    END LOOP;
    IF prefix IS NULL THEN
        RAISE EXCEPTION 'template %: it names no column', quote_literal(template) USING ERRCODE = 'PC002';
    ELSIF octet_length(prefix) > 1024 THEN
        RAISE EXCEPTION 'template %: its text is longer than a key can be', quote_literal(template) USING ERRCODE = 'PC002';
    END IF;
    IF part <> '' THEN
        parts := parts || quote_literal(part);
    END IF;
    expression := array_to_string(parts, ' || ');
END $$;

-- cache_watch_names is the statement that finds what the rows of origins (tables or sub-selects) name. keys and tags are expressions, as
-- cache_template makes them. What is too long for a name becomes ''. NULL and an empty text name nothing: there are no such entries.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_names(origins text[], keys text[], tags text[], most int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'SELECT ' || string_agg(CASE WHEN k.expressions = '{}' THEN 'NULL' ELSE format(
        'nullif(array(SELECT DISTINCT CASE WHEN octet_length(x.name) <= %s THEN x.name ELSE '''' END FROM (%s) AS x (name) WHERE x.name <> '''' LIMIT %s), ''{}'')',
        k.longest, (SELECT string_agg(format('SELECT %s FROM %s AS r', e, o), ' UNION ALL ') FROM unnest(k.expressions) AS e, unnest(origins) AS o), most + 1) END, ', ' ORDER BY k.nth)
        || ' INTO found_keys, found_tags;'
    FROM (VALUES (1, keys, 1024), (2, tags, 256)) AS k (nth, expressions, longest)
$$;

-- cache_watch_body is the function of a watch. It fails no statement of the table's writer and makes none wait:
--
--   - where a column is gone, or is not what it was, everything goes. What may fail so is in a block by itself, without a write:
--     a block with one would cost a transaction id;
--   - where the cache's own tables are gone there is nothing to do;
--   - records are only inserted. cache_compact removes older ones;
--   - it does not notify. A transaction that notifies can't be prepared, fails where the queue of notifications is full, and
--     from before its commit until after it keeps every other waiting that does. The log says what is to be published, and
--     while tables are watched some node flushes in every window.
--
-- The common case is one row that names the same before and after. It ends early, with as few expressions as can be: PL/pgSQL
-- prepares each anew in every transaction. See decision 27.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_body(watch text, watched oid, keys text[], tags text[], most int, OUT body text, OUT prefixes text[], OUT columns text[])
LANGUAGE plpgsql STABLE SET quote_all_identifiers = off AS $$
#variable_conflict use_variable
DECLARE
    template record;
    expressions text[] := '{}';
    tagged text[] := '{}';
    parts text[];
    templates int;
    place text; -- of a name of the first row in names
    kinds record; -- what is said of keys, and of tags, where there are such templates
BEGIN
    prefixes := '{}';
    columns := '{}';
    FOR template IN SELECT t.* FROM unnest(keys) AS k, /* TEMPLATE: prefix */cache_template(k, watched) AS t LOOP
        expressions := expressions || template.expression;
        prefixes := prefixes || template.prefix;
        columns := columns || template.columns;
    END LOOP;
    FOR template IN SELECT t.* FROM unnest(tags) AS k, /* TEMPLATE: prefix */cache_template(k, watched) AS t LOOP
        tagged := tagged || template.expression;
        columns := columns || template.columns;
    END LOOP;
    columns := array(SELECT DISTINCT c FROM unnest(columns) AS c ORDER BY c);
    -- A prefix that begins with another goes with it.
    prefixes := array(SELECT DISTINCT p FROM unnest(prefixes) AS p WHERE NOT EXISTS (
        SELECT FROM unnest(prefixes) AS q WHERE q <> p AND starts_with(p, q)) ORDER BY p);
    SELECT array_agg(DISTINCT format('%I', a.attname)) INTO parts FROM pg_attribute a
        WHERE a.attrelid = watched AND a.attnum > 0 AND NOT a.attisdropped AND format('%I %s', a.attname, format_type(a.atttypid, NULL)) = ANY (columns);
    templates := cardinality(keys || tags);
    place := CASE WHEN templates = 1 THEN 'names[%s]' ELSE 'names[1][%s]' END;
    SELECT
        string_agg(format($part$(CASE WHEN coalesce(current_setting(%1$L, true), '') = '' THEN true WHEN current_setting(%1$L, true) ~ '^[0-9]{1,5}$' THEN current_setting(%1$L, true)::int <= %2$s ELSE false END)$part$,
            k.setting, most - k.n), ' AND ') || CASE WHEN most < max(k.n) THEN ' AND false' ELSE '' END AS few,
        string_agg(format($part$
        counted := set_config(%1$L, (%2$s + coalesce(nullif(current_setting(%1$L, true), ''), '0')::int)::text, true);$part$, k.setting, k.n), '') AS counted,
        string_agg(format($part$
    IF found_%1$s IS NOT NULL THEN
        counted := current_setting(%2$L, true);
        total := cardinality(found_%1$s) + CASE WHEN coalesce(counted, '') = '' THEN 0 WHEN counted ~ '^[0-9]{1,5}$' THEN counted::int ELSE %3$s END;
        IF total <= %3$s AND NOT '' = ANY (found_%1$s) THEN
            counted := set_config(%2$L, total::text, true);
        ELSE
            PERFORM /* TEMPLATE: prefix */cache_watched(%2$L, %4$L);
            found_%1$s := NULL;
        END IF;
    END IF;$part$, k.found, k.setting, most, k.instead), '') AS bounded,
        string_agg(format('found_%s IS NOT NULL', k.found), ' OR ') AS found,
        -- Behind a sub-select: a planner that sees how short an array is believes a new plan to be cheaper, every time.
        string_agg(format('SELECT %L, unnest((SELECT found_%s))', k.kind, k.found), ' UNION ALL ') AS rows
    INTO kinds FROM (
        SELECT k.*, format('pgcache.watch_%s%s', watch, k.kind) AS setting
        FROM (VALUES ('keys', 'k', cardinality(keys), prefixes), ('tags', 't', cardinality(tags), '{""}')) AS k (found, kind, n, instead) WHERE k.n > 0
    ) k;
    SELECT format($body$
#variable_conflict use_column
DECLARE
    names text[];
    found_keys text[];
    found_tags text[];
    counted text;
    total int;
    record bigint;
BEGIN
    BEGIN
        -- To look at sizes costs as much as a record. Where a table is gone this fails, whether it looks or not.
        IF random() < 0.02 AND (pg_relation_size('/* TEMPLATE: prefix */cache_changes') > 16777216 OR pg_relation_size('/* TEMPLATE: prefix */cache_groups') > 67108864) THEN
            NULL;%1$s
        END IF;
    EXCEPTION WHEN OTHERS THEN
        PERFORM /* TEMPLATE: prefix */cache_watched(%2$L, '{""}');
        RETURN NULL;
    END;
    -- What a transaction has named is counted from statement to statement.
    IF %3$s AND %4$s THEN%5$s
        %6$s
        RETURN NULL;
    ELSIF names = '{}' THEN
        RETURN NULL;
    END IF;
    BEGIN
        IF names IS NULL THEN -- TRUNCATE, or there is no room
            found_%7$s := '{""}';%8$s
        END IF;
    EXCEPTION WHEN OTHERS THEN
        PERFORM /* TEMPLATE: prefix */cache_watched(%2$L, '{""}');
        RETURN NULL;
    END;%9$s
    IF %10$s THEN
        WITH made AS (
            INSERT INTO /* TEMPLATE: prefix */cache_groups (kind, name) %11$s RETURNING kind, name, id
        )
        INSERT INTO /* TEMPLATE: prefix */cache_changes (kind, key, version) SELECT m.kind, m.name, m.id FROM made AS m;
    END IF;
    RETURN NULL;
END
$body$,
        string_agg(format('
        ELSIF %s THEN
            names := array(%s LIMIT 3);', o.op, (SELECT string_agg(format(CASE WHEN templates = 1 THEN 'SELECT %s FROM %s AS r' ELSE 'SELECT ARRAY[%s] FROM %s AS r' END,
                array_to_string(expressions || tagged, ', '), f), ' UNION ALL ') FROM unnest(o.origins) AS f)), '' ORDER BY o.nth),
        format('pgcache.watch_%se', watch),
        format(CASE WHEN templates = 1 THEN '(cardinality(names) = 1 OR cardinality(names) = 2 AND names[1] = names[2])'
            ELSE '(cardinality(names) = %s OR cardinality(names) = %s AND names[1:1] = names[2:2])' END, templates, 2 * templates)
            || (SELECT string_agg(format(' AND octet_length(' || place || ') BETWEEN 1 AND %s', i, CASE WHEN i <= cardinality(keys) THEN 1024 ELSE 256 END), '') FROM generate_series(1, templates) AS i),
        kinds.few, kinds.counted,
        (SELECT format(CASE WHEN templates = 1 THEN
            $part$INSERT INTO /* TEMPLATE: prefix */cache_groups (kind, name) VALUES %1$s RETURNING id INTO record;
        INSERT INTO /* TEMPLATE: prefix */cache_changes (kind, key, version) VALUES (%2$L, names[1], record);$part$
            ELSE $part$WITH made AS (
            INSERT INTO /* TEMPLATE: prefix */cache_groups (kind, name) VALUES %1$s RETURNING kind, name, id
        )
        INSERT INTO /* TEMPLATE: prefix */cache_changes (kind, key, version) SELECT m.kind, m.name, m.id FROM made AS m;$part$ END,
            string_agg(format('(%L, ' || place || ')', n.kind, n.i), ', '), max(n.kind))
            FROM (SELECT i, CASE WHEN i <= cardinality(keys) THEN 'k' ELSE 't' END AS kind FROM generate_series(1, templates) AS i) n),
        CASE WHEN tags = '{}' THEN 'keys' ELSE 'tags' END,
        string_agg(format('
        ELSIF %s THEN
            %s', o.op, /* TEMPLATE: prefix */cache_watch_names(o.origins, expressions, tagged, most)), '' ORDER BY o.nth),
        kinds.bounded, kinds.found, kinds.rows)
    INTO body FROM (VALUES
        (1, $part$TG_OP = 'UPDATE' AND TG_LEVEL = 'STATEMENT'$part$, '{old_rows,new_rows}'::text[]),
        (2, $part$TG_LEVEL = 'ROW'$part$, array(SELECT format('(SELECT %s)', (SELECT string_agg(format('%1$s.%2$s AS %2$s', f, p), ', ') FROM unnest(parts) AS p)) FROM unnest('{OLD,NEW}'::text[]) AS f)),
        (3, $part$TG_OP = 'INSERT'$part$, '{new_rows}'),
        (4, $part$TG_OP = 'DELETE'$part$, '{old_rows}')) AS o (nth, op, origins);
    IF tags <> '{}' THEN
        prefixes := '{""}';
    END IF;
END $$;

-- cache_watch_tree is a table with its partitions, or the tables that inherit from it. A statement fires the triggers of the
-- table that it names alone, so all of them have the same.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_tree(root oid) RETURNS SETOF oid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE tree (rel) AS (SELECT root UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.rel)
    SELECT t.rel FROM tree t ORDER BY t.rel
$$;

-- cache_watch_triggers are the triggers of all watches. kind is the last letter of the name: i, u, d and t for INSERT, UPDATE, DELETE and
-- TRUNCATE, r for rows.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_triggers() RETURNS TABLE (id text, watched text, function oid, rel oid, name name, enabled "char", cloned boolean, kind text)
LANGUAGE sql STABLE AS $$
    SELECT w.id, w.watched, p.oid AS function, t.tgrelid AS rel, t.tgname AS name, t.tgenabled AS enabled, t.tgparentid <> 0 AS cloned, right(t.tgname, 1) AS kind
    FROM /* TEMPLATE: prefix */cache_watches w
    JOIN pg_proc p ON p.proname = /* TEMPLATE: prefix */cache_watch_function(w.id)
        AND p.pronamespace = (SELECT c.relnamespace FROM pg_class c WHERE c.oid = '/* TEMPLATE: prefix */cache_watches'::regclass)
    JOIN pg_trigger t ON t.tgfoid = p.oid
$$;

-- cache_watch_faults says what is wrong with a watch. Its statement triggers fire in ordinary sessions. Sessions that apply replicated
-- changes fire no statement triggers for them, so a row trigger fires there.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_faults(watch text) RETURNS text[] LANGUAGE sql STABLE SET quote_all_identifiers = off AS $$
    WITH fired AS (
        SELECT DISTINCT t.rel FROM /* TEMPLATE: prefix */cache_watch_triggers() t WHERE t.id = watch AND NOT t.cloned
    ), tree AS (
        SELECT DISTINCT x.rel FROM fired f, /* TEMPLATE: prefix */cache_watch_tree(f.rel) AS x (rel)
    )
    SELECT array(
        SELECT 'the table is gone, or has none of the triggers' WHERE NOT EXISTS (SELECT FROM fired)
        UNION ALL
        SELECT * FROM (SELECT format('%s lacks its triggers, or they are disabled', x.rel::regclass) FROM tree x WHERE 5 <> (
            SELECT count(*) FROM (VALUES ('i', 'O'), ('u', 'O'), ('d', 'O'), ('t', 'A'), ('r', 'R')) AS k (kind, enabled)
            JOIN /* TEMPLATE: prefix */cache_watch_triggers() t ON t.id = watch AND t.rel = x.rel AND t.kind = k.kind AND t.enabled::text = k.enabled
        ) ORDER BY x.rel) lacking
        UNION ALL
        SELECT format('column %s of %s is gone or has changed', c, f.rel::regclass)
        FROM fired f, /* TEMPLATE: prefix */cache_watches w, unnest(w.columns) AS c
        WHERE w.id = watch AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = f.rel AND a.attnum > 0 AND NOT a.attisdropped
            AND format('%I %s', a.attname, format_type(a.atttypid, NULL)) = c)
    )
$$;

-- cache_watch_of is the watch of a table, NULL if there is none. A partition that was detached still has the triggers of
-- another table's watch, which is not its own.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch_of(root oid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT t.id FROM /* TEMPLATE: prefix */cache_watch_triggers() t
    WHERE t.rel = root AND (to_regclass(t.watched) = root OR NOT EXISTS (
        SELECT FROM /* TEMPLATE: prefix */cache_watch_triggers() o WHERE o.id = t.id AND o.rel = to_regclass(t.watched)))
    LIMIT 1
$$;

-- cache_unwatch_id removes a watch with everything that it has made. It locks tables in one order, and waits for none.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_unwatch_id(watch text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT DISTINCT x.rel FROM /* TEMPLATE: prefix */cache_watch_triggers() x WHERE x.id = watch ORDER BY x.rel LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', t.rel::regclass);
    END LOOP;
    FOR t IN SELECT x.rel, x.name FROM /* TEMPLATE: prefix */cache_watch_triggers() x WHERE x.id = watch AND NOT x.cloned LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t.name, t.rel::regclass);
    END LOOP;
    FOR t IN SELECT p.oid::regprocedure AS function FROM pg_proc p WHERE p.proname = /* TEMPLATE: prefix */cache_watch_function(watch)
        AND p.pronamespace = (SELECT c.relnamespace FROM pg_class c WHERE c.oid = '/* TEMPLATE: prefix */cache_watches'::regclass) LOOP
        EXECUTE format('DROP FUNCTION %s', t.function);
    END LOOP;
    DELETE FROM /* TEMPLATE: prefix */cache_watches w WHERE w.id = watch;
END $$;

-- cache_unwatch ends the watch of a table, also of one that is gone, and says whether there was one.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_unwatch(watched text) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    root oid := to_regclass(watched);
    name text[];
    ids text[];
BEGIN
    IF root IS NULL THEN
        name := parse_ident(watched);
    END IF;
    LOCK TABLE /* TEMPLATE: prefix */cache_watches IN SHARE ROW EXCLUSIVE MODE;
    -- A table that is gone is found by its name, which is looked for along the search_path as that of a table would be.
    ids := array(SELECT w.id FROM /* TEMPLATE: prefix */cache_watches w
        WHERE w.id = /* TEMPLATE: prefix */cache_watch_of(root)
            OR (to_regclass(w.watched) = root OR w.watched = (
                    SELECT g.watched FROM /* TEMPLATE: prefix */cache_watches g
                    JOIN unnest(CASE WHEN cardinality(name) = 1 THEN current_schemas(true) ELSE name[:1]::name[] END) WITH ORDINALITY AS s (schema, place)
                        ON g.watched = format('%I.%I', s.schema, name[cardinality(name)])
                    ORDER BY s.place LIMIT 1))
                AND NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_watch_triggers() t WHERE t.id = w.id));
    PERFORM /* TEMPLATE: prefix */cache_unwatch_id(u) FROM unnest(ids) AS u;
    RETURN ids <> '{}';
END $$;

-- cache_watch watches a table, and says whether anything had to be changed. It is for the owner of the cache's tables, who must
-- own the table too. Writers of the table are kept waiting for at most lock_timeout: behind a transaction that has written it
-- they would queue, so this fails instead, and may be tried again.
CREATE OR REPLACE FUNCTION /* TEMPLATE: prefix */cache_watch(watched text, keys text[], tags text[] DEFAULT '{}', most int DEFAULT 1000) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    root regclass := to_regclass(watched);
    home record;
    class record;
    id text;
    made record;
    rel regclass;
    kind text;
    full_name text;
    trigger_name text;
BEGIN
    SELECT n.nspname AS name, pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS ours INTO STRICT home
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = '/* TEMPLATE: prefix */cache_watches'::regclass;
    SELECT c.relkind, c.relpersistence, c.relnamespace::regnamespace AS schema, c.relname AS name INTO class FROM pg_class c WHERE c.oid = root;
    IF root IS NULL THEN
        RAISE EXCEPTION 'there is no table %', watched USING ERRCODE = 'PC002';
    ELSIF class.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is %: only tables can be watched', root, CASE class.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
            WHEN 'f' THEN 'a foreign table' ELSE 'no table' END USING ERRCODE = 'PC002';
    ELSIF class.relpersistence = 't' OR class.schema IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) THEN
        RAISE EXCEPTION '% is a temporary or a system table: it can''t be watched', root USING ERRCODE = 'PC002';
    ELSIF root IN ('/* TEMPLATE: prefix */cache_entries'::regclass, '/* TEMPLATE: prefix */cache_state'::regclass, '/* TEMPLATE: prefix */cache_incarnation'::regclass,
        '/* TEMPLATE: prefix */cache_changes'::regclass, '/* TEMPLATE: prefix */cache_notices'::regclass, '/* TEMPLATE: prefix */cache_groups'::regclass,
        '/* TEMPLATE: prefix */cache_watches'::regclass, '/* TEMPLATE: prefix */cache_leases'::regclass) THEN
        RAISE EXCEPTION '% is the cache''s own', root USING ERRCODE = 'PC002';
    ELSIF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = root) THEN
        RAISE EXCEPTION '% is a partition or inherits from another table: what is written through % would not be seen, watch that one', root,
            (SELECT string_agg(i.inhparent::regclass::text, ', ') FROM pg_inherits i WHERE i.inhrelid = root) USING ERRCODE = 'PC002';
    ELSIF EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_watch_tree(root) AS x (rel) JOIN pg_class c ON c.oid = x.rel WHERE c.relkind = 'f') THEN
        RAISE EXCEPTION '% has a foreign table among its partitions: it can''t be watched', root USING ERRCODE = 'PC002';
    ELSIF coalesce(cardinality(keys), 0) + coalesce(cardinality(tags), 0) = 0 THEN
        RAISE EXCEPTION 'the watch of % names neither keys nor tags', root USING ERRCODE = 'PC002';
    ELSIF most IS NULL OR most NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'at most % names of a transaction: want 1 to 10000', most USING ERRCODE = 'PC002';
    ELSIF NOT home.ours THEN
        RAISE EXCEPTION 'tables are watched by the role that migrates the cache, % or a member of it', home.owner USING ERRCODE = 'PC002';
    END IF;
    FOR rel IN SELECT x.rel::regclass FROM /* TEMPLATE: prefix */cache_watch_tree(root) AS x (rel) LOOP
        IF NOT (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = rel) THEN
            RAISE EXCEPTION 'who watches % must be its owner, or a member of that role', rel USING ERRCODE = 'PC002';
        END IF;
    END LOOP;
    keys := coalesce(keys, '{}');
    tags := coalesce(tags, '{}');
    full_name := format('%s.%I', class.schema, class.name);
    id := /* TEMPLATE: prefix */cache_watch_of(root);
    SELECT * INTO STRICT made FROM /* TEMPLATE: prefix */cache_watch_body(coalesce(id, left(replace(gen_random_uuid()::text, '-', ''), 8)), root, keys, tags, most);
    -- As it should be: nothing is locked.
    IF EXISTS (
        SELECT FROM /* TEMPLATE: prefix */cache_watches w JOIN pg_proc p ON p.proname = /* TEMPLATE: prefix */cache_watch_function(w.id)
        WHERE w.id = id AND p.pronamespace = home.name::regnamespace AND p.prosrc = made.body AND w.watched = full_name
            AND w.keys = keys AND w.tags = tags AND w.columns = made.columns AND /* TEMPLATE: prefix */cache_watch_faults(w.id) = '{}') THEN
        RETURN false;
    END IF;

    -- Two at once would both find no watch.
    LOCK TABLE /* TEMPLATE: prefix */cache_watches IN SHARE ROW EXCLUSIVE MODE;
    id := coalesce(/* TEMPLATE: prefix */cache_watch_of(root), left(replace(gen_random_uuid()::text, '-', ''), 8));
    SELECT * INTO STRICT made FROM /* TEMPLATE: prefix */cache_watch_body(id, root, keys, tags, most);
    FOR rel IN SELECT x.rel::regclass FROM /* TEMPLATE: prefix */cache_watch_tree(root) AS x (rel) LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', rel);
    END LOOP;
    -- Of a table of this name that was dropped.
    PERFORM /* TEMPLATE: prefix */cache_unwatch_id(w.id) FROM /* TEMPLATE: prefix */cache_watches w
        WHERE w.id <> id AND to_regclass(w.watched) = root AND NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_watch_triggers() t WHERE t.id = w.id);
    EXECUTE format('CREATE OR REPLACE FUNCTION %1$I.%2$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, pg_temp AS %3$L',
        home.name, /* TEMPLATE: prefix */cache_watch_function(id), made.body);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %I.%I() FROM PUBLIC', home.name, /* TEMPLATE: prefix */cache_watch_function(id));
    EXECUTE format('ALTER FUNCTION %I.%I() OWNER TO %I', home.name, /* TEMPLATE: prefix */cache_watch_function(id), home.owner);
    FOR rel IN SELECT x.rel::regclass FROM /* TEMPLATE: prefix */cache_watch_tree(root) AS x (rel) LOOP
        -- Of another watch, when this was another table's partition.
        FOR trigger_name IN SELECT t.name FROM /* TEMPLATE: prefix */cache_watch_triggers() t WHERE t.rel = rel AND t.id <> id AND NOT t.cloned LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, rel);
        END LOOP;
        FOREACH kind IN ARRAY ARRAY['i', 'u', 'd', 't', 'r'] LOOP
            trigger_name := concat(/* TEMPLATE: prefix */cache_watch_function(id), '_', kind);
            -- Partitions get the trigger of rows from their parent.
            CONTINUE WHEN kind = 'r' AND class.relkind = 'p' AND rel <> root;
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s EXECUTE FUNCTION %I.%I()', trigger_name, CASE kind
                    WHEN 'i' THEN 'INSERT' WHEN 'u' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' WHEN 't' THEN 'TRUNCATE' ELSE 'INSERT OR UPDATE OR DELETE' END, rel,
                CASE kind WHEN 'i' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'u' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                    WHEN 'd' THEN 'REFERENCING OLD TABLE AS old_rows' ELSE '' END || CASE WHEN kind = 'r' THEN ' FOR EACH ROW' ELSE ' FOR EACH STATEMENT' END,
                home.name, /* TEMPLATE: prefix */cache_watch_function(id));
            EXECUTE format('ALTER TABLE %s%s ENABLE %s TRIGGER %I', CASE WHEN kind = 'r' THEN '' ELSE 'ONLY ' END, rel,
                CASE kind WHEN 't' THEN 'ALWAYS' WHEN 'r' THEN 'REPLICA' ELSE '' END, trigger_name);
        END LOOP;
    END LOOP;
    INSERT INTO /* TEMPLATE: prefix */cache_watches AS w (id, watched, keys, tags, most, columns) VALUES (id, full_name, keys, tags, most, made.columns)
        ON CONFLICT ON CONSTRAINT /* TEMPLATE: bare */cache_watches_pkey DO UPDATE SET watched = EXCLUDED.watched, keys = EXCLUDED.keys,
            tags = EXCLUDED.tags, most = EXCLUDED.most, columns = EXCLUDED.columns, watched_at = EXCLUDED.watched_at;
    -- What was changed before is not seen any more: nothing that the templates can name remains from then.
    PERFORM /* TEMPLATE: prefix */cache_remove('p', made.prefixes, true);
    RETURN true;
END $$;

-- These are for the owner. docs/rights.md grants others those that show the state of watches.
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_watch(text, text[], text[], int), /* TEMPLATE: prefix */cache_unwatch(text), /* TEMPLATE: prefix */cache_unwatch_id(text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_watched(text, text[]), /* TEMPLATE: prefix */cache_template(text, oid) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_watch_body(text, oid, text[], text[], int), /* TEMPLATE: prefix */cache_watch_names(text[], text[], text[], int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_watch_function(text), /* TEMPLATE: prefix */cache_watch_tree(oid) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION /* TEMPLATE: prefix */cache_watch_faults(text), /* TEMPLATE: prefix */cache_watch_of(oid), /* TEMPLATE: prefix */cache_watch_triggers() FROM PUBLIC;
