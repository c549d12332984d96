# Each target sets up what it needs: an environment and the pinned packages of a constraints file.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
PYTEST := -m pytest -n $(WORKERS) --dist loadfile
PACKAGES := pyproject.toml constraints.txt
RECORD := demo/entropy_collapse

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lab course test-oldest lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed-report  ## run entropy_collapse in two minutes; its record and report go to demo/
	@mkdir -p demo
	@$(BIN)/python -m workbench run entropy_collapse --budget demo --out $(RECORD).nc --report $(RECORD).html --force

test: .venv/.installed-dev  ## run all tests
	@$(BIN)/python $(PYTEST)

lab: .venv/.installed-lab  ## open the tour in JupyterLab
	@$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_tour.ipynb

course: .venv/.installed-lab  ## serve the notebooks as pages without code, with Voila
	@$(BIN)/python -m workbench course

test-oldest: .venv-oldest/.installed-core  ## run the core tests on the lowest versions (constraints-oldest.txt)
	@.venv-oldest/bin/python $(PYTEST) --core

lint: .venv/.installed-dev  ## check style
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .

format: .venv/.installed-dev  ## put into style
	@$(BIN)/python -m ruff check --fix . && $(BIN)/python -m ruff format .

clean:  ## remove what builds, tests and the demo left; the environments stay (rm -rf .venv .venv-oldest)
	rm -rf build dist demo .pytest_cache .ruff_cache .hypothesis
	find workbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed-%: $(PACKAGES)
	$(call install,.venv,constraints.txt,-e '.[$*]')

.venv-oldest/.installed-core: pyproject.toml constraints-oldest.txt
	$(call install,.venv-oldest,constraints-oldest.txt,-e . pytest pytest-xdist ml_dtypes hypothesis)

# $(call install,ENVIRONMENT,CONSTRAINTS,WHAT). The mark .unfinished outlives an interruption: the next call then starts afresh.
# The two variables pin the build tools as well: pip reads the first for them before 25.3, the second since.
define install
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer, or name one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$$($(PYTHON) --version) is too old: 3.11 or newer is needed; name one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@if [ -e $(1)/.unfinished ]; then rm -rf $(1); fi
	@mkdir -p $(1) && touch $(1)/.unfinished
	@[ -x $(1)/bin/pip ] || $(PYTHON) -m venv $(1)
	@echo "Installing pinned packages into $(1) (minutes the first time) ..."
	@PIP_CONSTRAINT=$(2) PIP_BUILD_CONSTRAINT=$(2) $(1)/bin/python -m pip install -qq --disable-pip-version-check -c $(2) $(3) \
		|| { rm -f $(1)/.unfinished; exit 1; }
	@rm $(1)/.unfinished && touch $@
endef
