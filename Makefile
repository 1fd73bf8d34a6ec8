# PhaseSAM. `make help` lists the targets; each one prepares the environment it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON_IN_VENV := $(VENV)/bin/python
DEMO_OUTPUT ?= demo_output
PYTEST_ARGS ?=
# Tests run side by side; most of them keep one core busy, and each process has a viewer of its own.
CORES := $(shell getconf _NPROCESSORS_ONLN)
TEST_PROCESSES ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
BENCH_ARGS ?=

# A display is there on macOS always, on Linux when X11 or Wayland says so.
HAS_DISPLAY := $(strip $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname -s)))
VIRTUAL_DISPLAY := $(if $(HAS_DISPLAY),,xvfb-run -a -s "-screen 0 1600x1200x24")
SETUP_INPUTS := pyproject.toml tools/setup_environment.sh tools/system_packages.sh tools/find_python.sh
MANIFEST_TEST := $(wildcard tests/napari_widgets/test_manifest.py)
GUI_TESTS := $(if $(PHASESAM_SKIP_GUI),--ignore=tests/napari_widgets)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp per profile (base, viewer, test, dev); a change of pyproject.toml installs again.
$(VENV)/.ready-%: $(SETUP_INPUTS)
	VENV="$(VENV)" tools/setup_environment.sh $*

.PHONY: demo
demo: $(VENV)/.ready-$(if $(HAS_DISPLAY),viewer,base) ## Segment a bundled micrograph; show it when there is a display
	$(PYTHON_IN_VENV) -m phasesam demo --output "$(DEMO_OUTPUT)" $(if $(HAS_DISPLAY),--show)

.PHONY: test
test: $(VENV)/.ready-test ## Run the test suite
	$(PYTHON_IN_VENV) -m pytest -n $(TEST_PROCESSES) --dist worksteal $(GUI_TESTS) $(PYTEST_ARGS)

.PHONY: check
check: $(VENV)/.ready-dev ## Check style, types, layers, project file and manifest
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/validate-pyproject pyproject.toml
	$(PYTHON_IN_VENV) -m pytest -q tests/test_house_rules.py $(MANIFEST_TEST)

.PHONY: format
format: $(VENV)/.ready-dev ## Format the code and repair what ruff can repair
	$(PYTHON_IN_VENV) -m ruff check --fix .
	$(PYTHON_IN_VENV) -m ruff format .

.PHONY: bench
bench: $(VENV)/.ready-test ## Compare speed, memory and quality with segment-anything
	$(PYTHON_IN_VENV) -m benchmarks $(BENCH_ARGS)

.PHONY: docs-pictures
docs-pictures: $(VENV)/.ready-test ## Draw the pictures of the documentation again, but for docs/figures_*.py, which need data
	set -e; for script in docs/pictures_*.py; do \
	  echo "$$script"; $(VIRTUAL_DISPLAY) $(PYTHON_IN_VENV) "$$script"; done

.PHONY: wheel
wheel: $(VENV)/.ready-dev ## Build the source archive and the wheel into dist/, and check them
	rm -rf dist
	$(PYTHON_IN_VENV) -m build
	$(PYTHON_IN_VENV) tools/check_distribution.py dist

.PHONY: clean
clean: ## Remove what builds and tests left behind
	rm -rf build dist $(DEMO_OUTPUT) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean ## Also remove the virtual environment
	rm -rf "$(VENV)"
