-- name: WatchTable :one
SELECT (/* TEMPLATE: prefix */cache_watch(@watched::text, (@keys::text)::text[], (@tags::text)::text[], @most::int))::boolean AS changed;

-- name: UnwatchTable :one
SELECT (/* TEMPLATE: prefix */cache_unwatch(@watched::text))::boolean AS changed;
