# ./run test, format and lint. Needs packages.sh, provide.sh and the functions of ./run.
# shellcheck shell=bash

# Most of a system test is waiting, so there are more workers than cores; the tests of a group stay in one of them.
SIDE_BY_SIDE=(-n $((3 * $(nproc) + 1)) --dist loadgroup)

# run_tests [--all] [--target mysql|mariadb] [--suite NAME] [PYTEST ARGUMENTS]
run_tests() {
  local target=mysql suite='' results folders=() chosen=(--quick) steps=() argument
  while [[ $# -gt 0 ]]; do
    case $1 in
      --all) chosen=(); shift ;;
      --target) target=${2:-}; shift 2 || die "--target needs a name" ;;
      --suite) suite=${2:-}; shift 2 || die "--suite needs a name" ;;
      *) break ;;
    esac
  done
  [[ -z $suite || $suite == unit || -d tests/$suite ]] || die "there is no suite '$suite' in tests/"
  [[ $suite == unit ]] || provide "$target"
  [[ -n $suite && $suite != system ]] || provide_test_tools
  build build
  [[ -n $suite && $suite != faults ]] || build_with_crash_points
  results=build/test-results
  rm -rf "$results"
  mkdir "$results"

  if [[ -z $suite || $suite == unit ]]; then
    unit_tests "$results/unit.xml" && steps+=("unit:0") || steps+=("unit:$?")
  fi
  case $suite in
    unit) ;;
    '') folders=(tests/system tests/faults) ;;
    *) folders=("tests/$suite") ;;
  esac
  for argument; do # tests that are named take the place of these, and those that are chosen are all run
    [[ $suite == unit || ! -e ${argument%%::*} ]] || folders=(--rootdir=tests) chosen=()
    [[ $argument != -[km]* ]] || chosen=()
  done
  [[ $suite == unit || ${#chosen[@]} -eq 0 ]] || echo "thorough tests: ./run test --all has them" >>"$results/note"
  if [[ ${#folders[@]} -gt 0 ]]; then
    TEST_RESULTS=$PWD/$results servers with -- "$PYTHON" -m pytest "${SIDE_BY_SIDE[@]}" \
      --junitxml="$results/pytest.xml" "${folders[@]}" "${chosen[@]}" "$@" && steps+=("pytest:0") || steps+=("pytest:$?")
  fi
  [[ -z $suite ]] || echo "all suites but '$suite', as --suite says" >>"$results/note"
  [[ -n $suite && $suite != faults ]] || echo "most random faults: ./run faults has all of them" >>"$results/note"
  "$PYTHON" tests/servers/summary.py --note "${SERVERS_NOTE:-}" "$results" "${steps[@]}"
}

# The program for the fault tests, built before them: two tests that built it at once would collide.
build_with_crash_points() {
  local folder=build-faults output
  [[ -f $folder/build.ninja ]] || output=$(meson setup "$folder" -Dcrash_points=true -Dtests=false 2>&1) ||
    die "meson setup failed:"$'\n'"$output"
  ninja -C "$folder" --quiet projector/projector >&2
  export FAULTS_PROJECTOR=$PWD/$folder/projector/projector
}

unit_tests() {
  local log=build/meson-logs/testlog.junit.xml
  rm -f "$log"
  local status=0
  # The timeouts in meson.build are meant for a quiet machine.
  meson test -C build --no-rebuild --print-errorlogs --timeout-multiplier 4 || status=$?
  [[ ! -f $log ]] || cp "$log" "$1"
  return "$status"
}

c_files() { find outbox projector tests -name '*.[ch]' | sort; }

# run_format [--check]
run_format() {
  install_packages lint
  if [[ ${1:-} == --check ]]; then
    c_files | xargs -r clang-format --dry-run --Werror
  else
    c_files | xargs -r clang-format -i
  fi
}

# run_lint [--all]
run_lint() {
  LINT_PASSED=0 LINT_FAILED=0
  [[ $# -eq 0 || ( $# -eq 1 && $1 == --all ) ]] || die "usage: ./run lint [--all]"
  install_packages lint build test servers
  provide mysql
  check "shell scripts" shellcheck -x run .ci/run scripts/*.sh tests/mutants/*.sh tests/fuzz/*.sh tests/coverage/*.sh packaging/*.sh tests/compose/*.sh tests/compose/standins/*/*.sh
  check "formatting (./run format fixes it)" run_format --check
  check "Python compiles" python_compiles
  check "each mutant's old text is there once" run_mutants --check
  check "no macro evaluates a call twice" no_call_evaluated_twice
  check "no generated file is kept" no_generated_files
  check "no name of a registry host, no path of this machine" no_machine_names
  check "build" build build
  check "sizes, layers and no circle (scripts/tidy.py)" "$PYTHON" scripts/tidy.py . build
  check "build with mongo-c-driver 2 and Oracle's client, and a run" newer_clients build-newer
  check "build with clang, unit tests under ASan and UBSan" sanitized_unit_tests
  check "unit tests under valgrind" unit_tests_under_valgrind
  check "fuzz targets, some seconds each" fuzz_briefly
  check "cppcheck" cpp_check
  check "clang-tidy" clang_tidy "${1:-}"
  echo "$LINT_PASSED passed, $LINT_FAILED failed"
  [[ $LINT_FAILED -eq 0 ]]
}

# check NAME COMMAND...: shows the command's output only if it fails.
check() {
  local name=$1 output begun=$SECONDS
  shift
  # `set -e` is off inside a condition; none of the checks relies on it.
  if output=$("$@" 2>&1); then
    LINT_PASSED=$((LINT_PASSED + 1))
    echo "ok      $name ($((SECONDS - begun)) s)"
  else
    LINT_FAILED=$((LINT_FAILED + 1))
    printf '%s\nFAILED  %s\n' "$output" "$name"
  fi
}

# A few seeds are enough where each instruction costs more; the plain run covers many. The build is that of the fuzz
# targets.
sanitized_unit_tests() {
  build_fuzz all && PROPERTY_SEEDS=100 SIM_SEEDS=50 \
    meson test -C "$FUZZ_BUILD" --suite unit --suite sim --no-rebuild --print-errorlogs --timeout-multiplier 4
}

unit_tests_under_valgrind() {
  # The simulation switches stacks, which valgrind cannot follow; the sanitizers can.
  PROPERTY_SEEDS=10 meson test -C build --suite unit --no-rebuild --print-errorlogs --timeout-multiplier 10 \
    --wrap "valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite"
}

no_call_evaluated_twice() { c_files | xargs "$PYTHON" scripts/macros.py; }

python_compiles() {
  find demo packaging scripts tests -name '*.py' -exec "$PYTHON" -c \
    'import sys; [compile(open(f).read(), f, "exec") for f in sys.argv[1:]]' {} +
}

# A file that several programs are built from is looked at once, and one that the build has written not at all: cppcheck
# takes minutes for the page's bytes. Writes the folder that it prints.
one_command_for_each_file() {
  mkdir -p build/once
  "$PYTHON" - build/compile_commands.json build/once/compile_commands.json <<'PROGRAM'
import json, sys
with open(sys.argv[1]) as every, open(sys.argv[2], "w") as once:
    json.dump(list({entry["file"]: entry for entry in json.load(every) if entry["file"].startswith("../")}.values()), once)
PROGRAM
  echo build/once
}

cpp_check() {
  cppcheck --project="$(one_command_for_each_file)/compile_commands.json" --quiet --inline-suppr --error-exitcode=1 \
    --library=gtk --enable=warning,portability --suppress=missingIncludeSystem \
    --suppress="*:/usr/include/*" --suppress=uninitvar -j "$(nproc)"
}

# clang_tidy [--all]: the analyzer follows a function's paths, which takes most of the time, up to a limited number of
# states; with --all up to its own limit, which is four times as many.
clang_tidy() {
  # The compile commands are gcc's, some of whose warnings clang does not know; for an analyzer GLib passes formats on.
  local arguments=(--extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-format-nonliteral)
  [[ ${1:-} == --all ]] || arguments+=(--extra-arg=-Xclang --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes=56000)
  one_command_for_each_file >/dev/null
  "$PYTHON" -c 'import json; print(*(e["file"] for e in json.load(open("build/once/compile_commands.json"))), sep="\n")' |
    (cd build && xargs -r -n 1 -P "$(nproc)" clang-tidy --quiet -p once "${arguments[@]}" 2>/dev/null) | sed -n 's|^\.\./||; s|^.*/build/\.\./||; /: error: /p'
}

no_generated_files() {
  [[ -z $(git ls-files --cached --ignored --exclude-standard | tee /dev/stderr) ]]
}

# Mirrors and registries come from the machine's own configuration; a name in a file would bypass it.
no_machine_names() {
  local names=("$PWD/") name found=0
  # shellcheck disable=SC2016 # apt's own variable
  mapfile -t -O 1 names < <(apt-get indextargets --format '$(SITE)' | sed 's|^[a-z]*://||; s|/.*||' | sort -u | sed '/^$/d')
  for name in "${names[@]}"; do
    ! grep -rIFn --exclude-dir=.git --exclude-dir=.scratch --exclude-dir='build*' -e "$name" . || found=1
  done
  ! grep -rIEn --exclude-dir=.git --exclude-dir=.scratch --exclude-dir='build*' \
    -e '(deb|ftp|snapshot|security)[.]debian[.](org|net)' -e 'registry[.](npm|yarn)[a-z]*[.]' . || found=1
  return "$found"
}
