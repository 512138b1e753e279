#!/usr/bin/env bash
# Makes the environment and runs the whole suite, the short real run through Ray, FSDP and vLLM included.
# Arguments go to pytest: bash scripts/test.sh -m "not e2e"
# SSPO_TEST_SECONDS: the time limit of the suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh --test

limit=${SSPO_TEST_SECONDS:-2700}
code=0
# INT, so that pytest still ends its runs and prints its summary; --foreground, so that Ctrl-C reaches it too.
timeout --foreground --signal=INT --kill-after=60 "$limit" .venv/bin/python -m pytest "$@" || code=$?
if [[ $code == 124 || $code == 137 ]]; then
    echo "test.sh: ended after $limit s; SSPO_TEST_SECONDS sets another limit" >&2
fi
exit "$code"
