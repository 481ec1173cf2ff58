# ./run package: builds the Debian package, asks lintian, and installs it on a Debian that has nothing else.
# Needs packages.sh, provide.sh and compose/engine.sh.
# shellcheck shell=bash

PACKAGE_FOLDER=.scratch/package

build_package() {
  local version
  version=$(dpkg-parsechangelog --show-field Version)
  rm -rf "$PACKAGE_FOLDER"
  mkdir -p "$PACKAGE_FOLDER"
  git ls-files --cached --others --exclude-standard | tar -cf - -T - |
    tar -xf - -C "$PACKAGE_FOLDER" --one-top-level="projector-$version"
  (cd "$PACKAGE_FOLDER/projector-$version" && dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary) \
    >"$PACKAGE_FOLDER/log" 2>&1 || { tail -n 20 "$PACKAGE_FOLDER/log"; return 1; }
  ls "$PACKAGE_FOLDER"/projector_*.deb
}

# The package has no maintainer with a real address.
ask_lintian() { lintian --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$@"; }

# What a user would do first, in a root that knows only Debian's essential packages.
install_package() {
  local root=$PACKAGE_FOLDER/root image
  image=$(cached debian-image fetch_debian_image)
  mkdir "$root"
  tar -xf "$image/image.tar" -C "$root"
  cp "$PACKAGE_FOLDER"/projector_*.deb "$root/tmp"
  cp /etc/resolv.conf "$root/etc"
  # shellcheck disable=SC2016 # the inner shell's
  chroot "$root" sh -euc '
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends /tmp/projector_*.deb >/tmp/log 2>&1 || { tail /tmp/log; exit 1; }
    projector --version
    getent passwd projector >/dev/null
    test -f /lib/systemd/system/projector@.service
    test "$(stat -c %U:%G:%a /etc/projector)" = root:projector:750
    # This root leaves documentation out, so it is looked at in the package.
    dpkg-deb -x /tmp/projector_*.deb /tmp/unpacked
    cd /tmp/unpacked/usr/share/doc/projector
    for page in README.md docs/deploy.md docs/alerts.yaml docs/adr/0001-outbox-and-change-stream.md deploy/kubernetes/deployment.yaml; do
      test -f "$page" || { echo "the package has no $page"; exit 1; }
    done
    cd examples
    install -m 640 -g projector bank.json bank.env /etc/projector/
    echo secret >/tmp/password
    install -m 640 -g projector /tmp/password /etc/projector/bank.password
    set -a
    . /etc/projector/bank.env
    setpriv --reuid=projector --regid=projector --clear-groups projector schema -c /etc/projector/bank.json | grep -q "CREATE TABLE"
    apt-get -qq purge -y projector >/dev/null 2>&1
    ! test -e /usr/bin/projector
  ' && rm -rf "$root"
}

run_package() {
  [[ $EUID -eq 0 ]] || die "package tries the package in a chroot: run it as root"
  install_packages build package fetch
  if ! { build_package && ask_lintian "$PACKAGE_FOLDER"/projector_*.changes && install_package; }; then
    die "the package is not good (see above)"
  fi
  echo "the package is built, and installs"
}
