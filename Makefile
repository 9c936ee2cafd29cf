# make demo    a training run recorded, replayed and compared
# make test    every check there is: format, lint, types, floors, tests, wheel

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

BIN := .venv/bin
# Processes that test; they share one PostgreSQL server.
WORKERS ?= 2
PYTEST ?=
# By file, as the tests of a module share what it makes once; in order, as the last files are short.
DIST := --dist loadfile --no-loadscope-reorder

WHEEL := tests/packaging/test_wheel.py tests/packaging/test_installed.py

# An activated environment or a user's own settings must not leak into ours; nor is Manifest to be
# compiled anew in each of thousands of processes.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore

SOURCES := pyproject.toml constraints.txt
DEMO_READY := .venv/.demo-ready
TEST_READY := .venv/.test-ready
BROWSER_READY := .venv/.browser-ready
POOLER_READY := .venv/.pooler-ready

.PHONY: help demo test lint bench clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo 'make lint    the checks of `make test` that run no code'
	@echo 'make bench   the figures of benchmarks/'
	@echo 'make clean   remove what the commands above have made'

demo: $(DEMO_READY)
	@$(BIN)/python examples/demo.py

test: lint $(BROWSER_READY) $(POOLER_READY)
	$(call heading,Tests)
	@$(BIN)/python -m pytest -n $(WORKERS) $(DIST) $(WHEEL:%=--ignore=%) $(PYTEST)
	$(call heading,Wheel)
	@$(BIN)/python -m pytest -n $(WORKERS) $(DIST) $(WHEEL)
	@printf '\nAll checks passed.\n'

lint: $(TEST_READY)
	$(call heading,Format)
	@$(BIN)/ruff format --check .
	$(call heading,Lint)
	@$(BIN)/ruff check .
	$(call heading,Types)
	@$(BIN)/mypy
	$(call heading,Floors)
	@$(BIN)/lint-imports --no-cache

bench: $(TEST_READY)
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_READY): $(SOURCES)
	@$(call install,demo)
	@touch $@

# What the tests need holds what the demo needs.
$(TEST_READY): $(SOURCES)
	@$(call install,test)
	@touch $(DEMO_READY) $@

# For the tests of the pages: the browser that is there, or else Debian's, or else Playwright's own.
$(BROWSER_READY): $(TEST_READY)
	@if ! command -v chromium chromium-browser google-chrome >/dev/null; then \
	  echo '== A browser (once)'; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get update && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core; } \
	      </dev/null >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }; \
	  else $(BIN)/playwright install chromium; fi; \
	fi
	@touch $@

# For the test of a pooler, which is left out where there is none.
$(POOLER_READY): $(TEST_READY)
	@if ! command -v pgbouncer >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo '== A pooler (once)'; \
	  { apt-get update && apt-get install --yes --no-install-recommends pgbouncer; } \
	    </dev/null >$(LOG) 2>&1 || echo '   not installed, see $(LOG); its test will be left out'; \
	fi
	@touch $@

heading = @printf '\n== %s\n' '$(1)'

# The first supported Python that really starts and can make an environment: a name on the
# path proves neither.
find_python = \
  for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
    "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
      >/dev/null 2>&1 && break; \
    python=; \
  done; \
  if [ -z "$$python" ]; then \
    echo 'error: no usable Python 3.11, 3.12 or 3.13 was found ($(or $(PYTHON),tried python3.11 to python3)).' >&2; \
    echo 'Install one with its venv module (Debian, Ubuntu: python3-venv), or name it:' >&2; \
    echo '  make test PYTHON=/path/to/python3.11' >&2; \
    exit 1; \
  fi

# One line a package out of pip's long story; its warnings matter only when it fails.
LOG := .venv/install.log
show_progress = sed -un \
  -e 's!^ *\(Downloading\|Using cached\|Processing\) \(.*/\)\?\([A-Za-z0-9_.]*\)-\([^-]*\)-[^ ]*\( ([^)]*B)\)\?.*!   \3 \4\5!p' \
  -e 's/^Installing collected packages:.*/   unpacking (the longest step) .../p'

# Everything is pinned, torch above all: unpinned, it brings gigabytes of CUDA. The build backend is
# pinned too, so it is installed first and the project is built without a second environment; setuptools
# likewise, for what is published as source only and since Python 3.12 does not find it there.
define install
if [ ! -x $(BIN)/python ]; then \
  $(find_python); \
  printf '== Environment\n   .venv, from %s\n' "$$("$$python" -V)"; \
  "$$python" -m venv --clear .venv; \
fi; \
echo '== Installation (once; torch is the large part)'; \
pip=($(BIN)/python -m pip install --constraint constraints.txt --progress-bar off); \
{ \
  "$${pip[@]}" --quiet pip hatchling editables setuptools && \
  "$${pip[@]}" --no-build-isolation --editable . --group $(1) | $(show_progress); \
} </dev/null 2>$(LOG) || { cat $(LOG) >&2; echo 'error: the installation failed; see above.' >&2; exit 1; }; \
printf '   done\n'
endef
