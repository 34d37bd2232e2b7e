-- name: RemoveGroups :one
-- Removes groups of a kind (t: tags, p: prefixes), whatever they hold, and publishes it, or with inline = false leaves that to a
-- flush. In a transaction of the caller's its commit does both.
SELECT /* TEMPLATE: prefix */cache_remove(@kind::text, (@names::text)::text[], @inline::boolean)::text AS ids, pg_current_xact_id()::text AS xid,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server;

-- name: RetiringGroups :one
-- The transaction id before which removal records may be deleted, once a pass over the table has left no dead row; 0: none may.
SELECT (/* TEMPLATE: prefix */cache_retiring())::text AS ended;

-- name: BuryEntries :one
SELECT b.removed::bigint AS removed, b.left_over::bigint AS left_over
FROM /* TEMPLATE: prefix */cache_bury(@first_block::bigint, @blocks::int, @batch::int) b;

-- name: RetireGroups :execrows
-- Deletes removal records before ended. No dead row of theirs is left: see cache_retiring.
DELETE FROM /* TEMPLATE: prefix */cache_groups WHERE ctid = ANY (array(
    SELECT g.ctid FROM /* TEMPLATE: prefix */cache_groups g WHERE g.xid < (@ended::text)::xid8 LIMIT @batch::bigint FOR UPDATE SKIP LOCKED
));

-- name: LeftoverGroups :one
-- Whether to VACUUM the table: no record is left, but pages are, and the role may. By a role that may not, VACUUM would only leave a
-- warning in the server's log, every time.
SELECT (pg_relation_size(c.oid) > 0 AND NOT EXISTS (SELECT FROM /* TEMPLATE: prefix */cache_groups g)
    AND CASE WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN')
        ELSE pg_has_role(c.relowner, 'USAGE') END)::boolean AS leftover
FROM pg_catalog.pg_class c WHERE c.oid = '/* TEMPLATE: prefix */cache_groups'::regclass;

-- name: VacuumGroups :exec
VACUUM (SKIP_LOCKED) /* TEMPLATE: prefix */cache_groups;

-- name: MarkGroups :exec
SELECT /* TEMPLATE: prefix */cache_mark_groups();
