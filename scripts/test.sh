#!/usr/bin/env bash
# Creates the environment and runs the tests.
#
#   bash scripts/test.sh          the unit tests, the plugin through verl in fresh processes, one real training run
#   bash scripts/test.sh --all    every test
#   bash scripts/test.sh --matrix [NAME ...]   real runs in the setups of docs/compatibility.md, minutes each
#   bash scripts/test.sh ARGS     pytest's own arguments: bash scripts/test.sh tests/method -k identities
#
# SSPO_TEST_SECONDS: the time limit of the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh --test

# Two processes; the tests of a file stay in one, and the files with real runs come first.
parallel=(-n 2 --dist loadfile --no-loadscope-reorder)
case ${1:-} in
    "") arguments=("${parallel[@]}" -m "not slow") ;;
    --matrix) exec .venv/bin/python scripts/matrix.py "${@:2}" ;;
    --all) arguments=("${parallel[@]}" "${@:2}") ;;
    *) arguments=("$@") ;;
esac
limit=${SSPO_TEST_SECONDS:-4500}
code=0
# INT, so that pytest still ends its runs and prints its summary; --foreground, so that Ctrl-C reaches it too.
timeout --foreground --signal=INT --kill-after=60 "$limit" .venv/bin/python -m pytest "${arguments[@]}" || code=$?
if [[ $code == 124 || $code == 137 ]]; then
    echo "test.sh: ended after $limit s; SSPO_TEST_SECONDS sets another limit" >&2
fi
exit "$code"
