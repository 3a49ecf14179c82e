# make              .venv with the package: 6 GB, mostly torch
# make quickstart   the same, then everything once on synthetic people: pack, train, evaluate, in 3 minutes
# make test         all tests
# make check        lint, types, docs and quick at once
# make lint         formatting and lint
# make types        types
# make docs         the documentation as a site: site/index.html
# make quick        the quick tests
# make clean        removes .venv, what quickstart made, and the site
# make help         these lines

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/
QUICK  := runs/quickstart
# Test processes keep compiled files, which half of collecting the tests is spent on.
PYTEST := PYTHONDONTWRITEBYTECODE= $(RUN)pytest --dist loadfile

.PHONY: quickstart test lint types docs quick check clean help

$(VENV)/quickstart: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)pip install --quiet --disable-pip-version-check --editable '.[dev,deepspeed]'
	touch $@

quickstart: $(VENV)/quickstart
	@date +%s >$(VENV)/started
	rm -rf data/quickstart $(QUICK)
	$(RUN)mivolo-lite pack people --count 2500 --ages uniform --split train=0.8,val=0.2 --out data/quickstart
	$(RUN)accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	    -m mivolo_lite train --config configs/quickstart.yaml
	$(RUN)mivolo-lite evaluate --checkpoint $(QUICK)/best --data data/quickstart/val --out $(QUICK)/evaluation \
	    --inputs face,body,both
	@echo
	@echo "Done in $$(($$(date +%s) - $$(cat $(VENV)/started))) seconds after the installation."
	@du -shc $(VENV) data/quickstart $(QUICK)
	@echo "Open $(QUICK)/evaluation/report.html. $(QUICK)/best is the model. The report gives its error from the face, from"
	@echo "the body and from both; the last line of the table compares it with always answering the mean age."

test: $(VENV)/installed  # two test processes for each CPU: slow tests wait half of their time, and begin first (tests/conftest.py)
	$(PYTEST) --no-loadscope-reorder -n $$((2 * $$(getconf _NPROCESSORS_ONLN)))

lint: $(VENV)/installed
	$(RUN)ruff format --check
	$(RUN)ruff check

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict  # not --quiet: it would hide the warnings, and count none

types: $(VENV)/installed
	$(RUN)mypy

quick: $(VENV)/installed
	$(PYTEST) -n auto -m 'not slow'

check:  # all at once: types and docs need one CPU each
	$(MAKE) --jobs lint types docs quick

clean:
	rm -rf $(VENV) data/quickstart $(QUICK) site

help:
	@sed -n '/^#/!q; s/^# //p' $(firstword $(MAKEFILE_LIST))
