# Builds against mongo-c-driver 2.x and Oracle's libmysqlclient from the unpacked Debian root, and runs
# the program with them. Needs provide.sh and the functions of ./run.
# shellcheck shell=bash

# The root's pkg-config files, with paths into the root instead of into the machine.
newer_pkgconfig() {
  local root=$1 lib=$2 into=$3 name
  mkdir -p "$into/include"
  # Only what the two libraries bring: the root's own C library headers must not be found.
  ln -sfn "$root/usr/include/mysql" "$into/include/mysql"
  for name in mongoc2 bson2 mysqlclient; do
    sed -e "s|=/usr|=$root/usr|; s|-L/usr/lib[^ ]*||; s|^Requires.private.*||" \
      -e "s|^includedir=.*/mysql|includedir=$into/include/mysql|; s|^Cflags: -I\${includedir}|& -I$into/include|" \
      "$lib/pkgconfig/$name.pc" >"$into/$name.pc"
  done
}

# newer_clients FOLDER: builds there and runs a part of the system tests with it.
newer_clients() {
  local folder=$1 root lib start name
  [[ $MYSQLD_COMMAND == *mysql-and-clients* ]] || { echo "not provided: your own mysqld is used"; return 0; }
  root=$(cache_dir)/mysql-and-clients/root
  lib=$(echo "$root"/usr/lib/*-linux-gnu)
  newer_pkgconfig "$root" "$lib" "$PWD/$folder.pc"
  [[ -f $folder/build.ninja ]] || PKG_CONFIG_PATH=$PWD/$folder.pc LDFLAGS=-Wl,--allow-shlib-undefined meson setup "$folder"
  # Only the programs: unit tests would run with this machine's older libraries.
  ninja -C "$folder" projector/projector outbox/outbox || return
  for name in libmongoc2 libmysqlclient; do
    readelf -d "$folder/projector/projector" | grep -q "NEEDED.*$name" || { echo "not linked with $name"; return 1; }
  done
  start="$lib/ld-linux-x86-64.so.2 --library-path $lib:/usr/lib/$(basename "$lib")"
  # shellcheck disable=SC2086 # words
  PROJECTOR_BIN=$(newer_wrapper "$folder/projector/projector" $start) OUTBOX_BIN=$(newer_wrapper "$folder/outbox/outbox" $start) \
    servers with -- "$PYTHON" -m pytest -q "${SIDE_BY_SIDE[@]}" tests/system/test_servers.py tests/system/test_projector_order.py tests/system/test_projector_tls.py
}

# A program that starts another with the root's libraries, for tests that want one path.
newer_wrapper() {
  local program=$1
  shift
  printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$*" "$PWD/$program" >"$program.newer"
  chmod +x "$program.newer"
  echo "$PWD/$program.newer"
}
