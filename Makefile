# make bench [DATA=anime|ml-100k|ml-1m|PATH]   install once, then the comparison and its report
# make test                                    install once, then the tests
# make rungs                                   measure the ladder of the derivation; wants a quiet machine
# make figures [ARGS=--check]                  draw the documents' figures and fill in their tables from bench/results
# make docs [ARGS=--check]                     the same without drawing: tables, and blocks that two languages share
# make roofline [ARGS='--data planted-anime']  how near each kernel comes to this machine's limit
# make speed, make race [ARGS='--data ml-1m']  our solvers beside the installed peers: an epoch, and the way to an RMSE
# make paths [ARGS='--data ml-1m']             an iteration of every path of mf_torch, beside the Numba backend
# make scaling                                 how time and memory grow with the ratings, with K and with the threads
# make doctor                                  what would make timings wrong just now, and how to mend it
# make smoke, make baseline [ARGS=--write]     a small run, and whether its RMSE and equality are the committed ones
# make tour [EDIT=1]                           install once, then the notebook in a browser; EDIT=1 shows its code
# make mutate [ARGS='--only MODULE']           break the mathematics in a copy, fault by fault; a test must notice each
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
ARGS ?=
EDIT ?=

.PHONY: bench test rungs figures docs roofline speed race paths scaling doctor tour mutate lint types imports smoke baseline format clean help

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

# What to install, and under which stamp: a second run finds everything in place, with no network.
define installed
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v[0]}.{v[1]} came; 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(VENV)/.installed $@
endef

$(VENV)/.installed: EXTRAS = dev
$(VENV)/.mutate: EXTRAS = dev,mutate
$(VENV)/.installed $(VENV)/.mutate: pyproject.toml constraints.txt
	$(installed)

bench: $(VENV)/.installed
	$(BIN)/python -m bench $(if $(DATA),--data $(DATA)) $(ARGS)

# Two processes share the tests by file; threads that wait for work leave the cores to the other one.
test: $(VENV)/.installed
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

rungs figures docs roofline speed race paths scaling doctor: $(VENV)/.installed
	$(BIN)/python -m bench $@ $(ARGS)

tour: $(VENV)/.installed
	$(BIN)/python -m marimo $(if $(EDIT),edit,run) mf_numpy/tour.py $(ARGS)

mutate: $(VENV)/.mutate
	$(BIN)/python -m tests.mutation $(ARGS)

smoke: $(VENV)/.installed
	$(BIN)/python -m bench --suite smoke --out bench/out/smoke

baseline: $(VENV)/.installed
	$(BIN)/python -m bench baseline $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) bench/out
