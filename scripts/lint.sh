#!/usr/bin/env bash
# The gates that run no code: style, format, types.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh --test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright
