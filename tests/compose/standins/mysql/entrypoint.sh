#!/bin/sh
# The first start makes the data, the database and the user.
set -eu
server="mysqld --no-defaults --datadir=/var/lib/mysql --socket=/var/run/mysqld/mysqld.sock --mysqlx=OFF --secure-file-priv=NULL"
if [ ! -d /var/lib/mysql/mysql ]; then
  $server --initialize-insecure
  cat >/tmp/init.sql <<SQL
CREATE DATABASE $MYSQL_DATABASE;
CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$(cat "$MYSQL_PASSWORD_FILE")';
GRANT ALL ON $MYSQL_DATABASE.* TO '$MYSQL_USER'@'%';
ALTER USER root@localhost IDENTIFIED BY '$(cat "$MYSQL_ROOT_PASSWORD_FILE")';
SQL
  set -- "$@" --init-file=/tmp/init.sql
fi
exec $server "$@"
