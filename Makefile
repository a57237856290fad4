# Every target first makes sure of an environment with the pinned packages: the active one if it matches
# requirements.lock, else .venv, which is built when it is missing. `make PYTHON=python3.12 …` chooses the interpreter.
PYTHON ?= python3
.DEFAULT_GOAL := help
.PHONY: help environment quickstart test lab lock

# Recipes start with $(ENVIRONMENT) and then say $$PY for the interpreter that has everything.
ENVIRONMENT = PY=$$($(PYTHON) tools/bootstrap.py) || exit 1; export PATH="$$(dirname $$PY):$$PATH";

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

environment:  ## build or mend the environment
	@$(ENVIRONMENT) echo "environment: $$PY"

quickstart:  ## fine-tune on ICD-10-CM and show the measured gain (about 6 minutes)
	@$(ENVIRONMENT) $$PY -m embedlab.cli run 00_quickstart --html

test:  ## style, unit tests, fault tests, notebooks at smoke size
	@$(ENVIRONMENT) $$PY -m ruff check . && $$PY -m ruff format --check . && $$PY -m pytest

lab:  ## JupyterLab on the notebooks
	@$(ENVIRONMENT) $$PY -m ipykernel install --sys-prefix --name embedlab --display-name embedlab >/dev/null && $$PY -m jupyterlab notebooks

lock:  ## rewrite requirements.lock from the environment in use
	@$(ENVIRONMENT) $$PY tools/bootstrap.py --lock
