.PHONY: quickstart test lint format clean distclean

quickstart:
	bash scripts/quickstart.sh

test:
	bash scripts/test.sh

lint:
	bash scripts/lint.sh

format:
	bash scripts/env.sh --test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Leaves the environment and the runs.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis outputs multirun
	find . -name __pycache__ -not -path './.venv/*' -not -path './.uv/*' -not -path './runs/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .uv runs checkpoints
