# Every target uses an environment with the pinned packages: the active one if it matches requirements.lock, else .venv,
# which is built or updated if necessary. `make PYTHON=python3.12 …` selects the interpreter for a new .venv.
PYTHON ?= python3
.DEFAULT_GOAL := help
.PHONY: help environment quickstart test lab study tables report site bench audit lock clean

# $(ENVIRONMENT) puts the right `python` first on the path of a recipe.
ENVIRONMENT = found=$$($(PYTHON) tools/bootstrap.py) || exit 1; export PATH="$$(dirname "$$found"):$$PATH";

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

environment:  ## build or update the environment
	@$(ENVIRONMENT) echo "environment: $$found"

quickstart:  ## train on all of ICD-10-CM and show the measured gain (about 3 minutes on 2 free cores)
	@$(ENVIRONMENT) python -m embedlab.cli run 00_quickstart --html --output-dir results/quickstart && \
	cli="$$(dirname "$$found")/embedlab" && printf '%s\n' '' 'What to do next:' \
	"  train on your own data:        $$cli run 00 -p dataset=pairs:my.csv   (columns query and positive)" \
	"  find out what your data needs: $$cli diagnose pairs:my.csv            (notebooks/01_diagnose.ipynb)" \
	'  fine-tune the transformer too: notebooks/03_contrastive.ipynb'

test:  ## check style and types, and run all tests, with the notebooks at smoke size
	@$(ENVIRONMENT) python -m ruff check . && python -m ruff format --check . && python -m mypy && python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lab:  ## open the notebooks in JupyterLab
	@$(ENVIRONMENT) python -m ipykernel install --sys-prefix --name embedlab --display-name embedlab >/dev/null && python -m jupyterlab notebooks

study:  ## run the complete study on ICD-10-CM (hours); SIZE=gpu for a GPU, MEDQUAD=folder adds MedQuAD
	@$(ENVIRONMENT) python -m embedlab.cli sweep study$(SIZE:%=_%) \
	$(if $(MEDQUAD),&& mkdir -p data && ln -sfn "$(abspath $(MEDQUAD))" data/medquad && python -m embedlab.cli sweep study_medquad$(SIZE:%=_%))

tables:  ## rebuild the committed tables and figures from the records, and README's tables
	@$(ENVIRONMENT) python -m embedlab.cli publish && python -m embedlab.cli headline && python -m experiments.benchmarks.hardware

report:  ## write build/report.html, one page with all runs
	@$(ENVIRONMENT) python -m embedlab.cli report -o build/report.html

site:  ## build the website of executed notebooks and tables in build/site
	@$(ENVIRONMENT) python -m embedlab.cli site

bench:  ## compare our fast code with the standard libraries
	@$(ENVIRONMENT) python experiments/benchmarks/run.py

audit:  ## check the locked packages for known vulnerabilities, if the advisory data can be reached
	@$(PYTHON) tools/audit.py

# Not through $(ENVIRONMENT), which would first undo the change to be locked.
lock:  ## rewrite requirements.lock from the active environment
	@$(if $(VIRTUAL_ENV)$(CONDA_PREFIX),python,.venv/bin/python) tools/lock.py

clean:  ## remove .venv and caches; runs and results stay
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist src/*.egg-info
