-- Which outbox the rows of each projector came from: a text that MongoDB made once for it. The same name
-- with another MongoDB behind it is refused by this. `projector schema --apply` runs this file too.
CREATE TABLE IF NOT EXISTS projector_source (
  projector VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  source    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (projector)
) ENGINE = InnoDB;
