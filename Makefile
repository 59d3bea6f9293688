# Two commands do everything from a fresh checkout: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A file's tests stay in one process, so that they share their trained models.
TESTS := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile
export TF_CPP_MIN_LOG_LEVEL ?= 2

# The index that pip uses is passed on by name, so that it stands in no file.
VERSION := $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' regraft_core/runtime/version.py)
IMAGE ?= $(shell sed -n 's/^IMAGE = "\(.*\)"/\1/p' regraft_core/runtime/container_image.py)$(if $(GPU),-gpu)
INDEX := --build-arg PIP_INDEX_URL --build-arg PIP_EXTRA_INDEX_URL --build-arg PIP_TRUSTED_HOST

.PHONY: demo screenshot test test-long test-containers image lint format docs architecture update-docs clean

demo: $(VENV)/.run
	$(BIN)/python -m regraft.demo --out runs/demo

# The README's image of the report, from the demo's run; needs Chromium.
screenshot: $(VENV)/.run
	$(BIN)/regraft report runs/demo --no-open --screenshot docs/images/report.png

test: $(VENV)/.dev
	$(TESTS) --no-loadscope-reorder

test-long: $(VENV)/.dev
	$(TESTS) -m long

# Builds the image, then runs the pipeline in it; needs a Docker engine.
test-containers: $(VENV)/.dev image
	$(BIN)/python -m pytest -m containers

# GPU=1 builds the image for GPU nodes; IMAGE=registry/name:tag gives it another name.
image:
	docker build $(BUILD_FLAGS) --file components/Dockerfile --tag $(IMAGE) --build-arg VERSION=$(VERSION) \
	    --build-arg TENSORFLOW=$(if $(GPU),'tensorflow[and-cuda]',tensorflow) $(INDEX) .

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/docs. A link that leads nowhere, or any other warning, fails.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --nitpicky --fail-on-warning docs build/docs

# The diagram in docs/architecture.md, drawn from the code.
architecture: $(VENV)/.dev
	$(BIN)/python -m docs.architecture_diagram

# Writes the diagram, the measured values and the outputs of commands into the pages; takes minutes.
update-docs: architecture
	$(BIN)/python -m docs.results.pages
	$(BIN)/python -m pytest tests/docs/test_running.py --update-docs -m 'long or not long'

clean:
	rm -rf $(VENV) runs build *.egg-info

$(VENV)/.run: pyproject.toml constraints.txt
	@echo "Installing TensorFlow and the rest into $(VENV), once: some minutes without a word."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable serving/client --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable serving/client --editable '.[dev]'
	touch $@
