# Two commands to know: `make demo` exports a model without a cluster, `make test` runs every test. `make help` lists the rest.

PYTHON ?= python3
CACHE := $(or $(MODELEXPORT_CACHE),$(HOME)/.cache/modelexport)
BIN := .venv/bin
stamp = .venv/$(1)-$(shell cat requirements/$(1).txt pyproject.toml | git hash-object --stdin).installed
DEV := $(call stamp,dev)
UNIT := $(call stamp,unit)
PYTEST := $(BIN)/python -m pytest -q
CLUSTER := PYTHONPATH=hack $(BIN)/python -m testcluster

export MODELEXPORT_CACHE := $(CACHE)
export YOLO_OFFLINE := true

.DEFAULT_GOAL := help
.PHONY: help install tools gitops-tools demo test test-unit test-security fuzz test-release test-converter test-integration test-faults faults test-e2e lint fmt lock generate docs sbom sbom-images cluster cluster-demo cluster-down bench matrix arm64 checkpoints clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

$(BIN)/uv:
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt

# .venv holds the packages of one lock: all, or those that tests/unit needs, which are a part of all.
$(DEV): LOCKED := dev
$(UNIT): LOCKED := unit
$(DEV) $(UNIT): | $(BIN)/uv
	@echo "Installing the packages of requirements/$(LOCKED).txt into .venv"
	@rm -f $(filter-out $(DEV),$(wildcard .venv/*.installed))
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/$(LOCKED).txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@touch $@

install: $(DEV) ## Install the locked Python packages into .venv (about 7 GB; seconds when they are cached)

demo: install ## Export the trained YOLOv8 detector of the repository to all nine targets, without a cluster
	@install -D -m 644 testdata/models/weights/yolov8n.pt modelexport-store/checkpoints/shapes/yolov8n.pt
	@install -D -m 644 testdata/models/data/calibration.zip modelexport-store/datasets/shapes/calibration.zip
	$(BIN)/modelexport run examples/yolov8.yaml

test: lint test-unit test-security test-release test-converter test-integration test-faults test-e2e ## Run everything: what CI runs

test-unit: $(or $(wildcard $(DEV)),$(UNIT)) ## Run the tests that need neither torch nor a cluster nor root; installs 220 MB if .venv is empty
	$(PYTEST) -n 2 --dist loadgroup tests/unit

test-security: install ## Try hostile programs, pickles, archives, images, URIs, YAML, messages and objects
	$(PYTEST) -n 2 --dist loadgroup tests/security

fuzz: install ## Fuzz the readers of what strangers write, for SECONDS (60) in total; KEEP=1 writes the corpus anew
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --only-binary :all: --require-hashes -r requirements/fuzz.txt
	OMP_NUM_THREADS=1 PYTHONPATH=tests:hack:testdata:examples $(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(if $(KEEP),--keep) $(ONLY)

tools: install ## Build Kubernetes, etcd, MinIO, versitygw and what else the tests run on, once
	@$(CLUSTER) tools

test-release: tools ## Test what is shipped beside the images: the Helm chart and the bills of materials
	$(PYTEST) tests/release

gitops-tools: tools ## Build Argo CD, kstatus and Kueue, which only some tests run, once
	@$(CLUSTER) gitops

# torch frees and takes hundreds of MiB in every run of a model. What glibc gives back to the system comes with a page
# fault for each 4 KiB, which was half of the time of the largest tests: it keeps everything.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592

test-converter: tools ## Test the converter, with the accuracy of representative cells, or with ALL=1 of every cell
	$(KEEP_MEMORY) $(PYTEST) -n 2 --dist loadgroup $(if $(ALL),--all-cells) tests/converter

test-integration: gitops-tools ## Run the operator against a real API server
	$(PYTEST) -n 3 --dist loadgroup tests/integration

test-faults: tools ## Let the operator meet faults of the API server, of clocks, of the store and of itself, with few exports
	$(PYTEST) -n 3 tests/faults

faults: tools ## Let the operator meet every fault (or ONLY=killed) at full size, in 75 minutes, and write docs/faults.md
	$(PYTEST) --long $(if $(ONLY),-k "$(ONLY)") tests/faults

test-e2e: $(if $(KUBECONFIG),install,gitops-tools) ## Run the whole product on the real test cluster, or on the cluster of KUBECONFIG
	MODELEXPORT_E2E_KUBECONFIG=$(KUBECONFIG) $(PYTEST) tests/e2e

lint: install ## Check style, types, layers and generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=hack:testdata $(BIN)/lint-imports
	$(BIN)/python hack/check_words.py
	$(BIN)/python -m modelexport.crds.render --check
	$(BIN)/python -m modelexport_operator.metrics.render --check

fmt: install ## Format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11
LOCK_CONVERTER := $(LOCK) --extra converter --constraint requirements/dev.txt --override -

# The container that opens untrusted files has no client of Kubernetes, and no completion of a command line. ExecuTorch
# asks for the other two, and what we use of it does without.
ABSENT := printf "%s; sys_platform == 'never'\n" hypothesis kubernetes scikit-learn shtab
lock: install ## Resolve the dependencies again and write requirements/
	$(LOCK) --extra operator --extra converter --extra ultralytics --group dev -o requirements/dev.txt
	$(LOCK) --extra operator --group unit --constraint requirements/dev.txt -o requirements/unit.txt
	$(LOCK) --extra operator --constraint requirements/dev.txt -o requirements/operator.txt
	$(ABSENT) | $(LOCK_CONVERTER) -o requirements/converter.txt
	$(ABSENT) | $(LOCK_CONVERTER) --python-platform aarch64-manylinux_2_28 --only-binary :all: -o requirements/converter-arm64.txt
	echo atheris | $(subst pyproject.toml,-,$(LOCK)) -o requirements/fuzz.txt
	printf '%s\n' furo myst-parser sphinx | $(subst pyproject.toml,-,$(LOCK)) --constraint requirements/dev.txt -o requirements/docs.txt
	sed -n '/^uv==/,/^[a-tv-z]/{/^uv==/p;/^  /p}' requirements/dev.txt | sed '$$ s/ \\$$//' > requirements/bootstrap.txt

generate: install ## Write the generated files again
	$(BIN)/python -m modelexport.crds.render
	$(BIN)/python -m modelexport_operator.metrics.render

docs: install ## Build the documentation as a site in build/site; every warning is an error
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/docs.txt
	$(BIN)/python -m sphinx --fail-on-warning --fresh-env --quiet -c docs . build/site
	@cp build/site/README.html build/site/index.html

SBOM := $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible

sbom: install ## Write a CycloneDX SBOM of the locked Python packages of each image into build/sbom
	@mkdir -p build/sbom
	$(SBOM) requirements/operator.txt --output-file build/sbom/modelexport-operator.cdx.json
	$(SBOM) requirements/converter.txt --output-file build/sbom/modelexport-converter.cdx.json
	$(SBOM) requirements/converter-arm64.txt --output-file build/sbom/modelexport-converter-arm64.cdx.json

sbom-images: tools ## Build the images and write the SBOM of each into build/sbom
	$(CLUSTER) sbom

cluster: tools ## Bring up the test cluster
	$(CLUSTER) up

cluster-demo: cluster ## Install the operator on the test cluster and export the demo model there
	$(CLUSTER) demo

cluster-down: install ## End the test cluster and leave nothing behind
	$(CLUSTER) down

bench: install ## Measure every cell and the operator, and write docs/benchmarks.md
	PYTHONPATH=hack:testdata:examples $(BIN)/python -m benchmarks.run

matrix: install ## Measure what lacks numbers of these sources (ONLY="INT8 'FCN ONNX'", PART=trained, AGAIN=1 to repeat)
	PYTHONPATH=hack:testdata:examples $(BIN)/python -m benchmarks.matrix \
		$(if $(ONLY),--only $(ONLY)) $(if $(PART),--part $(PART)) $(if $(AGAIN),--again)

arm64: install ## Convert a model on an emulated arm64: 1 to 6 minutes a target (or TARGETS="ONNX/FP32"), 12 to install 5 GB once
	PYTHONPATH=hack:testdata:examples nice -n 19 $(BIN)/python -m arm64 $(TARGETS)

checkpoints: install ## Train with 21 releases of ultralytics (or ONLY="8.2.48") and write testdata/models/releases
	PYTHONPATH=testdata:examples $(BIN)/python -m models.make_checkpoints $(ONLY)

clean: ## Remove what make made in this checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache modelexport-store build
