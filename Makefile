# Needs Python 3.11 or newer and make; everything else is installed into .venv from requirements-dev.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
PROFILE ?= demo
ENGINE ?= docker
IMAGE  ?= ai-energy-exporter:0.1.0

.DEFAULT_GOAL := help
.PHONY: help venv run demo doctor test test-gpu lint format golden bench accuracy soak docs rules dashboards manifests pictures stack image image-test lock dist clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(READY) ## Make the virtual environment

$(READY): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: install python3-venv, or set PYTHON=" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: $(READY) ## Start the exporter on http://127.0.0.1:9400 (flags: ARGS="--sample.interval 2s")
	@$(BIN)/python -m exporter $(ARGS)

demo: $(READY) ## The same on a simulated GPU node
	@$(BIN)/python -m exporter --demo $(ARGS)

doctor: $(READY) ## Which meters work on this machine, and how to mend those that do not
	@$(BIN)/python -m exporter doctor $(ARGS)

test: $(READY) ## Run the tests
	$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests)

test-gpu: $(READY) ## Measure a real NVIDIA card: sensors, attribution, slowdown; record what its driver says
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

lint: $(READY) ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(READY) ## Put the code into its one format
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

golden: $(READY) ## Write the expected scrapes of the recorded machines anew; review the difference
	$(BIN)/python -m pytest tests/hosts --update-golden

bench: $(READY) ## Measure the cost of ticks and scrapes
	$(BIN)/python -m benchmarks $(ARGS)

accuracy: $(READY) ## Measure how truly joules are divided
	$(BIN)/python -m benchmarks.accuracy $(ARGS)

soak: $(READY) ## Let it run for an hour while everything comes, goes and fails (other lengths: ARGS=SECONDS)
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(READY) ## Write docs/metrics.md and docs/configuration.md anew
	$(BIN)/python -m exporter.exposition.metrics.reference > docs/metrics.md
	$(BIN)/python -m exporter.config.reference > docs/configuration.md

rules: $(READY) ## Write the rules of the energy budgets anew, and check all rules
	$(BIN)/python -m exporter budgets prometheus/budgets.yaml --output prometheus/rules/budgets.yml
	promtool check config prometheus/prometheus.yml
	promtool test rules prometheus/tests/*.yml
	amtool check-config prometheus/alertmanager.yml

dashboards: $(READY) ## Write grafana/dashboards anew from grafana/generate
	$(BIN)/python -m grafana.generate

manifests: $(READY) ## Write the dashboards and rules in deploy/kubernetes anew from grafana/ and prometheus/
	$(BIN)/python -m deploy.kubernetes.generate

pictures: $(READY) ## Draw docs/pictures from the dashboards and a simulated day (two minutes; needs prometheus, chromium)
	$(BIN)/python -m grafana.pictures $(ARGS)

stack: ## Start exporter, Prometheus, Alertmanager and Grafana in containers (PROFILE=host: this machine, not a demo)
	docker compose --file deploy/compose/compose.yaml --profile $(PROFILE) up --build --detach --wait
	@echo "Grafana: http://localhost:3000   Prometheus: http://localhost:9090   Alertmanager: http://localhost:9093"

image: ## Build the container image with docker (BASE=… for another base, ENGINE=podman for another builder)
	$(ENGINE) build $(if $(BASE),--build-arg BASE=$(BASE)) --tag $(IMAGE) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

image-test: $(READY) ## Build the image with buildah on a base of Debian's packages, and test it (takes root)
	$(BIN)/python -m pytest tests/image $(ARGS)

lock: $(READY) ## Resolve the dependencies anew: requirements-dev.lock, and of these requirements.lock for the image
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --group dev pyproject.toml --custom-compile-command "make lock" --output-file requirements-dev.lock
	$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --extra auth --extra kubernetes --constraint requirements-dev.lock pyproject.toml \
	  --custom-compile-command "make lock" --output-file requirements.lock

dist: $(READY) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m hatchling build -d dist

clean: ## Remove everything that was made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
