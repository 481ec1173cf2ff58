-- The read model of the bank example: the table `account` as `projector schema -c demo/bank.json` prints
-- it for MySQL, and as `projector schema --apply` creates it. (On MariaDB the key's collation is
-- utf8mb4_nopad_bin.) What matters to the projector is the key, compared byte by byte, and columns that
-- hold what the mapping puts into them; a table of your own may have more columns and indexes.
CREATE TABLE IF NOT EXISTS `account` (
  `account_id` varchar(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
  `user_id` varchar(36) NOT NULL,
  `name` varchar(100) NOT NULL,
  `balance` decimal(18,2) NOT NULL,
  `opened_at` datetime(3) NULL,
  `updated_at` datetime(3) NOT NULL,
  PRIMARY KEY (`account_id`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
