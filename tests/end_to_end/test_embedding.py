"""The example of docs/embedding.md, run as it is printed: what it writes and pushes is what was sampled."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.exposition.metrics.catalogue import CATALOGUE
from tests.support.patience import patience
from tests.support.program import ENVIRONMENT
from tests.support.repository import REPOSITORY

TEXTFILE, GATEWAY = "/var/lib/prometheus/node-exporter", "localhost:9091"


class Gateway(HTTPServer):
    """A Pushgateway that keeps what is pushed, by path."""

    def __init__(self) -> None:
        self.pushed: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Push)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Push(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        self.server.pushed[self.path] = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A running Pushgateway."""
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def samples(text: str) -> dict[str, float]:
    """Sum of each family's samples."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.mark.parametrize("settings", ["Settings()", "Settings(demo=True)"])
def test_the_example_writes_a_textfile_and_pushes_to_a_gateway(settings: str, gateway: Gateway, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/embedding.md").read_text(), re.DOTALL)
    for printed, used in ((TEXTFILE, str(tmp_path)), (GATEWAY, gateway.address), ("Settings()", settings)):
        assert example.count(printed) == 1
        example = example.replace(printed, used)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pushed = gateway.pushed["/metrics/job/energy/instance/node-1"]
    written = (tmp_path / "energy.prom").read_text(encoding="utf-8")
    assert samples(written) == samples(pushed)
    assert samples(pushed)["energy_samples_total"] == 2
    assert set(samples(pushed)) <= {family.name for family in CATALOGUE}
    assert f'demo="{str("demo" in settings).lower()}"' in pushed
