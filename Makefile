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

.PHONY: train test check help clean

help:
	@echo "make train   train, sample and evaluate; ARGS=\"domain=protein trainer.max_steps=2000\""
	@echo "make test    the whole test suite; ARGS=\"-k cli\""
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
	$(BIN)/python -m pytest $(ARGS)

check:
	.ci/run

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
