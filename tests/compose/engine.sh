# ./run compose-test: a Docker engine of its own, stand-ins for the images that compose.yaml names, and the
# test. Nothing is pulled: the images are made of Debian's packages and of the servers that the other tests
# use. Needs packages.sh and provide.sh.
# shellcheck shell=bash

MONGOSH=mongosh@2.5.8

fetch_compose() {
  local mirror options
  mirror=$(debian_mirror) || { say "apt knows no Debian mirror"; return 1; }
  mkdir -p "$1/lists/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$1/sources.list"
  options=(-qq -o APT::Sandbox::User=root -o "Dir::Etc::sourcelist=$1/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$1/lists" -o "Dir::Cache=$1")
  apt-get "${options[@]}" update && (cd "$1" && apt-get "${options[@]}" download docker-compose) &&
    dpkg-deb -x "$1"/docker-compose_*.deb "$1" && rm -rf "$1"/*.deb "$1/lists"
}

# debian_image FILE SUITE VARIANT PACKAGES
debian_image() {
  say "making a Debian image of $2"
  mmdebstrap --quiet --variant="$3" --aptopt='Acquire::Check-Valid-Until "false"' \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg ${4:+--include="$4"} \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    "$2" "$1" "$(debian_mirror)"
}
fetch_debian_image() { debian_image "$1/image.tar" bookworm minbase; }
# The libraries that mongod wants, MySQL, and what mongosh runs on.
fetch_stores_image() {
  debian_image "$1/image.tar" sid essential mysql-server-core,mysql-client-core,libcurl4t64,nodejs
}
fetch_prometheus_image() { debian_image "$1/image.tar" bookworm minbase prometheus; }
fetch_mongosh() {
  say "fetching $MONGOSH from the npm registry"
  (cd "$1" && npm install --ignore-scripts --no-audit --no-fund --omit=optional "$MONGOSH" >npm.log 2>&1)
}

# start_engine FOLDER: sets DOCKER_HOST and ENGINE_PID.
start_engine() {
  export DOCKER_HOST=unix://$1/socket
  dockerd --host "$DOCKER_HOST" --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" >"$1/log" 2>&1 &
  ENGINE_PID=$!
  for _ in {1..300}; do
    ! docker info >/dev/null 2>&1 || return 0
    kill -0 "$ENGINE_PID" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$1/log" >&2
  die "dockerd did not start (see above): containers, bridge networks and iptables must be allowed here"
}

# What the test left running goes with the engine.
stop_engine() {
  local containers
  mapfile -t containers < <(docker ps -aq 2>/dev/null)
  [[ ${#containers[@]} -eq 0 ]] || docker rm -f "${containers[@]}" >/dev/null
  kill "$ENGINE_PID" 2>/dev/null || true
  wait "$ENGINE_PID" || true
  rm -rf "$1"
}

# standin NAME FOLDER: tests/compose/standins/NAME, and the files of FOLDER.
standin() {
  mkdir -p "$2"
  cp tests/compose/standins/"$1"/* "$2"
  DOCKER_BUILDKIT=0 docker build --quiet --tag "projector-test/$1" "$2" >"$2.log" 2>&1 ||
    die "the stand-in for the image of $1 could not be built:"$'\n'"$(tail -n 5 "$2.log")"
}

# make_images FOLDER: the images, and the variables of compose.yaml that name them.
make_images() {
  local debian stores prometheus mongosh programs
  { debian=$(cached debian-image fetch_debian_image) && stores=$(cached stores-image fetch_stores_image) &&
    prometheus=$(cached prometheus-image fetch_prometheus_image) &&
    programs=$(cached mongodb-8.2.0 fetch_mongodb) && mongosh=$(cached "$MONGOSH" fetch_mongosh); } ||
    die "the images could not be made (see above)"
  docker import "$debian/image.tar" projector-test/debian >/dev/null
  docker import "$stores/image.tar" projector-test/stores >/dev/null
  docker import "$prometheus/image.tar" projector-test/prometheus-root >/dev/null
  mkdir -p "$1/mongo"
  cp "$programs/mongod" "$1/mongo"
  cp -r "$mongosh/node_modules" "$1/mongo"
  standin mongo "$1/mongo"
  standin mysql "$1/mysql"
  standin prometheus "$1/prometheus"
  export DEBIAN_IMAGE=projector-test/debian MONGO_IMAGE=projector-test/mongo MYSQL_IMAGE=projector-test/mysql \
    PROMETHEUS_IMAGE=projector-test/prometheus
}

run_compose_test() {
  local folder compose
  [[ $EUID -eq 0 ]] || die "compose-test starts a Docker engine: run it as root"
  install_packages engine fetch servers
  command -v npm >/dev/null || install_packages npm
  compose=$(cached docker-compose-2.26 fetch_compose) || die "docker-compose could not be installed (see above)"
  folder=$(mktemp -d /tmp/projector-engine.XXXXXX)
  start_engine "$folder"
  # shellcheck disable=SC2064 # the folder of now
  trap "stop_engine '$folder'" EXIT
  make_images "$folder/images"
  COMPOSE=$compose/usr/libexec/docker/cli-plugins/docker-compose "$PYTHON" tests/compose/compose_test.py
}
