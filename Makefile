PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyPI's torch for Linux on x86-64 brings CUDA: cpu leaves it out, cuda keeps it. Chosen by whether there is a GPU.
TORCH ?= $(shell if [ "$$(uname -sm)" != "Linux x86_64" ] || [ -e /proc/driver/nvidia ] || nvidia-smi -L >/dev/null 2>&1; \
  then echo cuda; else echo cpu; fi)
# Tests wait for leases and servers most of their time, so more of them run side by side than there are cores.
WORKERS ?= 4
# Of PyTorch, in each of them: threads that share a core wait for each other, and a test of training takes eight times as long.
THREADS ?= 1
# The labelled photos that the benchmarks run on.
PHOTOS ?= ../shared/photos
JOB := $(VENV)/.job-$(TORCH)
ALL := $(VENV)/.all-$(TORCH)

.PHONY: demo demo-page test check unit soak reliability screenshots format bench audit clean
demo: $(JOB)  ## run the whole job on the demo homes, with the embedded servers
	$(BIN)/enrich demo

demo-page: $(JOB)  ## the same homes in the page, at http://127.0.0.1:8080/ until Ctrl-C
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[web]'
	$(BIN)/enrich demo --serve

# Python keeps what it compiled, whatever the environment says: enrich is started some 200 times.
test: check  ## every check, with real servers and a real browser
	$(BIN)/python -m tools.browser
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest \
	  --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(ALL)  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(ALL)  ## the tests that need no server
	$(BIN)/python -m pytest tests/unit

soak: $(ALL)  ## far more bad input and kills (an hour or two), with a fuzzer
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[soak]'
	$(BIN)/python -m pytest tests/faults --soak

reliability: $(ALL)  ## bad input, kills and failing servers, counted; writes docs/reliability.md
	$(BIN)/python -m tests.faults

screenshots: $(ALL)  ## the page of the demo's homes and a night's report, into docs/img
	$(BIN)/python -m tools.browser
	$(BIN)/python -m tools.screenshots docs/img

format: $(ALL)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(ALL)  ## every benchmark, one after another (hours); writes docs/benchmarks.md
	$(BIN)/python benchmarks --photos $(PHOTOS)

audit: $(ALL)  ## known weaknesses of what is installed (asks the internet), and everybody's licence
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[audit]'
	$(BIN)/pip-audit --no-deps --disable-pip --requirement constraints.txt
	$(BIN)/pip-licenses --order license

$(JOB): pyproject.toml constraints.txt $(wildcard tools/*.py)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.job-* $(VENV)/.all-*
	$(BIN)/pip install -qq --upgrade pip
	$(BIN)/python -m tools.install $(TORCH)
	touch $@

$(ALL): $(JOB)
	$(BIN)/pip install -qq --no-compile --constraint constraints.txt --editable '.[cloud,features,opensearch,ray,training,web,dev]'
	$(BIN)/python -m tools.compiled
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
