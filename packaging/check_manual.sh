#!/bin/sh
# Man pages without complaints, completions that a shell can read: check_manual.sh FOLDER
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
  . ./outbox
  COMP_WORDS=(outbox put --entities x --uri-) COMP_CWORD=4; _outbox; [[ ${COMPREPLY[*]} == --uri-file ]]
'
! command -v zsh >/dev/null || { zsh -n _projector && zsh -n _outbox; }
