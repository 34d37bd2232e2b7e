-- name: Rights :many
-- What the role has of the wanted rights, by the catalogs alone: whatever is missing, there is an answer. Without a schema
-- names are looked up along search_path, through schemas too that the role may not use: of those the server itself would
-- only say that there is no such table. With quote_all_identifiers the server quotes the names of types.
WITH home AS (
    SELECT n.oid, quote_ident(n.nspname) AS name, has_schema_privilege(n.oid, 'USAGE') AS usable, p.place
    FROM (
        SELECT @schema::text AS name, 1::bigint AS place WHERE @schema::text <> ''
        UNION ALL
        SELECT replace(CASE WHEN s.name LIKE '"%' THEN btrim(s.name, '"') ELSE lower(s.name) END, '$user', current_user), s.place
        FROM regexp_split_to_table(btrim(current_setting('search_path')), '\s*,\s*') WITH ORDINALITY AS s (name, place)
        WHERE @schema::text = ''
    ) p JOIN pg_catalog.pg_namespace n ON n.nspname = p.name
), objects AS (
    SELECT c.oid, c.relname AS name, '-' AS args, c.relpersistence = 'p' AS durable, h.name AS home, h.usable, h.place
    FROM home h JOIN pg_catalog.pg_class c ON c.relnamespace = h.oid WHERE c.relkind IN ('r', 'p', 'S')
    UNION ALL
    SELECT p.oid, p.proname, replace(oidvectortypes(p.proargtypes), '"', '') /* quote_all_identifiers may be on */,
        false, h.name, h.usable, h.place
    FROM home h JOIN pg_catalog.pg_proc p ON p.pronamespace = h.oid
), wanted AS (
    SELECT w.nth, w.name, w.args, w.privilege, w.cols
    FROM ROWS FROM (
        unnest((SELECT (@names::text)::text[])), unnest((SELECT (@args::text)::text[])),
        unnest((SELECT (@privileges::text)::text[])), unnest((SELECT (@columns::text)::text[]))
    ) WITH ORDINALITY AS w (name, args, privilege, cols, nth)
)
SELECT current_user::text AS role, (o.oid IS NOT NULL)::boolean AS there, coalesce(o.home, '')::text AS home, coalesce(o.usable, false)::boolean AS usable,
    concat(o.home || '.', quote_ident(w.name), '(' || nullif(w.args, '-') || ')')::text AS object, coalesce(o.durable, false)::boolean AS durable,
    coalesce(CASE
        WHEN o.oid IS NULL THEN false
        WHEN w.args <> '-' THEN has_function_privilege(o.oid, w.privilege)
        WHEN w.cols = '' THEN has_table_privilege(o.oid, w.privilege)
        ELSE (SELECT bool_and(has_column_privilege(o.oid, c, w.privilege)) FROM regexp_split_to_table(w.cols, ', ') AS c)
    END, false)::boolean AS held
FROM wanted w LEFT JOIN LATERAL (
    SELECT x.oid, x.home, x.usable, x.durable FROM objects x WHERE x.name = w.name AND x.args = w.args
    ORDER BY x.usable DESC, x.place LIMIT 1
) o ON true
ORDER BY w.nth;
