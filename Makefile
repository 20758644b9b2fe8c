# Everything sets itself up: Python 3.10 or newer and make are enough. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
READY := $(VENV)/.installed

# What a shell happens to have set must not lead a demo or a test to a real installation.
SETTINGS := CLEANUP_NAIVE_TIMEZONE CLEANUP_DATABASE_WAIT_SECONDS CLEANUP_SCHEDULE_STARTED CLEANUP_ALERT_WEBHOOK_URL \
  CLEANUP_DISK_PRESSURE_USED_PERCENT CLEANUP_DISK_PRESSURE_FREE_BYTES CLEANUP_DISK_PRESSURE_DRY_RUN \
  CLEANUP_DISK_PRESSURE_BACKUP_DIR CLEANUP_CONFIG CLEANUP_STATE_DIR CLEANUP_BACKUP_DIR CLEANUP_TIMEZONE \
  CLEANUP_DATABASE_URL CLEANUP_DB_HOST CLEANUP_DB_PORT CLEANUP_DB_NAME CLEANUP_DB_USER CLEANUP_DB_PASSWORD \
  CLEANUP_WEB_HOST CLEANUP_WEB_PORT CLEANUP_WEB_ALLOWED_HOSTS CLEANUP_WEB_TRUSTED_PROXY CLEANUP_WEB_OPERATOR_TOKEN \
  CLEANUP_WEB_VIEWER_TOKEN CLEANUP_WEB_TLS_CERTIFICATE CLEANUP_WEB_TLS_KEY DAGSTER_WEBSERVER_URL DAGSTER_PUBLIC_URL \
  CLEANUP_SYSTEM_LOGS_DIR CLEANUP_TEMP_FILES_DIR DBT_PROJECT_DIR DBT_LOG_PATH DBT_TARGET_PATH
unexport $(SETTINGS)

# Dagster reads ./dagster.yaml when DAGSTER_HOME is unset; each target gets an empty home of its own instead.
WITH_HOME = home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && trap 'exit 130' INT TERM && DAGSTER_HOME="$$home"

.PHONY: help demo serve test prove lint types check reference lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: $(READY)  ## clean a scratch platform in Dagster, dry and then live (ARGS="--keep" leaves it there)
	@$(WITH_HOME) $(BIN)/python -m cleanup_dagster.demo $(ARGS)

# The one target that serves a real installation, by what the shell has set.
$(foreach name,$(SETTINGS),$(eval serve: export $(name) := $$($(name))))
serve: $(READY)  ## Dagster and the page on this machine, until Ctrl-C (keeps everything in DAGSTER_HOME, or .dagster_home)
	@DAGSTER_HOME="$${DAGSTER_HOME:-$(CURDIR)/.dagster_home}" $(BIN)/python -m cleanup_dagster.together

test: $(READY)  ## run the tests (ARGS="-k quarantine" for some of them)
	@$(WITH_HOME) $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

prove: $(READY)  ## strike and attack it at every point, as root, and print the numbers (minutes; ARGS="attacks" for a part)
	@$(WITH_HOME) $(BIN)/python -m tests.reliability.prove $(ARGS)

lint: $(READY)  ## ruff, its formatter, and the arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)  ## pyright, strict, for Python 3.10
	$(BIN)/pyright

check: lint types test  ## all of the above but the demo

reference: $(READY)  ## write the tables of docs/configuration.md from the settings
	@$(BIN)/python -m docs.reference

LOCK = pip compile --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate --no-header --universal \
	--python-version 3.10 --quiet

# The image gets its own two files, with the very versions of the first: what runs in it, and what builds the wheel.
lock:  ## resolve the dependencies anew into requirements.lock and deployment/*.lock
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT \
	&& $(PYTHON) -m venv "$$tools" \
	&& "$$tools/bin/python" -m pip --disable-pip-version-check install --quiet uv \
	&& "$$tools/bin/uv" $(LOCK) pyproject.toml --group dev -o requirements.lock \
	&& "$$tools/bin/uv" $(LOCK) pyproject.toml -c requirements.lock -o deployment/runtime.lock \
	&& "$$tools/bin/uv" $(LOCK) --group build -c requirements.lock -o deployment/build.lock
	@echo "requirements.lock and deployment/*.lock are up to date; 'make check' tries them out."

clean:  ## remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find cleanup_dagster tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last. An installation that broke off is made anew: pip stumbles over what is left of one.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "cleanup_dagster needs Python 3.10 or newer, and $(PYTHON) is older or missing. Try: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) with the versions in requirements.lock. The first time takes a minute or two."
	@test ! -e $(VENV)/.installing || rm -rf $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	echo "Python's venv module did not work; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@touch $(VENV)/.installing
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@rm $(VENV)/.installing
	@touch $(READY)
	@echo "Ready."
