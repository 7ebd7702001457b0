"""A real Prometheus and Alertmanager with the shipped configuration, an exporter with --demo, and model servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.support import patience
from tests.support.prerequisites import lacking
from tests.support.program import free_port
from tests.support.repository import DEMO_BUDGETS, REPOSITORY, RULE_FILES

T = TypeVar("T")

SHIPPED = REPOSITORY / "prometheus"

FASTER = 60
"""Minutes of the shipped configuration become seconds; nothing else of it is changed."""

UNKNOWN, COUNTED = "/unknown", "/counted"

MOST_PENDING_SECONDS = 3.0
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+)(ms|[smhdw])")
_RANGE = re.compile(r"(\[|offset )((?:\d+(?:ms|[smhdw]))+)")


def faster(duration: str, most: float = float("inf")) -> str:
    """A duration a sixtieth as long, at most so many seconds."""
    seconds = sum(int(amount) * _SECONDS[unit] for amount, unit in _PART.findall(duration)) / FASTER
    return f"{max(1, round(min(seconds, most) * 1000))}ms"


def faster_rules(text: str) -> str:
    """A rule file whose intervals, ranges and offsets are a sixtieth as long."""
    content = yaml.safe_load(text)
    for group in content["groups"]:
        group["interval"] = faster(group["interval"])
        for rule in group["rules"]:
            expression = _RANGE.sub(lambda match: match[1] + faster(match[2]), rule["expr"])
            for seconds in (300, 600):  # those of a window
                expression = expression.replace(f"/ {seconds}", f"/ {seconds / FASTER:g}")
            rule["expr"] = expression
            for delay in {"for", "keep_firing_for"} & set(rule):
                rule[delay] = faster(rule[delay], MOST_PENDING_SECONDS)
    return yaml.safe_dump(content, sort_keys=False)


def get(url: str) -> Any:
    """JSON of a page."""
    with urllib.request.urlopen(url, timeout=patience.patience()) as answer:
        return json.load(answer)


def wait_for(ask: Callable[[], T], what: str) -> T:
    """Ask until the answer is not empty."""

    def answer() -> T | None:
        try:
            return ask()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    found = patience.wait_for(answer, what, 45.0)
    assert found is not None
    return found


Samples = list[tuple[dict[str, str], float]]


@dataclass(frozen=True)
class Stack:
    """Where everything listens."""

    prometheus: str
    alertmanager: str
    store: str
    """A second Prometheus, which receives what the first one sends away."""

    def query(self, expression: str) -> Samples:
        """Labels and values of an instant vector; an error of PromQL fails the test."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            result = get(f"{self.prometheus}/api/v1/query?{query}")["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # not ready yet
                raise
            with error:
                raise AssertionError(error.read().decode()) from None
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def wait_for(self, expression: str) -> Samples:
        """Ask until there is an answer."""
        return wait_for(lambda: self.query(expression), f"answer to {expression}")

    def rules(self, kind: str) -> list[dict[str, Any]]:
        """The rules that Prometheus has loaded, with their health: ``record`` or ``alert``."""
        groups = get(f"{self.prometheus}/api/v1/rules?type={kind}")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """What reached the Alertmanager."""
        return list(get(f"{self.alertmanager}/api/v2/alerts"))

    def alert(self, labels: dict[str, str]) -> dict[str, Any]:
        """The alert with exactly these labels, once it has arrived."""
        return wait_for(lambda: [one for one in self.alerts() if one["labels"] == labels], f"alert {labels}")[0]

    def tell(self, *alerts: dict[str, str]) -> None:
        """Alerts by their labels, as another Prometheus would send them to the Alertmanager."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(
            f"{self.alertmanager}/api/v2/alerts", data=body, headers={"Content-Type": "application/json"}
        )

        def sent() -> bool:
            with urllib.request.urlopen(request, timeout=patience.patience()) as answer:
                return bool(answer.status == 200)

        wait_for(sent, "Alertmanager")


def other_servers(began: float) -> str:
    """What Triton, TensorRT-LLM, Ray Serve, llama.cpp, a prefill server and a GPU program of no model would expose."""
    seconds = time.monotonic() - began
    rows = {
        'nv_inference_request_success{model="resnet",version="1"}': 80,
        'trtllm_generation_tokens_total{model_name="org/trt",engine_type="trtllm"}': 50,
        'trtllm_prompt_tokens_total{model_name="org/trt",engine_type="trtllm"}': 150,
        'trtllm_request_success_total{model_name="org/trt",engine_type="trtllm"}': 1,
        'ray_vllm_generation_tokens_total{model_name="org/ray",WorkerId="1"}': 60,
        'ray_serve_deployment_request_counter_total{application="tts",deployment="Model",replica="1"}': 2,
        'sglang:num_requests_total{model_name="org/pd",engine_type="prefill"}': 2,
        'energy_container_joules_total{container="workers",component="gpu",mode="active"}': 300,  # of no model
        "llamacpp:prompt_tokens_total": 30,
    }
    moving = {name: rate * seconds for name, rate in rows.items()}
    six_digits = {"llamacpp:tokens_predicted_total": 1.23457e7 + 100 * (seconds // 7)}
    return "".join(f"{name} {value:.6f}\n" for name, value in {**moving, **six_digits}.items())


def counted_server(began: float) -> str:
    """A prefill server, and what the exporter of its node publishes of it."""
    seconds = time.monotonic() - began
    model = 'model_name="org/own"'
    rows = {
        f"vllm:generation_tokens_total{{{model}}}": 10,
        f'energy_container_tokens_total{{{model},container="vllm",kind="output"}}': 10,
        f'energy_model_tokens_total{{{model},kind="output"}}': 10,
        f'energy_model_tokens_total{{{model},kind="prompt"}}': 900,
        f"energy_model_requests_total{{{model}}}": 10,
    }
    info = f'energy_container_info{{{model},container="vllm",label_llm_d_ai_role="prefill"}} 1\n'
    return info + "".join(f"{name} {rate * seconds:.6f}\n" for name, rate in rows.items())


def unknown_server(began: float) -> str:
    """A server whose model the exporter does not know, alone in its pod."""
    seconds = time.monotonic() - began
    return f'vllm:generation_tokens_total{{model_name="org/unknown",engine="0"}} {40 * seconds:.6f}\n'


class _Handler(BaseHTTPRequestHandler):
    began = time.monotonic()

    def do_GET(self) -> None:
        pages = {UNKNOWN: unknown_server, COUNTED: counted_server}
        body = pages.get(self.path, other_servers)(self.began).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not on stderr."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything started; skipped where Debian's packages are missing."""
    programs = ("prometheus", "prometheus-alertmanager")
    if reason := lacking(*programs):
        pytest.skip(reason)
    prometheus, alertmanager = programs
    folder = tmp_path_factory.mktemp("stack")
    ports = {name: free_port() for name in ("prometheus", "alertmanager", "exporter", "servers", "store")}
    others = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=others.serve_forever, daemon=True).start()
    _configure(folder, ports, others.server_address[1])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AI_ENERGY_")}

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    python, listen = sys.executable, f"127.0.0.1:{ports['exporter']}"
    processes = [
        start(python, "-m", "exporter", "--demo", "--web.listen-address", listen, "--sample.interval", "200ms"),
        start(python, "-m", "exporter.sources.demo.servers", f"127.0.0.1:{ports['servers']}"),
        start(
            alertmanager,
            f"--config.file={SHIPPED}/alertmanager.yml",
            f"--storage.path={folder}/alertmanager",
            f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
            "--cluster.listen-address=",
        ),
        start(
            prometheus,
            f"--config.file={folder}/store.yml",
            f"--storage.tsdb.path={folder}/store",
            f"--web.listen-address=127.0.0.1:{ports['store']}",
            "--web.enable-remote-write-receiver",
        ),
        start(
            prometheus,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
        ),
    ]
    try:
        yield Stack(*(f"http://127.0.0.1:{ports[name]}" for name in ("prometheus", "alertmanager", "store")))
    finally:
        for process in reversed(processes):  # the sender before the store, or it waits for that to return
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience.patience())
            process.kill()
            process.wait()
        others.shutdown()
        others.server_close()


