# Every recipe sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two test processes; the tests of a file share a run, so they stay in one process; long files start first.
# One process: make test AT_ONCE=
AT_ONCE ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow postgresql chaos check fix bench docs picture install
.DEFAULT_GOAL := install

install: $(VENV)/.installed            ## make .venv and install lq and its tools into it

demo: install                          ## train a tiny model, kill the trainer, compare the adapters; under two minutes
	@$(BIN)/lq demo

test: install                          ## the tests that every change must pass
	@$(BIN)/python -m pytest -m "not slow" $(AT_ONCE)

test-slow: install                     ## the slow tests (CI runs: make test-slow SLOW="slow and not longest")
	@$(BIN)/python -m pytest -m "$(or $(SLOW),slow)" $(AT_ONCE)

postgresql:                            ## install the PostgreSQL server that some tests start (Debian, as root)
	@.ci/postgresql

chaos: install                         ## train one job repeatedly under injected faults (ROUNDS=200 SEED=1)
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),200) --seed $(or $(SEED),1)

check: install                         ## ruff, mypy strict, import-linter; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir $(VENV)/import-linter

fix: install                           ## apply the fixes and the format of ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install                         ## measure speed and memory compared with MLX-LM, as ratios
	@$(BIN)/python -m tests.benchmarks

docs: install                          ## write the generated pages of docs/, build the site into site/, check every link
	@$(BIN)/python -m tests.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

picture: install                       ## record docs/demo.svg, the output of lq demo
	@$(BIN)/python -m tests.docs.picture

# Uses uv if it is installed, else venv and pip. Runs again when the dependencies change.
$(VENV)/.installed: pyproject.toml
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
		$(PYTHON) -c 'import sys; sys.exit("lq needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)' && \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@
