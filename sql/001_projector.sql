-- The projector's own tables. They live in the database of the projections, because each is written
-- in the same transaction as the rows. `projector schema --apply` runs this file; so may an operator.

-- The ledger: one row for each event that was applied. Its key is what makes an event count once.
-- Ids stand in their usual text form; the kind keeps the string "5" and the number 5 apart.
CREATE TABLE IF NOT EXISTS projector_applied (
  projector     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id_kind ENUM('int', 'string', 'uuid', 'objectid') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id      VARBINARY(64) NOT NULL,
  outcome       ENUM('applied', 'superseded', 'skipped', 'ignored') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  applied_at    DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (projector, event_id_kind, event_id),
  KEY by_time (projector, applied_at)
) ENGINE = InnoDB;

-- Per aggregate the last applied event in the order (occurred_at, version, event id); the highest version
-- applied, to notice gaps; and the version at which the row was last taken from the entity itself.
CREATE TABLE IF NOT EXISTS projector_position (
  projector         VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregate_type    VARBINARY(128) NOT NULL,
  aggregate_id_kind ENUM('int', 'string', 'uuid', 'objectid') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregate_id      VARBINARY(255) NOT NULL,
  occurred_at       DATETIME(3) NOT NULL,
  version           BIGINT,
  event_id_kind     ENUM('int', 'string', 'uuid', 'objectid') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id          VARBINARY(64) NOT NULL,
  max_version       BIGINT,
  refreshed_version BIGINT,
  PRIMARY KEY (projector, aggregate_type, aggregate_id_kind, aggregate_id)
) ENGINE = InnoDB;

-- The owner's epoch. Every transaction reads it with a shared lock; a new owner raises it.
CREATE TABLE IF NOT EXISTS projector_fence (
  projector VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  part      SMALLINT UNSIGNED NOT NULL DEFAULT 0,
  epoch     BIGINT UNSIGNED NOT NULL,
  owner     VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  PRIMARY KEY (projector, part)
) ENGINE = InnoDB;
