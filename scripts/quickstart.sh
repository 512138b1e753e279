#!/usr/bin/env bash
# A small model learns to add with SSPO (arXiv 2511.04256): in minutes, with or without a GPU.
#
#   bash scripts/quickstart.sh                      train, or go on, or show the summary again
#   ALGORITHM=grpo bash scripts/quickstart.sh       with another algorithm
#   SSPO_FRESH=1 bash scripts/quickstart.sh         start over
#   bash scripts/quickstart.sh --help               the rest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh
exec .venv/bin/python -m sspo_verl.quickstart "$@"
