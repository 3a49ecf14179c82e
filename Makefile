# make quickstart   everything once on synthetic people: install, pack, train, evaluate
# make test         all tests
# make check        formatting, lint, types, the documentation and the quick tests
# make docs         the documentation as a site: site/index.html

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/
QUICK  := runs/quickstart
# As many test processes as CPUs, each with one thread: threads that share a CPU wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(RUN)pytest -n auto --dist loadfile

.PHONY: quickstart test lint types docs check clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)pip install --quiet --disable-pip-version-check --editable '.[dev,deepspeed]'
	touch $@

quickstart: $(VENV)/installed
	rm -rf data/quickstart $(QUICK)
	$(RUN)mivolo-lite pack people --count 2000 --out data/quickstart
	$(RUN)accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	    train.py --config configs/quickstart.yaml
	$(RUN)mivolo-lite evaluate --checkpoint $(QUICK)/best --data data/quickstart/val --out $(QUICK)/evaluation \
	    --inputs face,body,both
	@echo
	@echo "Done. $(QUICK)/evaluation holds report.html, metrics.json and predictions.csv; $(QUICK)/best is the model, shown"
	@echo "the face alone, the body alone, and both. The last line of the table is what it is worth then: its error beside"
	@echo "that of always answering the mean age."

test: $(VENV)/installed
	$(PYTEST)

lint: $(VENV)/installed
	$(RUN)ruff format --check
	$(RUN)ruff check

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict  # not --quiet: it would hide the warnings, and count none

types: $(VENV)/installed
	$(RUN)mypy

check: lint types docs
	$(PYTEST) -m 'not slow'

clean:
	rm -rf $(VENV) data/quickstart $(QUICK) site
