# ./run fuzz. Needs packages.sh and the functions of ./run.
# shellcheck shell=bash

FUZZ_BUILD=build-fuzz
FUZZ_KEPT=.scratch/fuzz # what is found on the way: the next run begins with it

fuzz_targets() { for folder in tests/fuzz/corpus/*/; do basename "$folder"; done; }

# build_fuzz targets|all: all has the unit tests too, under the same sanitizers.
build_fuzz() {
  local wanted=()
  [[ -f $FUZZ_BUILD/build.ninja ]] ||
    CC=clang meson setup "$FUZZ_BUILD" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
  [[ $1 == all ]] || mapfile -t wanted < <(fuzz_targets | sed 's|^|tests/fuzz/fuzz_|')
  ninja -C "$FUZZ_BUILD" --quiet "${wanted[@]}"
}

# fuzz_one TARGET SECONDS: the seeds first, then changes of what reaches new code.
fuzz_one() {
  local target=$1 seconds=$2 options=()
  mkdir -p "$FUZZ_KEPT/$target"
  [[ ! -f tests/fuzz/$target.dict ]] || options+=("-dict=tests/fuzz/$target.dict")
  "$FUZZ_BUILD/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=0 \
    -artifact_prefix="$FUZZ_KEPT/$target-" "${options[@]}" "$FUZZ_KEPT/$target" "tests/fuzz/corpus/$target"
}

# run_fuzz [TARGET...] [--minutes M]: M minutes for each target.
run_fuzz() {
  local targets=() minutes=1 target failed=0
  while [[ $# -gt 0 ]]; do
    case $1 in
      --minutes) minutes=${2:-}; shift 2 || die "--minutes M" ;;
      *) [[ -d tests/fuzz/corpus/$1 ]] || die "there is no fuzz target '$1'; there are: $(fuzz_targets | xargs)"
         targets+=("$1"); shift ;;
    esac
  done
  [[ $minutes =~ ^[1-9][0-9]*$ ]] || die "--minutes takes a whole number from 1"
  [[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(fuzz_targets)
  install_packages build lint
  build_fuzz targets >&2
  for target in "${targets[@]}"; do
    if fuzz_one "$target" $((minutes * 60)); then
      echo "ok      $target"
    else
      failed=$((failed + 1))
      echo "FAILED  $target: the input is in $FUZZ_KEPT/$target-*; mend the cause, and keep the input" \
        "in tests/fuzz/corpus/$target under a name that says what it shows"
    fi
  done
  echo "$((${#targets[@]} - failed)) passed, $failed failed"
  [[ $failed -eq 0 ]]
}

# Some seconds of each target, from the seeds alone, on all cores: a part of ./run lint.
fuzz_briefly() {
  local target seconds=5 running=() failed=0
  build_fuzz targets || return
  FUZZ_KEPT=$(mktemp -d)
  for target in $(fuzz_targets); do
    if [[ ${#running[@]} -ge $(nproc) ]]; then
      wait "${running[0]}" || failed=1
      running=("${running[@]:1}")
    fi
    fuzz_one "$target" "$seconds" &
    running+=("$!")
  done
  for target in "${running[@]}"; do wait "$target" || failed=1; done
  if [[ $failed -ne 0 ]]; then
    mkdir -p .scratch
    find "$FUZZ_KEPT" -maxdepth 1 -type f -exec cp {} .scratch/ \;
  fi
  rm -rf "$FUZZ_KEPT"
  return "$failed"
}
