-- name: LeaseAndLook :many
-- got is 1 for a key whose lease was taken: see cache_look_leased.
SELECT coalesce(r.n, 0)::bigint AS n, coalesce(r.version, 0)::bigint AS version, coalesce(r.codec, '')::text AS codec, r.value::bytea AS value,
    coalesce(r.remaining_us, 0)::bigint AS remaining_us, coalesce(r.server, 0)::bigint AS server,
    coalesce(r.incarnation, 0)::bigint AS incarnation, coalesce(r.now_us, 0)::bigint AS now_us,
    coalesce(r.tags, '')::text AS tags, coalesce(r.snapshot, '')::text AS snapshot, coalesce(r.got, '0')::text AS got
FROM /* TEMPLATE: prefix */cache_look_leased((@keys::text)::text[], (@leases::text)::int[], (@ids::text)::bigint[], (@owners::text)::bigint[],
        (@was::text)::bigint[], @term_us::bigint, @largest::int, @stale::boolean)
    AS r (n, version, codec, value, remaining_us, server, incarnation, now_us, got, tags, snapshot);

-- name: RenewLeases :one
SELECT array_to_string(/* TEMPLATE: prefix */cache_renew((@ids::text)::bigint[], (@owners::text)::bigint[], @term_us::bigint), ',')::text AS kept;

-- name: ReleaseLeases :exec
SELECT /* TEMPLATE: prefix */cache_release((@ids::text)::bigint[], (@owners::text)::bigint[]);

-- name: DropLeases :execrows
-- What processes that died have left, or what a step of the clock has made void.
DELETE FROM /* TEMPLATE: prefix */cache_leases WHERE id IN (
    SELECT l.id FROM /* TEMPLATE: prefix */cache_leases l
    WHERE l.until NOT BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() + interval '1 minute'
    LIMIT @batch::bigint FOR UPDATE SKIP LOCKED
) AND until NOT BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() + interval '1 minute';
