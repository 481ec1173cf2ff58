-- Three users with no more privileges than they need, for the bank example. Run by hand, as an
-- administrator, in the database of the projections (MySQL 8.0.19 or newer, MariaDB 10.11 or newer):
--
--     mysql -u root -p bank_read < sql/grants.sql
--
-- Before that, the tables have to exist, because a privilege on a table can only be granted once it
-- is there:
--
--     mysql -u root -p -e 'CREATE DATABASE bank_read CHARACTER SET utf8mb4'
--     mysql -u root -p bank_read < sql/001_projector.sql
--     mysql -u root -p bank_read < sql/002_source.sql
--     mysql -u root -p bank_read < sql/bank_read_model.sql     (or what `projector schema` prints)
--
-- What to replace:
--     projector, projector_schema,
--     projector_fill                the names of the users; leave out the one that you do not need
--     @'%'                          from where they may connect; narrow it to the projector's host
--     change-me-1, -2, -3           passwords; the mapping file reads them from a "password_file".
--                                   REQUIRE SSL behind one lets the user in with TLS only
--     account                       your own target tables: one GRANT line for each
-- The database is the one that the client is connected to.
--
-- May be run again: for one more target table, say. The passwords of users that exist stay.

-- The user of `projector run` and of all commands that work beside it (`check`, `status`, `list`, `retry`,
-- `skip`, `refresh`, `explain`, `reconcile`, `rebuild` in place, `replay --aggregate`): rows, and no DDL.

CREATE USER IF NOT EXISTS projector@'%' IDENTIFIED BY 'change-me-1';

-- DELETE is for pruning old ledger entries ("ledger_retention"). Leave it out if another user prunes:
-- the projector then reports that once and continues.
GRANT SELECT, INSERT, DELETE ON projector_applied TO projector@'%';
-- UPDATE is also what MySQL asks for to lock rows with SELECT … FOR UPDATE.
GRANT SELECT, INSERT, UPDATE ON projector_position TO projector@'%';
GRANT SELECT, INSERT, UPDATE ON projector_fence TO projector@'%';
GRANT SELECT, INSERT, UPDATE ON projector_source TO projector@'%';
-- Target tables. DELETE is needed when the mapping has a `delete`, or `entities`: a refresh removes
-- the row of an entity that is gone. An `sql` op needs what its statement needs.
GRANT SELECT, INSERT, UPDATE, DELETE ON account TO projector@'%';

-- The user of `projector schema --apply`: creates tables, adds columns. It writes no rows and drops
-- nothing, because `--apply` never does.

CREATE USER IF NOT EXISTS projector_schema@'%' IDENTIFIED BY 'change-me-2';

-- Without a table name: for the whole database, also for tables to come. REFERENCES lets the user see
-- the columns of a table in information_schema, but not its rows.
GRANT CREATE, ALTER, REFERENCES ON * TO projector_schema@'%';

-- The user of `projector replay` and `projector rebuild --shadow`, which build a table beside a target
-- table and swap the two. Only operators use it, with a mapping file that names it: `run` never does.

CREATE USER IF NOT EXISTS projector_fill@'%' IDENTIFIED BY 'change-me-3';

-- For the whole database, because the tables beside (account__new, account__copied, account__replay,
-- account__old) come and go: CREATE and DROP make and remove them, ALTER is what RENAME asks for, LOCK
-- TABLES lets `run` wait during the swap, and without TRIGGER triggers are invisible. Rows
-- are written there and in the projector's tables, where a replay keeps a ledger of its own for a while.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, LOCK TABLES, TRIGGER ON * TO projector_fill@'%';
