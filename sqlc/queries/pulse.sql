-- name: Pulse :one
-- What a node must see every few seconds to go on trusting its memory: see pgcache/pulse.go. It reads a page or two and
-- takes no lock.
SELECT
    s.id, s.channel, s.schema_version, s.key_secret,
    coalesce((SELECT i.id FROM /* TEMPLATE: prefix */cache_incarnation i), 0)::bigint AS incarnation,
    (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server,
    (date_part('epoch', clock_timestamp()) * 1000000)::bigint AS now_us,
    EXISTS (
        SELECT FROM /* TEMPLATE: prefix */cache_changes c -- the clock may have been set back since
        WHERE c.logged_at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp() + interval '1 second'
    ) AS behind,
    (s.poller_lease > clock_timestamp())::boolean AS polled,
    EXISTS (
        -- It reads no record: without the table the pulse fails, because triggers of watched tables then leave no change.
        SELECT w.id FROM /* TEMPLATE: prefix */cache_watches w WHERE NOT EXISTS (SELECT g.id FROM /* TEMPLATE: prefix */cache_groups g LIMIT 0)
    ) AS watches
FROM /* TEMPLATE: prefix */cache_state s;

-- name: Server :one
SELECT (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint AS server;
