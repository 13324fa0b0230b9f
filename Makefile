# `make serve` and `make test` set the project up first where that is needed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEFAULT := checkpoints/megrez-omni-mini

.PHONY: setup serve test test-slow check lint checkpoint fonts clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt --editable '.[dev]'
	touch $@

serve: setup
	$(BIN)/serve run serve_config.yaml

test: setup
	$(BIN)/pytest

# Minutes each: fine-tuning on real records, and lm-evaluation-harness with its many packages.
test-slow: setup
	$(BIN)/pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt --editable '.[dev,eval]'
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

# Into build/made, measured beside the one that is there. To take its place: copy it there, training.evaluate for its
# card, training.held_out for the answers of its test.
checkpoint: setup
	$(BIN)/python -m training.recipe training/configs/default_checkpoint.yaml --output build/made
	$(BIN)/python -m training.evaluate build/made --work build/evaluation --beside $(DEFAULT)

# The Debian packages that pictures with print are drawn with: for `make checkpoint`, and tests that are skipped without.
fonts:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends $$(cat training/synthetic/fonts.txt)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
