# make demo   set up, then the main job on embedded data (about two minutes)     make test   set up, then all quick tests
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow check compat format cards digits benchmarks clean

demo: $(STAMP)
	rm -rf demo-out
	$(BIN)/hfdk demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --timeout 1200

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

# A saved subset, opened by stock `datasets` of each version that is promised, in environments that never saw this package.
compat: $(STAMP)
	rm -rf build/compat/set && mkdir -p build/compat
	cd tests && ../$(BIN)/python -c "from pathlib import Path; from pictured import coco; coco(Path('../build/compat/coco'), 12)"
	$(BIN)/hfdk subset coco --annotations build/compat/coco/annotations --images build/compat/coco --out build/compat/set
	for version in 4.0.0 4.8.5 5.0.0 5.2.0; do \
	  python=build/compat/$$version/bin/python; \
	  test -x $$python || { $(PYTHON) -m venv build/compat/$$version && \
	    $$python -m pip install --quiet --disable-pip-version-check datasets==$$version pillow; } || exit 1; \
	  $$python tests/stock_open.py build/compat/set > build/compat/$$version.json || exit 1; \
	  $$python -c "import json, sys; told = json.load(open(sys.argv[1])); print(told['datasets'], len(told['rows']), 'rows')" build/compat/$$version.json; \
	done

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cards: $(STAMP)
	$(BIN)/python model_cards/render.py

digits: $(STAMP)
	$(BIN)/hfdk digits train --base digits --out out/digits
	$(BIN)/hfdk digits train --base digits-seven --out out/digits-seven

# An hour on one core; the files of results/ that README quotes. Where nothing else runs: a process that had to wait runs again.
benchmarks: $(STAMP)
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/training.py --rounds 3
	$(BIN)/python benchmarks/training.py --rounds 3 --precision no --pictures 3
	$(BIN)/python benchmarks/training.py --rounds 2 --steps 4 --resolution 512 --pictures 2
	$(BIN)/python benchmarks/training.py --rounds 1 --steps 4 --pictures 2 --arms kit --checkpointing
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/job.py

$(STAMP): pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-out out dist build .pytest_cache .mypy_cache .ruff_cache
