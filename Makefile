# Two commands to know: `make demo` exports a model without a cluster, `make test` runs every test. `make help` lists the rest.

PYTHON ?= python3
CACHE := $(or $(MODELEXPORT_CACHE),$(HOME)/.cache/modelexport)
BIN := .venv/bin
STAMP := .venv/$(firstword $(shell cat requirements/dev.txt pyproject.toml | sha256sum)).installed
PYTEST := $(BIN)/python -m pytest -q
CLUSTER := PYTHONPATH=tests $(BIN)/python -m cluster

export MODELEXPORT_CACHE := $(CACHE)
export YOLO_OFFLINE := true

.DEFAULT_GOAL := help
.PHONY: help install tools gitops-tools demo test test-unit test-security fuzz test-release test-converter test-integration test-faults faults test-e2e lint fmt lock generate sbom sbom-images cluster cluster-demo cluster-down bench matrix checkpoints clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

$(STAMP): requirements/dev.txt requirements/bootstrap.txt pyproject.toml
	@echo "Installing the locked Python packages into .venv (about 7 GB; seconds when they are cached)"
	@rm -f .venv/*.installed
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@touch $@

install: $(STAMP) ## Install the locked Python packages into .venv

demo: install ## Export the trained YOLOv8 detector of the repository to all nine targets, without a cluster
	@install -D -m 644 tests/models/weights/yolov8n.pt modelexport-store/checkpoints/shapes/yolov8n.pt
	@install -D -m 644 tests/models/data/calibration.zip modelexport-store/datasets/shapes/calibration.zip
	$(BIN)/modelexport run examples/yolov8.yaml

test: lint test-unit test-security test-release test-converter test-integration test-faults test-e2e ## Run everything: what CI runs

test-unit: install ## Run the tests that need neither torch nor a cluster, in seconds
	$(PYTEST) tests/unit

test-security: install ## Try hostile programs, pickles, archives, pictures, URIs, YAML, messages and objects
	$(PYTEST) -n 2 --dist loadgroup tests/security

fuzz: install ## Fuzz the readers of what strangers write, for SECONDS (60) in total; KEEP=1 writes the corpus anew
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --only-binary :all: --require-hashes -r requirements/fuzz.txt
	OMP_NUM_THREADS=1 PYTHONPATH=tests:tests/models:examples $(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(if $(KEEP),--keep) $(ONLY)

tools: install ## Build Kubernetes, etcd, MinIO and what else the tests run on, once
	@$(CLUSTER) tools

test-release: tools ## Test what is shipped beside the images: the Helm chart and the bills of materials
	$(PYTEST) tests/release

gitops-tools: tools ## Build Argo CD and kstatus, which the tests of GitOps run, once
	@$(CLUSTER) gitops

# torch frees and takes hundreds of MiB in every run of a model. What glibc gives back to the system comes with a page
# fault for each 4 KiB, which was half of the time of the largest tests: it keeps everything.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592

test-converter: tools ## Convert, verify and measure all cells
	$(KEEP_MEMORY) $(PYTEST) -n 2 --dist loadgroup tests/converter

test-integration: gitops-tools ## Run the operator against a real API server
	$(PYTEST) -n 3 --dist loadgroup tests/integration

test-faults: tools ## Let the operator meet faults of the API server, of clocks and of itself, with few exports
	$(PYTEST) -n 3 tests/faults

faults: tools ## Let the operator meet every fault, at full size (an hour), and write docs/faults.md
	$(PYTEST) --long tests/faults

test-e2e: gitops-tools ## Run the whole product on the real test cluster
	$(PYTEST) tests/e2e

lint: install ## Check style, types, layers and generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m modelexport.render --check
	$(BIN)/python -m modelexport_operator.render --check

fmt: install ## Format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11

lock: install ## Resolve the dependencies again and write requirements/
	$(LOCK) --extra operator --extra converter --extra ultralytics --group dev -o requirements/dev.txt
	$(LOCK) --extra operator --constraint requirements/dev.txt -o requirements/operator.txt
	$(LOCK) --extra converter --constraint requirements/dev.txt -o requirements/converter.txt
	echo atheris | $(subst pyproject.toml,-,$(LOCK)) -o requirements/fuzz.txt
	sed -n '/^uv==/,/^[a-tv-z]/{/^uv==/p;/^  /p}' requirements/dev.txt | sed '$$ s/ \\$$//' > requirements/bootstrap.txt

generate: install ## Write the generated files again
	$(BIN)/python -m modelexport.render
	$(BIN)/python -m modelexport_operator.render

SBOM := $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible

sbom: install ## Write a CycloneDX bill of the locked Python packages of each image into build/sbom
	@mkdir -p build/sbom
	$(SBOM) requirements/operator.txt --output-file build/sbom/modelexport-operator.cdx.json
	$(SBOM) requirements/converter.txt --output-file build/sbom/modelexport-converter.cdx.json

sbom-images: tools ## Build the images and write a bill of all that is in each into build/sbom
	$(CLUSTER) sbom

cluster: tools ## Bring up the test cluster
	$(CLUSTER) up

cluster-demo: cluster ## Install the operator on the test cluster and export the demo model there
	$(CLUSTER) demo

cluster-down: install ## End the test cluster and leave nothing behind
	$(CLUSTER) down

bench: install ## Measure every cell and the operator, and write docs/benchmarks.md
	PYTHONPATH=tests $(BIN)/python -m bench.run

matrix: install ## Measure every cell (or ONLY="YOLOv8 ONNX"): accuracy, size, seconds, memory, latency
	PYTHONPATH=tests:tests/models:examples $(BIN)/python -m bench.matrix $(if $(ONLY),--only "$(ONLY)")

checkpoints: install ## Train with 21 releases of ultralytics (or ONLY="8.2.48") and write tests/models/releases
	$(BIN)/python tests/models/make_checkpoints.py $(ONLY)

clean: ## Remove what make made in this checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache modelexport-store build
