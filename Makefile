# Two commands from a fresh clone: `make test` and `make train`. Both make their own environment in .venv first.
#   make train ARGS="domain=protein preset=quick run=runs/first trainer.max_steps=2000"
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What is trained when nothing else is said; the words in ARGS win.
given = $(patsubst $(1)=%,%,$(filter $(1)=%,$(ARGS)))
DOMAIN := $(or $(call given,domain),protein)
PRESET := $(if $(call given,preset),,$(if $(wildcard configs/preset/$(DOMAIN)/quick.yaml),preset=quick))
RUN := $(or $(call given,resume),$(call given,run),runs/$(DOMAIN)/$(shell date +%Y-%m-%d_%H-%M-%S))
WORDS := $(if $(call given,resume),$(ARGS),domain=$(DOMAIN) $(PRESET) run=$(RUN) $(filter-out domain=% run=%,$(ARGS)))

.PHONY: train test docs check gpu-check help clean

help:
	@echo "make train   train, sample and evaluate; ARGS=\"domain=protein trainer.max_steps=2000\""
	@echo "make test    the whole test suite; ARGS=\"-k cli\""
	@echo "make docs    the documentation, as pages in build/docs"
	@echo "make gpu-check   on a machine with a CUDA device: agreement with the CPU, training, speed, syncs, memory"
	@echo "make check   what continuous integration runs: tests, style, types, architecture, the built wheel"

$(READY): pyproject.toml constraints.txt
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

train: $(READY)
	$(BIN)/fm-science train $(WORDS)
	$(BIN)/fm-science sample $(RUN) n=24
	$(BIN)/fm-science evaluate $(RUN)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

docs: $(READY)
	$(BIN)/python -m sphinx -q -n -W --keep-going docs build/docs
	@echo "open build/docs/index.html"

check:
	.ci/run

gpu-check: $(READY)
	$(BIN)/python tools/gpu_check.py $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
