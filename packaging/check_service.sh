#!/bin/sh
# The unit is understood, does not loop on status 2, and its exposure is below 2.0: check_service.sh UNIT
set -eu
command -v systemd-analyze >/dev/null || exit 77 # skipped
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unit=$folder/projector@bank.service
cp "$1" "$unit"
complaints=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -v 'is not executable') || true
if [ -n "$complaints" ]; then
  echo "$complaints"
  exit 1
fi
# Wrong configuration and lost data need a person: no loop.
grep -qx 'RestartPreventExitStatus=2' "$unit" || {
  echo "the unit restarts after status 2"
  exit 1
}
# The threshold is ten times the exposure.
systemd-analyze security --offline=true --threshold=19 --no-pager "$unit" >"$folder/verdict" || {
  cat "$folder/verdict"
  exit 1
}
tail -n 1 "$folder/verdict"
