# make demo: pretrain on the built-in corpus and show what was learnt.   make test: the tests (test-all: the long ones too).
PYTHON ?= python3
RUN ?= runs/demo
BIN = .venv/bin
.PHONY: demo test test-all lint clean

.venv/ready: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version); Python 3.11 to 3.13 is needed, e.g. make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv (once, about two minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: .venv/ready
	@TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -m xlmr_jax demo --workdir=$(RUN)

test: .venv/ready
	@$(BIN)/python -m pytest -m "not slow"

test-all: .venv/ready
	@$(BIN)/python -m pytest

lint: .venv/ready
	@$(BIN)/ruff check .

clean:
	rm -rf .venv runs
