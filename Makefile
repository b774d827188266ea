# segpipe: make demo | make test | make help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
# Bytecode is kept, whatever the shell says: each of a hundred Pythons of a gate would compile segpipe again.
unexport PYTHONDONTWRITEBYTECODE
SCRIPTS := spark-submit.sh tools/setup.sh .ci/run
UV := uv==0.13.9
# What the tests read tables from, in an environment of its own: its packages do not fit the lock (docs/decisions/0015).
S3_SERVER := moto==5.2.5 flask flask-cors py-partiql-parser

.PHONY: help setup demo pictures notebooks docs reference quick check test test-all test-hadoop lint format lock clean hadoop-up hadoop-down

help:  ## this list
	@sed -n 's/^\([a-zA-Z%-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup:  ## make or refresh .venv from the lock files
	@tools/setup.sh

demo: setup  ## the whole chain on a generated cohort (ARGS="--subjects 12")
	@./spark-submit.sh demo $(ARGS)

# How tests are shared out to processes: tests/conftest.py; what is quick and what is long: tests/tiers.py. Three for two
# cores, because tests that start other programs wait for them for a third of their time; what is quick never waits.
PROCESSES ?= 3
PYTEST := $(PYTHON) -m pytest --no-loadscope-reorder --numprocesses
RESULTS := build/tests

quick: setup  ## what needs no Spark, TensorFlow or other process: under a minute
	@$(PYTEST) 2 --quick --junitxml $(RESULTS)/quick.xml $(ARGS)

check: setup  ## quick, and the tests that a change since SINCE (default origin/main) can reach: minutes
	@$(PYTEST) 2 --quick --junitxml $(RESULTS)/quick.xml
	@words=$$($(PYTHON) tools/affected.py $(SINCE)); if [[ -z $$words ]]; then echo 'check: no other test is reached'; \
	  else $(PYTEST) $(PROCESSES) --after-quick -m 'not long' --junitxml $(RESULTS)/check.xml $(ARGS) $$words || (($$? == 5)); fi

test: lint  ## the gate: lint, types, import rules and all tests but the long ones
	@$(PYTEST) $(PROCESSES) -m 'not long' --junitxml $(RESULTS)/test.xml $(ARGS)

test-all: lint  ## the gate, and what is long: see docs/testing.md
	@SEGPIPE_KILLS=$${SEGPIPE_KILLS:-30} $(PYTEST) 2 --junitxml $(RESULTS)/test-all.xml $(ARGS)
	@$(PYTHON) tools/proof.py write $(RESULTS)/test-all.xml

test-hadoop: setup  ## the tests that need a Hadoop cluster, alone
	@$(PYTHON) -m pytest -m hadoop $(ARGS)

lint: setup  ## style, types, import rules, shell scripts
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy & types=$$!; imports=0; \
	  $(PYTHON) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-cache || imports=$$?; \
	  wait $$types && exit $$imports
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); \
	  else echo 'lint: shellcheck is not installed, the shell scripts were not checked'; fi

format: setup  ## put the code into shape
	@$(PYTHON) -m ruff check --fix-only .
	@$(PYTHON) -m ruff format .

bench-%: setup  ## one figure of merit beside its reference: make bench-NAME
	@$(PYTHON) -m benchmarks $*

pictures: setup  ## the pictures of README and docs, from what `make demo` left behind
	@$(PYTHON) -m segpipe.report.picture
	@$(PYTHON) -m segpipe.analysis.pictures

notebooks: setup  ## run the notebooks on what `make demo` left behind, into build/notebooks
	@$(PYTHON) -m segpipe.analysis.notebooks notebooks/*.py

docs: setup  ## the pages of docs/ as a site in build/site; a warning is an error
	@$(PYTHON) -m mkdocs build --strict

reference: setup  ## write docs/reference from the code
	@$(PYTHON) tools/reference.py

hadoop-up: setup  ## a Hadoop cluster on loopback
	@$(PYTHON) tools/hadoop/cluster.py up

hadoop-down: setup  ## end that cluster
	@$(PYTHON) tools/hadoop/cluster.py down

# Horovod is compiled against the packages of the lock, so it has a file of its own, with one line.
lock: setup  ## resolve requirements.in again into requirements.lock
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -q --disable-pip-version-check '$(UV)'
	@build/lock/bin/uv pip compile requirements.in --override requirements-override.txt \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --prerelease allow --no-emit-package tensorflow \
	  --no-emit-package conda-pack --no-emit-package libclang \
	  --no-emit-package tensorflow-io-gcs-filesystem --quiet --output-file requirements.lock
	@printf '%s\n' $(S3_SERVER) | build/lock/bin/uv pip compile - --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 --quiet --output-file requirements-s3-server.lock
	@if grep -n '://' requirements*.lock; then echo 'lock: an address got into a lock file'; exit 1; fi
	@grep -c '^[a-z].*==' requirements.lock | sed 's/$$/ packages pinned/'

clean:  ## delete what can be made again, but not .venv
	@rm -rf build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
