#!/bin/sh
# Man pages without complaints, completions that a shell can read: check_manual.sh FOLDER MAPPING_FILE
set -eu
cd "$1"
for page in projector.1 outbox.1 projector.json.5; do
  complaints=$(MANROFFSEQ='' man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null) || true
  if [ -n "$complaints" ]; then
    echo "$page: $complaints"
    exit 1
  fi
done
# shellcheck disable=SC2016 # the inner shell's
bash -c '
  . ./projector
  COMP_WORDS=(projector st) COMP_CWORD=1; _projector; [[ ${COMPREPLY[*]} == status ]] || exit
  COMP_WORDS=(projector run --on) COMP_CWORD=2; _projector; [[ ${COMPREPLY[*]} == --once ]] || exit
  COMP_WORDS=(projector list --state de) COMP_CWORD=3; _projector; [[ ${COMPREPLY[*]} == dead ]] || exit
  COMP_WORDS=(projector list --state = he) COMP_CWORD=4; _projector; [[ ${COMPREPLY[*]} == held ]] || exit
  COMP_WORDS=(projector list --state =) COMP_CWORD=3; _projector; [[ ${#COMPREPLY[@]} == 6 ]] || exit
  COMP_WORDS=(projector retry --all-dead --class map) COMP_CWORD=4; _projector; [[ ${COMPREPLY[*]} == mapping ]] || exit
  COMP_WORDS=(projector list -c "$1" --projection acc) COMP_CWORD=5; _projector; [[ ${COMPREPLY[*]} == account ]] || exit
  COMP_WORDS=(projector run -c) COMP_CWORD=2; _projector; [[ -z ${COMPREPLY[*]} ]] || exit
  . ./outbox
  COMP_WORDS=(outbox put --entities x --uri-) COMP_CWORD=4; _outbox; [[ ${COMPREPLY[*]} == --uri-file ]]
' bash "$2"
for page in projector.1 outbox.1; do
  for heading in EXAMPLES FILES "EXIT STATUS"; do
    grep -q "^.SH $heading" "$page" || { echo "$page has no $heading"; exit 1; }
  done
done
! command -v zsh >/dev/null || { zsh -n _projector && zsh -n _outbox; }
