# Two commands do everything from a fresh checkout: `make demo` and `make test`.

VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv)
PIP := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
# A file's tests stay in one process, so that they share their trained models.
TESTS := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
    --no-loadscope-reorder
export TF_CPP_MIN_LOG_LEVEL ?= 2

VERSION := $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' regraft_core/runtime/version.py)
IMAGE ?= regraft-python:$(VERSION)$(if $(GPU),-gpu)
BASE := $(shell sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' components/Dockerfile)
# The index that pip uses is passed on by name, so that no file names it.
INDEX := --build-arg PIP_INDEX_URL --build-arg PIP_EXTRA_INDEX_URL --build-arg PIP_TRUSTED_HOST

.PHONY: install dev demo screenshot test test-long test-containers fuzz image pin-base sbom lint format protos docs architecture update-docs lock clean

# The environment to run Regraft from; EXTRAS=onnx,notebook adds what few need.
install: $(VENV)/.run
ifdef EXTRAS
	sed -n 's/^\([^ ]*==[^ ]*\).*/\1/p' requirements/*.txt | sort -u > $(VENV)/pins.txt
	$(PIP) --constraint $(VENV)/pins.txt --editable serving/client --editable '.[$(EXTRAS)]'
endif

# The environment to work on Regraft in.
dev: $(VENV)/.dev

demo: $(VENV)/.run
	$(BIN)/python -m regraft.demo --out runs/demo

# The README's image of the report, from the demo's run; needs Chromium.
screenshot: $(VENV)/.run
	$(BIN)/regraft report runs/demo --no-open --screenshot docs/images/report.png

test: $(VENV)/.dev
	$(BIN)/python -m tests.browser
	$(TESTS)

test-long: $(VENV)/.dev
	$(TESTS) -m long

# Searches for 10 minutes for an image that ingest keeps and the served graph refuses, or that crashes.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.components.ingest.two_readers --seconds 600

# Builds the container image, then runs the pipeline in it; needs a Docker engine.
test-containers: $(VENV)/.dev image
	$(BIN)/python -m pytest -m containers

# GPU=1 builds the container image for GPU nodes; IMAGE=registry/name:tag gives it another name.
image:
	docker build $(BUILD_FLAGS) --file components/Dockerfile --tag $(IMAGE) \
	    --build-arg VERSION=$(VERSION) --build-arg REQUIREMENTS=$(if $(GPU),gpu,run) $(INDEX) .

# Pins the base of the container image: writes the digest that its tag has in the registry now.
pin-base:
	docker pull --quiet $(BASE)
	digest=$$(docker image inspect --format '{{index .RepoDigests 0}}' $(BASE)) && \
	    case "$$digest" in *@sha256:*) ;; *) echo "expected a digest of $(BASE), got '$$digest'" >&2; \
	    exit 1;; esac && \
	    sed -i "s|^ARG BASE=.*|ARG BASE=$(BASE)@$${digest#*@}|" components/Dockerfile
	grep '^ARG BASE=' components/Dockerfile

# The packages of the container image as a CycloneDX bill of materials: build/sbom.json.
sbom:
	$(or $(PYTHON),python3) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
	build/sbom/bin/cyclonedx-py requirements requirements/$(if $(GPU),gpu,run).txt \
	    --output-reproducible --output-file build/sbom.json

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The Python code of the .proto files. This version's output works with protobuf 5 and 6; that of a
# later one warns with any runtime but its own.
protos:
	$(or $(PYTHON),python3) -m venv build/protoc
	build/protoc/bin/python -m pip install --quiet grpcio-tools==1.65.5 'setuptools<80'
	build/protoc/bin/python -m grpc_tools.protoc --proto_path=serving/client \
	    --python_out=serving/client --pyi_out=serving/client regraft_client/serving.proto
	build/protoc/bin/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. \
	    serving/server/protocol/config_files.proto serving/server/protocol/open_inference.proto

# The site, in build/docs. A link that leads nowhere, or any other warning, fails.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --nitpicky --fail-on-warning docs build/docs

# Versions and hashes of all that is installed; UPGRADE=1 takes the newest that pyproject.toml allows.
LOCK := $(or $(UV),$(BIN)/uv) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-emit-package regraft-client --custom-compile-command 'make lock'
lock: $(if $(UV),,$(VENV)/.dev)
	$(LOCK) $(if $(UPGRADE),--upgrade) --extra dev --output-file requirements/dev.txt
	$(LOCK) --constraint requirements/dev.txt --extra cloud --extra ray --output-file requirements/run.txt
	$(LOCK) --constraint requirements/dev.txt --extra cloud --extra ray --extra gpu --output-file requirements/gpu.txt

# The diagram in docs/architecture.md, drawn from the code.
architecture: $(VENV)/.dev
	$(BIN)/python -m docs.architecture_diagram

# Writes the diagram, the measured values and the outputs of commands into the pages; takes minutes.
update-docs: architecture
	$(BIN)/python -m docs.results.pages
	$(BIN)/python -m pytest tests/docs/test_running.py tests/docs/test_examples.py --update-docs \
	    -m 'long or not long'

clean:
	rm -rf $(VENV) runs build dist *.egg-info serving/client/*.egg-info

# What the lock file pins, by hash; then Regraft and its client from here, by path and in one command.
$(VENV)/.run: pyproject.toml serving/client/pyproject.toml requirements/run.txt | $(BIN)/python
	$(PIP) --no-deps --require-hashes --requirement requirements/run.txt
	$(PIP) --no-deps --editable serving/client --editable .
	touch $@

$(VENV)/.dev: pyproject.toml serving/client/pyproject.toml requirements/dev.txt | $(BIN)/python
	$(PIP) --no-deps --require-hashes --requirement requirements/dev.txt
	$(PIP) --no-deps --editable serving/client --editable .
	touch $@ $(VENV)/.run

# By uv, which brings a Python if it must, or by the first Python that TensorFlow has a wheel for.
SUITABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
$(BIN)/python:
	@$(if $(UV),$(UV) venv --seed --python "$(or $(PYTHON),>=3.11,<3.14)" $(VENV),\
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$python -c '$(SUITABLE)' 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; \
	echo "expected Python 3.11, 3.12 or 3.13 with its venv module (TensorFlow has no wheel for" \
	    "others), found none: install one, or uv, which brings its own" >&2; exit 1)
