# Needs Python 3.11 or newer with its venv module, and make. What runs is installed into .venv from requirements.lock;
# the targets for developers add requirements-dev.lock, and `make test` the Debian packages that the suite needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
RUN    := $(VENV)/.ready-run
DEV    := $(VENV)/.ready-dev
BUILD  := $(CURDIR)/$(VENV)/build
NEEDS  := $(PYTHON) -m tests.support.prerequisites
COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(ARGS)
ARGS   ?=
HISTORY ?= $(or $(XDG_STATE_HOME),$(HOME)/.local/state)/ai-energy-exporter
RENDER  := grafana/render
PROFILE ?= demo
ENGINE ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' exporter/__init__.py)
IMAGE  ?= ai-energy-exporter:$(VERSION)
IMAGE_ARCHIVE = dist/ai-energy-exporter-$(VERSION)-image-$(shell uname -m).tar

.DEFAULT_GOAL := help
.PHONY: help venv run report demo once doctor test bare-test test-gpu lint format golden bench accuracy runtimes-check cluster-check launchers-check serving-check regions-check advise-check soak docs rules scale-rules scale-check prometheus-check kepler-check status-check alert-links dashboards manifests chart-check pictures grafana-check stack image image-test image-archive lock release release-check dist clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(DEV) ## Make the virtual environment of developers

$(RUN): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: install python3-venv, or set PYTHON=" >&2; exit 1; }
	@$(PIP) install --require-hashes --requirement requirements.lock
	@rm -rf $(BUILD)
	@$(PIP) install --require-hashes --requirement requirements-build.lock --target $(BUILD)
	@PYTHONPATH=$(BUILD) $(PIP) install --no-deps --no-build-isolation --editable .
	@rm -rf $(BUILD)
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

run: $(RUN) ## Start the exporter on http://127.0.0.1:9400 (flags: ARGS="--sample.interval 2s"); `make report` reads it back
	@mkdir -p "$(HISTORY)" 2>/dev/null || true
	@$(BIN)/ai-energy-exporter --history.file "$(HISTORY)/history.db" $(ARGS)

report: $(RUN) ## What models used since `make run` was started first, or what Prometheus has (ARGS="--since 24h --by workload")
	@$(BIN)/ai-energy-exporter report $(ARGS)

demo: $(RUN) ## The same on a simulated GPU node
	@$(BIN)/ai-energy-exporter --demo $(ARGS)

once: $(RUN) ## Measure once and print the metrics
	@$(BIN)/ai-energy-exporter --once $(ARGS)

doctor: $(RUN) ## Which meters work on this machine, and how to mend those that do not
	@$(BIN)/ai-energy-exporter doctor $(ARGS)

test: ## Install what the tests need (.venv, Debian packages) and run them
	@$(NEEDS) install $@
	@$(MAKE) --no-print-directory $(DEV)
	$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests)

bare-test: ## Run the tests of HEAD on a bare Debian made for them (takes root)
	@$(NEEDS) install $@
	$(PYTHON) -m tests.support.bare_machine $(or $(ARGS),make test)

test-gpu: $(DEV) ## Measure a real NVIDIA card: sensors, attribution, slowdown; record what its driver says
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

status-check: $(DEV) ## Look at the status page in Chromium: axe, widths, keyboard, no script (needs Node.js 20, npm)
	@$(NEEDS) install $@
	@npm ci --prefix tests/browser --no-audit --no-fund --silent
	$(BIN)/python -m tests.browser $(ARGS)

lint: $(DEV) ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(DEV) ## Put the code into its one format
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

golden: $(DEV) ## Rewrite the expected scrapes of the recorded machines; review the difference
	$(BIN)/python -m pytest tests/hosts --update-golden

bench: $(DEV) ## Measure the cost of ticks and scrapes
	$(BIN)/python -m benchmarks $(ARGS)

runtimes-check: $(DEV) ## Start real runtimes (Docker, Podman, LXC, Slurm, ...; those installed), compare their rows (takes root)
	$(BIN)/python -m tests.runtimes.check $(ARGS)

cluster-check: $(DEV) ## Build a Kubernetes node with Go; deploy, break, upgrade, remove there (takes root; ARGS="--folder DIR")
	@$(NEEDS) install $@
	$(BIN)/python -m tests.cluster.check $(ARGS)

launchers-check: $(DEV) ## Start real model servers and trainers from PyPI and compare their names (takes root; ARGS="--folder DIR NAME")
	$(BIN)/python -m tests.launchers.check $(ARGS)

serving-check: $(DEV) ## Start real model servers from PyPI; compare tokens with their clients' (ARGS="--folder DIR NAME")
	@$(NEEDS) install $@
	$(BIN)/python -m tests.serving.check $(ARGS)

regions-check: $(DEV) ## Train with a real PyTorch on the CPU; compare joules of its layers with its process's (ARGS="--python PATH")
	@$(NEEDS) install $@
	$(BIN)/python -m tests.regions.check $(ARGS)

accuracy: $(DEV) ## Measure how truly joules are divided
	$(BIN)/python -m benchmarks.accuracy $(ARGS)

advise-check: $(DEV) ## Plant waste into fifty synthetic fleets, and a real Prometheus; see what advise finds
	@$(NEEDS) install $@
	$(BIN)/python -m benchmarks.advise --engine $(ARGS)

soak: $(DEV) ## Let it run for an hour while everything comes, goes and fails (other lengths: ARGS=SECONDS)
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(DEV) ## Write docs/metrics.md, docs/configuration.md, the levers of docs/advise.md and the chart's schema anew
	$(BIN)/python -m exporter.exposition.metrics.reference > docs/metrics.md
	$(BIN)/python -m exporter.config.reference > docs/configuration.md
	$(BIN)/python -m deploy.helm.schema
	$(BIN)/python -m exporter.analysis.levers.reference docs/advise.md

