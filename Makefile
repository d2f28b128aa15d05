# What people want to do with lq. Every recipe sets up what it needs by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# two test processes at a time, a file staying together because its tests share a run, the long files
# first (one at a time: make test AT_ONCE=)
AT_ONCE ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow postgresql chaos check fix bench docs picture install
.DEFAULT_GOAL := install

install: $(VENV)/.installed            ## make .venv and install lq and its tools into it

demo: install                          ## the whole story on a tiny model, in under two minutes
	@$(BIN)/lq demo

test: install                          ## the tests that every change must pass
	@$(BIN)/python -m pytest -m "not slow" $(AT_ONCE)

test-slow: install                     ## the long ones (as CI runs them: make test-slow SLOW="slow and not longest")
	@$(BIN)/python -m pytest -m "$(or $(SLOW),slow)" $(AT_ONCE)

postgresql:                            ## the server that some tests start, from Debian's packages (as root)
	@.ci/postgresql

chaos: install                         ## a real job, over and over, while everything goes wrong (ROUNDS=200 SEED=1)
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),200) --seed $(or $(SEED),1)

check: install                         ## ruff, mypy strict, import-linter; nothing is changed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir $(VENV)/import-linter

fix: install                           ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install                         ## speed and memory beside the peers, as ratios
	@$(BIN)/python -m tests.benchmarks

docs: install                          ## write the generated pages of docs/, build the site into site/, check every link
	@$(BIN)/python -m tests.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

picture: install                       ## docs/demo.svg: what the demo prints in a terminal, recorded anew
	@$(BIN)/python -m tests.docs.picture

# uv where it is present, else the standard library's venv; made again when the dependencies change
$(VENV)/.installed: pyproject.toml
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
		$(PYTHON) -c 'import sys; sys.exit("lq needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)' && \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@
