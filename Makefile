# Every target works in a fresh clone: it makes .venv and installs the pinned releases first.
PYTHON ?= python3
export NO_MKDOCS_2_WARNING = 1
BIN := .venv/bin

.PHONY: demo test lint docs browser package bench builtin-model

demo: .venv/.installed-report  ## evolve cache schedules for the built-in model and show what they are worth
	$(BIN)/python -m ecad demo

test: lint browser  ## everything that must hold before a change lands
	$(BIN)/mkdocs build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md docs ecad tests tools benchmarks examples

docs: .venv/.installed-docs  ## the documents as a site: build/site/index.html
	$(BIN)/mkdocs build

# Tests of the report look at it in Chromium. Where it cannot be installed they skip and say so.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	|| (apt-get update && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core) >/dev/null 2>&1 \
	|| echo "No Chromium, and it could not be installed: the tests in a browser will be skipped."

package:  ## the wheel and the source distribution in dist/, built and checked in an environment of their own
	rm -rf dist build/package
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet build==1.3.0 twine==6.2.0
	build/package/bin/python -m build
	build/package/bin/python -m twine check --strict dist/*

bench: .venv/.installed-dev  ## every measurement in benchmarks/ that needs no files and no GPU, one after the other
	set -e; for script in $(filter-out $(addprefix benchmarks/,published.py gpu.py),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

builtin-model: .venv/.installed-benchmark  ## train the built-in model again from its published pictures (hours)
	$(BIN)/python tools/build.py build

# The stem is the extra of pyproject.toml that the target needs.
.venv/.installed-%: pyproject.toml constraints.txt
	@echo "Installing ecad and what it needs into .venv: some minutes the first time, PyTorch is large."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@