rules: $(DEV) ## Write the rules of the demonstration's budgets and of fleets anew, and check all rules
	$(BIN)/python -m exporter budgets prometheus/demo/budgets.yaml --output prometheus/demo/budgets.yml
	@$(MAKE) --no-print-directory scale-rules
	$(NEEDS) run promtool check config prometheus/prometheus.yml
	$(NEEDS) run promtool test rules prometheus/tests/*.yml prometheus/scale/tests/*.yml
	$(NEEDS) run amtool check-config prometheus/alertmanager.yml

scale-rules: $(DEV) ## Generate the rules of shards and of a whole fleet from prometheus/rules
	$(BIN)/python -m deploy.scale

scale-check: $(DEV) ## Ask Prometheus and VictoriaMetrics every rule and query on the same data (ARGS="--data FOLDER")
	@$(NEEDS) install $@
	$(BIN)/python -m benchmarks.scale_check $(ARGS)

prometheus-check: $(DEV) ## Build Prometheus 3 with Go; run rules, tests and all queries on it (ARGS=--tests-only)
	@$(NEEDS) install scale-check
	$(BIN)/python -m tests.prometheus.check $(ARGS)

kepler-check: $(DEV) ## Run Kepler beside the exporter on the same workers and meter (takes root; ARGS="--kepler PROGRAM")
	$(BIN)/python -m benchmarks.kepler $(ARGS)

alert-links: $(DEV) ## Rules with absolute links, in dist/rules: make alert-links RUNBOOKS=https://... GRAFANA=https://...
	$(BIN)/python -m deploy.alert_links --runbooks '$(RUNBOOKS)' --grafana '$(GRAFANA)' --output dist/rules

dashboards: $(DEV) ## Generate grafana/dashboards from grafana/generate
	$(BIN)/python -m grafana.generate $(ARGS)

manifests: $(DEV) ## Generate the dashboards and rules in deploy/kubernetes from grafana/ and prometheus/
	$(BIN)/python -m deploy.kubernetes.generate

chart-check: $(DEV) ## Render the Helm chart with a real helm, compare with kustomize (ARGS=--update-golden: record it)
	$(BIN)/python -m pytest tests/chart $(ARGS)

pictures: $(DEV) $(RENDER)/dist/main.js ## Take docs/pictures of the dashboards as Grafana's components draw them
	$(BIN)/python -m grafana.render pictures $(ARGS)

grafana-check: $(DEV) $(RENDER)/dist/main.js ## Render all dashboards in five states; find what is cut, too small, broken
	$(BIN)/python -m grafana.render check $(ARGS)

$(RENDER)/node_modules/.ready: $(RENDER)/package-lock.json
	@$(NEEDS) install grafana-check
	cd $(RENDER) && npm ci --legacy-peer-deps --ignore-scripts --no-audit --no-fund
	@touch $@

$(RENDER)/dist/main.js: $(RENDER)/node_modules/.ready $(RENDER)/build.mjs $(wildcard $(RENDER)/page/*)
	node $(RENDER)/build.mjs

stack: ## Start exporter, Prometheus, Alertmanager and Grafana in containers (PROFILE=host: this machine, not a demo)
	BUDGETS=../../prometheus/$(if $(filter demo,$(PROFILE)),demo,budgets) \
	  docker compose --file deploy/compose/compose.yaml --profile $(PROFILE) up --build --detach --wait
	@echo "Grafana: http://localhost:3000   Prometheus: http://localhost:9090   Alertmanager: http://localhost:9093"

image: ## Build the container image with docker (BASE=… for another base, ENGINE=podman for another builder)
	$(ENGINE) build $(if $(BASE),--build-arg BASE=$(BASE)) --tag $(IMAGE) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

image-test: ## Build the image with buildah on a base of Debian's packages, and test it (takes root)
	@$(NEEDS) install $@
	@$(MAKE) --no-print-directory $(DEV)
	$(BIN)/python -m pytest tests/image $(ARGS)

lock: $(RUN) ## Resolve the dependencies into the requirements files; pins that fit stay (ARGS=--upgrade: the newest)
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --group dev pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --extra analysis --extra auth --extra kubernetes --constraint requirements-dev.lock pyproject.toml \
	  --output-file requirements.lock
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements-build.lock

release: $(DEV) ## All files of a release in dist/: packages, chart, image, SBOM, checksums (ENGINE=none: no image)
	@$(NEEDS) install $@
	@mkdir -p dist && find dist -maxdepth 1 -type f -delete
	$(BIN)/python -m deploy.packages.release dist
	@$(if $(filter none,$(ENGINE)),echo "without the image: ENGINE=none",$(MAKE) --no-print-directory image image-archive)
	$(BIN)/python -m deploy.packages.release --sums dist

image-archive: ## Write the image that make image built to dist/, for docker load and podman load
	@mkdir -p dist
	$(if $(findstring buildah,$(ENGINE)),$(ENGINE) push $(IMAGE) docker-archive:$(IMAGE_ARCHIVE):$(IMAGE),$(ENGINE) save --output $(IMAGE_ARCHIVE) $(IMAGE))

release-check: ## Install, upgrade and remove the packages of dist/ in a bare Debian (takes root)
	@$(NEEDS) install $@
	@$(MAKE) --no-print-directory $(DEV)
	$(BIN)/python -m pytest tests/packages $(ARGS)

dist: $(DEV) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m hatchling build -d dist

clean: ## Remove everything that was made
	rm -rf $(VENV) dist build $(RENDER)/node_modules $(RENDER)/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
