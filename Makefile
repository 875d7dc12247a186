# ponder: everything starts from a bare clone; `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup ask sandbox-image engine-native test check clean

BIN := .venv/bin
WRITTEN := pyproject.toml scripts/setup.sh

# The question goes to the shell through the environment, letter by letter: quotes, dollars and all.
ifdef Q
override Q := $(value Q)
endif
export Q

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: .venv/.setup-done ## make .venv with ponder in it, and what the system lacks (costs nothing the second time)

.venv/.setup-done: $(WRITTEN)
	@sh scripts/setup.sh

.venv/.setup-dev-done: $(WRITTEN)
	@sh scripts/setup.sh --dev

ask: setup ## ask a question: make ask Q="What is the 2000th prime number?"
	@if [ -z "$$Q" ]; then echo 'usage: make ask Q="What is the 2000th prime number?"' >&2; exit 2; fi
	@$(BIN)/ponder ask -- "$$Q"

PACKAGES = numpy sympy pandas

sandbox-image: setup ## build what programs run in, with packages: make sandbox-image PACKAGES="numpy sympy" (empty: none)
	@$(BIN)/ponder sandbox image $(or $(foreach name,$(PACKAGES),'$(name)'),--no-packages)

engine-native: setup ## compile llama.cpp for this CPU (about ten minutes on two cores): what to expect is in docs/engine.md
	@sh scripts/engine/build-native.sh

# Hundreds of tests start programs of ours: where bytecode may not be kept, each compiles every module anew.
test: .venv/.setup-dev-done ## run every test, those with the real small core, sandbox and browser too
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15

check: .venv/.setup-dev-done ## lint, type-check, and prove the import direction
	@$(BIN)/python -m ruff check .
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --no-deps --target build/typed .
	@MYPYPATH=build/typed $(BIN)/python -m mypy --strict -p ponder
	@$(BIN)/python -m pytest tests/test_layout.py

clean: ## remove what make made here (models that were fetched stay in their cache)
	rm -rf .venv build dist ponder.egg-info .mypy_cache .ruff_cache .pytest_cache
	find agent tools sandboxes policies tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
