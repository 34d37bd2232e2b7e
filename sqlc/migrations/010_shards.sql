-- What a server knows of the Shards that it is one of: see docs/decisions/0025. A Cache by itself reads none of it.

ALTER TABLE /* TEMPLATE: prefix */cache_state
    ADD COLUMN IF NOT EXISTS shard_name text COLLATE "C" NOT NULL DEFAULT '', -- of this server in the map; '': it is in none
    ADD COLUMN IF NOT EXISTS shard_epoch bigint NOT NULL DEFAULT 0,           -- grows by one with each step: even, the map is settled; odd, keys are moving
    ADD COLUMN IF NOT EXISTS shard_map text COLLATE "C" NOT NULL DEFAULT '',  -- the map in force
    ADD COLUMN IF NOT EXISTS shard_next text COLLATE "C" NOT NULL DEFAULT ''; -- the map that keys are moving to; '': they do not move
