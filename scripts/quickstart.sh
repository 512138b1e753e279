#!/usr/bin/env bash
# Trains a small model to add with SSPO (arXiv 2511.04256): in minutes, with or without a GPU.
# Creates the environment if needed, and runs `sspo quickstart` in it.
#
#   bash scripts/quickstart.sh                      train, or resume, or show the summary again
#   bash scripts/quickstart.sh --algorithm grpo     with another algorithm
#   bash scripts/quickstart.sh --fresh              start over
#   bash scripts/quickstart.sh --help               the rest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh
exec .venv/bin/sspo quickstart "$@"
