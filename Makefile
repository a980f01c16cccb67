# Everything sets itself up: a virtual environment in .venv, and for `make test` the real tools through apt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo check test slow fuzz flaky bench boot-table lint setup setup-test tools site pictures zipapp packages deb release clean

demo: setup
	$(BIN)/python -m cosremaster demo

# Under a minute on two cores: no apt, no root, no other program; property tests take a share of their examples.
check: setup-test lint
	COSREMASTER_QUICK_TESTS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal tests/unit $(PYTEST_ARGS)

test: tools setup-test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)
	$(MAKE) fuzz SECONDS=60

# Minutes for each: live images of more makers, built from packages as root and booted after an edit.
slow: tools setup-test
	COSREMASTER_SLOW_TESTS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(PYTEST_ARGS)

# Mutated images, layers, FAT file systems, menus, mtree files, recipes and indexes; findings come into .cache/fuzz.
SECONDS := 600
fuzz: tools $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(SECONDS) $(FUZZ_ARGS)

# A boot that fails by chance shows itself in five runs.
flaky: tools setup-test
	for run in 1 2 3 4 5; do $(BIN)/python -m pytest -q -n 2 --dist worksteal tests/boot $(PYTEST_ARGS) || exit 1; done

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

# The documentation site, build/site: strict, so a link or an anchor that leads nowhere is a failure.
site: $(VENV)/.docs
	$(BIN)/python -m tests.support.site_pages

# docs/run.svg and docs/report.png, of a run on this machine; on a quiet one, as its times are in them.
pictures: tools setup-test
	$(BIN)/python -m tests.support.pictures

# One file that any Python of this version and kind of machine runs: dist/cosremaster.pyz.
zipapp: $(VENV)/.release
	PATH="$(abspath $(BIN)):$$PATH" sh packaging/zipapp.sh

# The archives for a package index, checked, and built twice for the same bytes.
packages: $(VENV)/.release
	PATH="$(abspath $(BIN)):$$PATH" sh packaging/packages.sh

# The Debian package, from what is committed: dist/cosremaster_VERSION_all.deb. Needs Debian 13 or newer, and what
# packaging/debian/control names.
deb:
	sh packaging/deb.sh -b

# Everything above from what is committed, its sums, and the tag of the version.
release: $(VENV)/.release
	PATH="$(abspath $(BIN)):$$PATH" sh packaging/release.sh

setup: $(VENV)/.run
setup-test: $(VENV)/.test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 with its venv module is needed (Debian: apt-get install python3-venv)"; exit 1; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,docs]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(VENV)/.release: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

# Where there is no wheel of atheris for this Python, the fuzzer makes the same mutations without its feedback.
$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris || echo "no atheris for this Python"
	@touch $@

# The programs that judge our output. Without root or apt the tests that need one are left out by name.
tools:
	@sh tests/install-tools.sh

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
