# make demo: pretrain on the built-in text and show what was learnt.   make test: the tests.   make lint: style, floors, types.
PYTHON ?= python3
RUN ?= runs/demo
BIN = .venv/bin
# TensorFlow's notices are not the user's.
QUIET = TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=0
# A process per core; a file's tests share what they compile. More than four would ask a laptop for too much memory.
PARALLEL = --numprocesses=auto --maxprocesses=4 --dist=loadfile
.PHONY: demo test test-all lint format clean same-python

# Who asks for a Python gets it, or is told that the environment has another one. Without PYTHON the environment is used as it is.
same-python:
ifneq ($(origin PYTHON),file)
	@"$(PYTHON)" .ci/install.py .venv
endif

.venv/ready: requirements.txt pyproject.toml | same-python
	@"$(PYTHON)" .ci/install.py .venv requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	@"$(PYTHON)" .ci/install.py .venv requirements-dev.txt
	@touch $@

demo: .venv/ready
	@$(BIN)/python -m xlmr_jax demo --workdir="$(RUN)"

test: .venv/ready-dev
	@$(QUIET) $(BIN)/python -m pytest $(PARALLEL) -m "not slow"

# -v: a slow test runs for minutes, and this prints its name when it begins.
test-all: .venv/ready-dev
	@$(QUIET) $(BIN)/python -m pytest $(PARALLEL) -v

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright
	$(BIN)/shellcheck -x launch/*.sh launch/*.sbatch
	$(BIN)/shellcheck --severity=warning .ci/run .ci/installed

format: .venv/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs build *.egg-info
