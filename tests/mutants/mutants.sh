# ./run mutants. Needs packages.sh and provide.sh.
# shellcheck shell=bash

# run_mutants [NAME...] [--list] [--check] [--jobs N]
run_mutants() {
  case " $* " in
    *" --list "* | *" --check "* | *" --help "*) ;;
    *) provide mysql; provide_test_tools; install_packages build test ;;
  esac
  "$PYTHON" tests/mutants/mutants.py "$@"
}
