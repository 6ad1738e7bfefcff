# Every target sets up what it needs in .venv, once; PYTHON=python3.12 make ... picks another interpreter
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2
# commands find their like: nbdev_test starts a kernel, tests start commands
RUN := HF_HUB_OFFLINE=1 MPLBACKEND=agg PATH="$(CURDIR)/$(BIN):$$PATH"
# tests that wait much: they run beside the others
PROCESSES := tests/test_browser.py tests/test_survive.py tests/test_torchrun.py
# `make lab`: root must be allowed on purpose, and a browser at the far end of SSH helps nobody
IP ?= localhost
PORT ?= 8888
WHERE := $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(SSH_CONNECTION),--no-browser)
.PHONY: setup demo help lint test test-notebooks test-tests test-processes test-slow mutants lab bench export notebooks readme front site lock clean

setup: .venv/.ready  ## .venv with everything in it

# --no-compile: Python compiles a module when it is first imported, and most never are
.venv/.ready: requirements.lock settings.ini setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3,11) and 'Python 3.11 or newer is needed: PYTHON=/path/to/python3.11 make ...')"
	@echo "Setting up .venv from requirements.lock: some minutes, 2.5 GB (several GB more with PyTorch's CUDA build)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile `grep '^torch==' requirements.lock`
	$(BIN)/pip install -q --no-compile -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

help:                ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: setup          ## the main job in some minutes -> runs/demo/report.html (atm_demo --long: the older, longer one)
	$(BIN)/atm_demo

test: lint           ## what CI checks: style first, then notebooks and tests side by side
	$(MAKE) -j3 test-notebooks test-tests test-processes

lint: setup          ## the style of all code: ruff.toml, and names that no module knows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ruff check --isolated --select F821 atm_net

test-notebooks: setup ## every notebook from top to bottom
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/nbdev_test --n_workers 1 --do_print

test-tests: setup    ## what is in tests/, but for those that start processes; two files at a time
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests $(addprefix --ignore=,$(PROCESSES)) -m "not slow"

test-processes: setup ## training that is killed, several processes, a browser
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/python -m pytest -q $(PROCESSES) -m "not slow"

test-slow: .venv/.site ## the long cells and tests
	OMP_NUM_THREADS=2 $(RUN) $(BIN)/nbdev_test --n_workers 1 --flags slow --do_print
	$(RUN) $(BIN)/python -m pytest -q tests -m slow

mutants: setup       ## is every formula guarded? small faults in six subjects (MODULES="fusion losses") -> runs/mutants/report.md
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/mutants.py $(MODULES)

lab: setup           ## JupyterLab with the explorer open, also as root and over SSH (IP=0.0.0.0, PORT=8889)
	@echo "Open the address that begins with http:// below. Then click the pictures and press Shift+Enter."
	@echo "From another machine, type there:  ssh -L $(PORT):localhost:$(PORT) $$(id -un)@$$(hostname)"
	@echo "and open the address with 'localhost' there (PORT: the number in the address, if it differs)."
	$(BIN)/jupyter lab $(WHERE) --ip=$(IP) --port=$(PORT) \
	  --LabApp.default_url=/lab/tree/nbs/walkthroughs/01_explorer.ipynb $(LAB)

bench: setup         ## ratios against named peers, in one run
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/metrics.py

export: setup        ## format, notebooks -> modules, then clean the notebooks
	$(BIN)/ruff format -q .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_export
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_clean

notebooks: export    ## run every notebook and keep its outputs
	OMP_NUM_THREADS=1 $(BIN)/python tests/run_notebooks.py

front: demo          ## picture, numbers and diagrams of the README from a fresh demo, then the README
	$(BIN)/python docs/picture.py runs/demo
	$(BIN)/python docs/diagrams.py
	$(BIN)/python tests/make_readme.py

readme: setup        ## README.md from nbs/index.ipynb; badges and set-up cells from settings.ini
	$(BIN)/python tests/make_readme.py

site: .venv/.site    ## notebooks, lessons, API and the map of the paper as a static site -> _site/index.html
	$(BIN)/python docs/build.py _site

.venv/.site: .venv/.ready requirements-site.lock
	$(BIN)/pip install -q -r requirements-site.lock
	touch $@

lock: setup          ## exact versions of what is installed now
	$(BIN)/pip freeze --exclude-editable --all | grep -viE '^(pip|atm_net)[ =]' | grep -vxFf requirements-site.lock | sed 's/+cpu//' > requirements.lock

clean:               ## remove .venv, the site and built packages
	rm -rf .venv _site build dist *.egg-info
