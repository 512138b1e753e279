#!/usr/bin/env bash
# Static checks: style, format, types.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/env.sh --test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright
