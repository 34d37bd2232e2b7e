-- name: GetShard :one
-- Which map of shards the server knows. Every node of Shards asks each server once a second: see pgcache/shardstate.go.
SELECT s.shard_name, s.shard_epoch, s.shard_map, s.shard_next FROM /* TEMPLATE: prefix */cache_state s;

-- name: StepShard :execrows
-- Records a later state of the map, unless the server is another shard or has gone on already.
UPDATE /* TEMPLATE: prefix */cache_state s
SET shard_name = @name::text, shard_epoch = @epoch::bigint, shard_map = @map::text, shard_next = @next::text
WHERE s.shard_epoch BETWEEN @least::bigint AND @most::bigint AND s.shard_name IN ('', @name::text);

-- name: ShardKeys :many
-- A page of the keys that have a value, also of those that have expired and may still be handed out where a load fails.
SELECT e.key FROM /* TEMPLATE: prefix */cache_entries e
WHERE e.key > @after::text AND e.value IS NOT NULL
ORDER BY e.key LIMIT @most::int;
