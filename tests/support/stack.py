"""A real Prometheus with the shipped configuration, made fast, over a simulated node and its model servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.patience import patience, wait_for
from tests.support.program import free_port
from tests.support.repository import DEMO_BUDGETS, REPOSITORY

NODE, CLUSTER = "demo-node", "demo"


class Server:
    """Where a Prometheus listens, and how it is asked."""

    def __init__(self, url: str) -> None:
        self.url = url

    def is_ready(self) -> bool:
        """Whether it answers queries: until then it says 503."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=patience()):
                return True
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; raises OSError if there is none."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=patience()) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Series of an instant query."""
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found

    def course(self, expr: str, seconds: float = 10.0) -> list[dict[str, Any]]:
        """Series of a range query that ends now."""
        now = time.time()
        found: list[dict[str, Any]] = self.ask(
            "query_range", query=expr, start=str(now - seconds), end=str(now), step="1"
        )["result"]
        return found


def configuration(folder: Path, exporter: int, servers: int) -> Path:
    """The shipped configuration, with intervals and delays of seconds and the targets of this test."""
    shipped = REPOSITORY / "prometheus"
    shutil.copytree(shipped / "rules", folder / "rules")
    shutil.copy(DEMO_BUDGETS, folder / "rules")
    (folder / "targets").mkdir()
    for rules in (folder / "rules").glob("*.yml"):
        text = rules.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^( +(?:interval|for): )\w+$", r"\g<1>2s", text)
        # or watts are too low for five minutes
        text = text.replace("[5m]", "[15s]").replace(" / 300", " / 15")
        for slow, fast in (
            ("[2m]", "[2s]"),
            (":rate5m[1h]", ":rate5m[20s]"),  # or means are of the first seconds too, in which rates grow
            ("offset 30s", "offset 1s"),
            ("offset 330s", "offset 16s"),
            ("offset 270s", "offset 3s"),
        ):
            text = text.replace(slow, fast)
        rules.write_text(text, encoding="utf-8")
    text = (shipped / "prometheus.yml").read_text(encoding="utf-8")
    text = re.sub(r"scrape_interval: 15s", "scrape_interval: 1s", text)
    text = re.sub(r"evaluation_interval: 1m", "evaluation_interval: 2s", text)
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    targets = {
        "exporters": [{"targets": [f"127.0.0.1:{exporter}"], "labels": {"node": NODE, "cluster": CLUSTER}}],
        "model-servers": [{"targets": [f"127.0.0.1:{servers}"], "labels": {"cluster": CLUSTER}}],
        "alertmanagers": [],
    }
    for name, content in targets.items():
        (folder / "targets" / f"{name}.yml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "prometheus.yml"


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Exporter, model servers and Prometheus; ends what it started."""
    exporter, servers, port = free_port(), free_port(), free_port()
    config = configuration(folder, exporter, servers)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AI_ENERGY_")}
    listen = f"127.0.0.1:{exporter}"
    commands = [
        [sys.executable, "-m", "exporter", "--demo", "--web.listen-address", listen, "--sample.interval", "500ms"],
        [sys.executable, "-m", "exporter.sources.demo.servers", f"127.0.0.1:{servers}"],
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    ]
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log) for command in commands
        ]
        try:
            server = Server(f"http://127.0.0.1:{port}")
            wait_for(server.is_ready, "Prometheus", 60.0)
            yield server
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(patience())
