# Every target sets up what it needs in .venv, once; PYTHON=python3.12 make ... picks another interpreter
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2
.PHONY: setup demo test test-notebooks test-tests test-slow mutants lab bench export notebooks readme site lock clean

setup: .venv/.ready

.venv/.ready: requirements.lock settings.ini setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3,11) and 'Python 3.11 or newer is needed: PYTHON=/path/to/python3.11 make ...')"
	@echo "Setting up .venv from requirements.lock: some minutes, 2.5 GB (several GB more with PyTorch's CUDA build)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q `grep '^torch==' requirements.lock`
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: setup          ## the main job on the embedded default -> runs/demo/report.html
	$(BIN)/atm_demo

test: setup          ## what CI checks: notebooks and tests side by side, one core each
	$(MAKE) -j2 test-notebooks test-tests

test-notebooks: setup
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MPLBACKEND=agg PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_test --n_workers 1 --do_print

test-tests: setup
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests -m "not slow"

test-slow: .venv/.site ## the long cells and tests
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 MPLBACKEND=agg PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_test --n_workers 1 --flags slow --do_print
	HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests -m slow

mutants: setup       ## is every formula guarded? small faults are put into the modules -> runs/mutants/report.md
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/mutants.py $(MODULES)

lab: setup           ## JupyterLab at the walkthroughs, the explorer first
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/walkthroughs/01_explorer.ipynb

bench: setup         ## ratios against named peers, in one run
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/metrics.py

export: setup        ## notebooks -> modules, then clean the notebooks
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_export && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_clean

notebooks: export    ## run every notebook and keep its outputs
	OMP_NUM_THREADS=1 $(BIN)/python tests/run_notebooks.py

readme: setup        ## README.md from nbs/index.ipynb; badges and set-up cells from settings.ini
	$(BIN)/python tests/make_readme.py

site: .venv/.site    ## notebooks, lessons, API and the map of the paper as a static site -> _site/index.html
	$(BIN)/python docs/build.py _site

.venv/.site: .venv/.ready requirements-site.lock
	$(BIN)/pip install -q -r requirements-site.lock
	touch $@

lock: setup          ## exact versions of what is installed now
	$(BIN)/pip freeze --exclude-editable --all | grep -viE '^(pip|atm_net)[ =]' | grep -vxFf requirements-site.lock | sed 's/+cpu//' > requirements.lock

clean:
	rm -rf .venv _site build dist *.egg-info
