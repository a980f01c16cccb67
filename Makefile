# Everything sets itself up: a virtual environment in .venv, and for the tests the real tools through apt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench boot-table lint setup setup-test tools clean

demo: setup
	$(BIN)/python -m cosremaster demo

test: tools setup-test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Half an hour or less: measures docs/boot.md anew. FAMILIES="debian udf" measures those alone.
boot-table: tools setup-test
	$(BIN)/python -m tests.boot_table $(FAMILIES)

bench: tools setup-test
	$(BIN)/python -m benchmarks $(if $(WRITE),--write)

setup: $(VENV)/.run
setup-test: $(VENV)/.test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 with its venv module is needed (Debian: apt-get install python3-venv)"; exit 1; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# The programs that judge our output. Without root or apt the tests that need one are left out by name.
tools:
	@sh tests/install-tools.sh

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
