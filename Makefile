VENV := .venv/bin
# The Python for .venv: the one it has, else python3, unless given (make setup PYTHON=python3.12).
PYTHON ?= $(firstword $(wildcard $(VENV)/python) python3)

# A sourced ROS 2 also needs this workspace sourced; without one, .venv's Python sees to it.
RUN := $(if $(ROS_DISTRO),test ! -f install/setup.sh || . install/setup.sh;)

export ROS_LOG_DIR ?= $(CURDIR)/out/log
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-training demo test lint docs docs-test bench clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

SET_UP = @$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	{ echo "error: $(PYTHON) is no Python 3.10 to 3.13; name one, as in: make $@ PYTHON=python3.12" >&2; exit 1; }; \
	$(PYTHON) tools/set_up.py

setup:  ## .venv with all that the vehicle's side needs, both packages built into install/
	$(SET_UP)

setup-training:  ## the same, and what tests, linters and training need (PyTorch)
	$(SET_UP) --training

demo: setup  ## the whole job on a recording [BAG=dir] [TOPIC=name], results in out/demo, for an earlier demo's
	$(RUN) $(VENV)/demo $(if $(BAG),--bag "$(BAG)") $(if $(TOPIC),--image-topic "$(TOPIC)") --out out/demo --force

test: setup-training  ## all tests
	$(RUN) $(VENV)/python -m pytest --numprocesses=auto --dist=worksteal --durations=10 test training/test

lint: setup-training  ## ruff and mypy
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy

docs: setup-training  ## the documentation site, in out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet
	@echo 'The site is in out/site/index.html.'

docs-test:  ## what the documents say to type, typed in a clean clone of the last commit [PAGES="docs/install.md ..."]
	@$(PYTHON) tools/docs_test.py $(PAGES)

bench: setup-training  ## all benchmarks, results in out/bench/*.json
	$(RUN) for benchmark in benchmarks/*.py; do $(VENV)/python $$benchmark || missed="$$missed $$benchmark"; done; \
	test -z "$$missed" || { echo "goals missed, or failed:$$missed"; exit 1; }

clean:  ## remove all that was built or installed here; out/ stays
	rm -rf .venv build install log

distclean: clean  ## the same, and out/ with its data sets, trainings and results, when you say so
	@test ! -e out || { du -sh out; printf 'remove out/ for good? [y/N] '; read -r answer; \
	test "$$answer" = y && rm -rf out || echo 'out/ is kept'; }
