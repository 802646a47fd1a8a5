# A fresh machine needs two commands: `make demo` and `make test`. Both set themselves up.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
SHELL := /bin/bash
DEMO := results/demo-slides/cohort.tsv
SNAKEMAKE := $(BIN)/snakemake --profile profiles/local

.PHONY: demo test test-long install lint format bench clean

demo: $(VENV)/.installed $(DEMO)  ## run every rule on a synthetic cohort
	@$(BIN)/python -m karyon.demo.run

test: $(VENV)/.installed lint  ## lint, types, unit and workflow tests
	$(BIN)/pytest

test-long: $(VENV)/.installed  ## networks learn a real crop by heart; spatialdata reads our tables
	$(BIN)/pytest -m long

install: $(VENV)/.installed  ## the package, and `snakemake --profile local|slurm` by name
	@$(BIN)/karyon link-profiles

lint: $(VENV)/.installed $(DEMO)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint --configfile config/demo.yaml
	$(BIN)/snakemake --lint --config experiments=switch_unet

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

$(DEMO): $(VENV)/.installed
	$(BIN)/karyon demo-slides results/demo-slides --slides 3

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Karyon needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV): downloading Karyon's packages as pinned in constraints.txt (torch is the largest)."
	@start=$$SECONDS; $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]" && \
	  touch $@ && echo "Set up in $$((SECONDS - start)) s: $$($(BIN)/pip list --format=freeze | wc -l) packages," \
	    "$$(du -sh $(VENV) | cut -f1) in $(VENV)."

bench: $(VENV)/.installed  ## every measurement
	@$(BIN)/karyon bench

clean:  ## remove generated files, not the results of your cohorts
	rm -rf results/demo results/demo-slides .mypy_cache .ruff_cache .pytest_cache
