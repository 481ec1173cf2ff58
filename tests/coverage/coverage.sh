# ./run coverage. Needs packages.sh, provide.sh and the functions of ./run.
# shellcheck shell=bash

COVERAGE_BUILD=build-coverage

# Clang's counters can lie in a file that is mapped into memory ("continuous mode", %c below): a program
# that ends by _exit or SIGKILL has counted all the same, which gcov's does at a regular exit only.
build_coverage() {
  local flags="-fprofile-instr-generate -fcoverage-mapping -mllvm -runtime-counter-relocation"
  [[ -f $COVERAGE_BUILD/build.ninja ]] ||
    CC=clang meson setup "$COVERAGE_BUILD" -Dcrash_points=true -Dbuildtype=debug "-Dc_args=$flags" \
      -Dc_link_args=-fprofile-instr-generate >/dev/null
  ninja -C "$COVERAGE_BUILD" --quiet
}

# run_coverage [--suite unit|system|faults]... [--keep] [PYTEST ARGUMENTS]
# --keep adds to what earlier runs have counted.
run_coverage() {
  local suites=() folders=() keep='' suite counts=$COVERAGE_BUILD/counts status=0
  while [[ $# -gt 0 ]]; do
    case $1 in
      --suite) suites+=("${2:-}"); shift 2 || die "--suite unit, system or faults" ;;
      --keep) keep=yes; shift ;;
      *) break ;;
    esac
  done
  [[ ${#suites[@]} -gt 0 ]] || suites=(unit system faults)
  install_packages build test lint coverage
  build_coverage >&2
  [[ -n $keep ]] || rm -rf "$counts"
  mkdir -p "$counts"
  export LLVM_PROFILE_FILE=$PWD/$counts/%m%c.profraw
  export PROJECTOR_BIN=$PWD/$COVERAGE_BUILD/projector/projector OUTBOX_BIN=$PWD/$COVERAGE_BUILD/outbox/outbox
  export FAULTS_PROJECTOR=$PROJECTOR_BIN
  for suite in "${suites[@]}"; do
    case $suite in
      unit) SIM_SEEDS=300 meson test -C "$COVERAGE_BUILD" --no-rebuild --print-errorlogs >&2 || status=1 ;;
      system | faults) folders+=("tests/$suite") ;;
      *) die "there is no suite '$suite'" ;;
    esac
  done
  if [[ ${#folders[@]} -gt 0 ]]; then
    provide mysql
    provide_test_tools
    servers with -- "$PYTHON" -m pytest -q "${SIDE_BY_SIDE[@]}" "${folders[@]}" "$@" >&2 || status=1
  fi
  llvm-profdata merge -o "$counts/all.profdata" "$counts"/*.profraw
  "$PYTHON" tests/coverage/report.py "$counts/all.profdata" "$COVERAGE_BUILD/coverage.txt" "$PROJECTOR_BIN" "$OUTBOX_BIN"
  [[ $status -eq 0 ]] || echo "some tests failed: the figures are of what they reached"
  return "$status"
}
