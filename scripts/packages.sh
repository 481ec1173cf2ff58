# Debian packages: installed only when missing, so that a second run needs neither network nor root.
# shellcheck shell=bash

declare -A PACKAGES=(
  [build]="gcc libc6-dev meson ninja-build pkg-config libmongoc-dev libmariadb-dev
           libmariadb-dev-compat libjansson-dev libglib2.0-dev libmicrohttpd-dev libxxhash-dev"
  [test]="libcmocka-dev valgrind python3-pytest python3-pytest-xdist python3-pytest-timeout
          python3-jsonschema python3-yaml man-db mariadb-client-core" # the last: the manual's first steps call it
  [servers]="python3-pymongo python3-pymysql python3-cryptography"
  [fetch]="mmdebstrap debian-archive-keyring ca-certificates"
  [mariadb]="mariadb-server-core mariadb-client-core" # the latter has what mariadb-install-db calls
  [npm]="npm"
  [maven]="maven"
  [unzip]="unzip"
  [package]="dpkg-dev debhelper lintian"
  [engine]="docker.io iptables"
  [page]="chromium chromium-driver python3-selenium"
  [coverage]="llvm" # clang comes with [lint]
  [lint]="clang libclang-rt-14-dev clang-format clang-tidy cppcheck shellcheck"
)

# Progress goes to stderr: stdout belongs to the results.
say() { printf '%s\n' "$*" >&2; }
die() { say "run: $*"; exit 1; }

as_root() {
  if [[ $EUID -eq 0 ]]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "need root to run '$1 ${2-}': become root or install sudo"
  fi
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

# install_packages GROUP...
install_packages() {
  local group package missing=()
  if ! command -v apt-get >/dev/null; then
    say "not a Debian system, so nothing is installed; needed are the equivalents of:" \
      "$(for group; do echo "${PACKAGES[$group]}"; done | xargs)"
    return
  fi
  for group; do
    for package in ${PACKAGES[$group]}; do
      is_installed "$package" || missing+=("$package")
    done
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  say "installing: ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    die "apt-get could not install the packages above: fix its configuration or network, then try again"
  fi
  rm -f "$log"
}

# The mirror that this machine is set up with; apt knows its origin from its lists, which may have been cleaned away.
debian_mirror() {
  known_mirror || { apt_get update >&2 && known_mirror; }
}
known_mirror() {
  # shellcheck disable=SC2016 # apt's own variable
  apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | sort -u | grep -m 1 .
}