def _counter_example(job: dict[str, Any], name: str, *, honor_labels: bool) -> dict[str, Any]:
    """The same job without its care for labels, its metrics called otherwise, so that no rule sees them."""
    return {
        "job_name": name,
        "honor_labels": honor_labels,
        "file_sd_configs": job["file_sd_configs"],
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": "energy_(node|container)_joules_total", "action": "keep"},
            {"source_labels": ["__name__"], "target_label": "__name__", "regex": "(.+)", "replacement": f"{name}_$1"},
        ],
    }


def _configure(folder: Path, ports: dict[str, int], others: int) -> None:
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (energy,) = (job for job in config["scrape_configs"] if job["job_name"] == "energy")
    config["scrape_configs"] += [
        _counter_example(energy, "naive", honor_labels=False),
        _counter_example(energy, "undropped", honor_labels=True),
    ]
    (away,) = yaml.safe_load((SHIPPED / "remote-write.yml").read_text(encoding="utf-8"))["remote_write"]
    config["remote_write"] = [{**away, "url": f"http://127.0.0.1:{ports['store']}/api/v1/write"}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "store.yml").write_text("global: {}\n")
    for folder_name, paths in (("rules", RULE_FILES), ("budgets", [DEMO_BUDGETS])):
        (folder / folder_name).mkdir()
        for path in paths:
            (folder / folder_name / path.name).write_text(faster_rules(path.read_text(encoding="utf-8")))
    # The exporter runs in a pod of its own, whose labels its target has, as service discovery gives them; a second
    # exporter is down.
    own = {"namespace": "monitoring", "pod": "energy-x7x2p", "container": "exporter", "service": "energy"}
    pods = {"namespace": "team-nlp", "served_model": "llama3.2:3b"}
    targets = {
        "exporters": [
            {"targets": [f"127.0.0.1:{ports['exporter']}"], "labels": {"node": "demo-node", **own}},
            {"targets": [f"127.0.0.1:{free_port()}"], "labels": {"node": "lost-node", **own}},
        ],
        "alertmanagers": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}],
        "model-servers": [
            {"targets": [f"127.0.0.1:{ports['servers']}"]},
            {"targets": [f"127.0.0.1:{others}"], "labels": {"pod": "others-0", **pods}},
            {
                "targets": [f"127.0.0.1:{others}"],
                "labels": {"pod": "unknown-0", "namespace": "team-nlp", "__metrics_path__": UNKNOWN},
            },
            {
                "targets": [f"127.0.0.1:{others}"],
                "labels": {"pod": "prefill-0", "namespace": "team-pd", "__metrics_path__": COUNTED},
            },
        ],
    }
    (folder / "targets").mkdir()
    for name, content in targets.items():
        (folder / "targets" / f"{name}.yml").write_text(yaml.safe_dump(content))
