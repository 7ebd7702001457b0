"""What a run takes from the page of an exporter, and what it refuses."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from exporter.exposition.web.server import ServerOptions
from exporter.host import Host
from exporter.records import Unavailable
from exporter.runs.local_exporter import LocalExporter
from exporter.runs.own_cgroup import PREFIX
from tests.support.patience import patience
from tests.support.program import COMMAND, ENVIRONMENT
from tests.support.repository import REPOSITORY
from tests.support.served import LOCAL, Exporter

PAGE = """\
# TYPE energy_node_joules_total counter
energy_node_joules_total{component="cpu"} 1000.5
energy_node_joules_total{component="dram"} 50
energy_node_joules_total{component="other"} 700
energy_unattributed_joules_total{component="cpu",reason="idle"} 400
energy_unattributed_joules_total{component="cpu",reason="gap"} 100
energy_unattributed_joules_total{component="cpu",reason="kernel"} 7
energy_power_source_info{component="cpu",device="package-0",source="rapl",quality="measured",method="energy_counter"} 1
energy_power_source_info{component="dram",device="dram-0",source="x",quality="estimated",method="energy_counter"} 1
energy_device_idle_watts{component="cpu",device="package-0",source="rapl"} 18.5
energy_sample_timestamp_seconds 1000
energy_sample_interval_seconds 1
energy_exporter_build_info{version="1",python_version="3",demo="false"} 1
something_else_total{text="energy_node_joules_total"} 3
"""


class Server:
    """Answers every request with a status and a page."""

    def __init__(self) -> None:
        self.status, self.page = 200, PAGE
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(server.status)
                self.end_headers()
                self.wfile.write(server.body().encode())

            def log_message(self, *_: object) -> None: ...

        self._http = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def body(self) -> str:
        """What is answered."""
        return self.page

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Sampling(Server):
    """Samples each second, has no meter, and notes what it said last, and whether a run had a cgroup then."""

    sampled_at = 0.0
    last_had_a_cgroup = False

    def body(self) -> str:
        self.sampled_at = time.time() // 1.0
        self.last_had_a_cgroup = any(Path("/sys/fs/cgroup").rglob(f"{PREFIX}awaited.*"))
        return PAGE.replace("seconds 1000", f"seconds {self.sampled_at}").replace("measured", "estimated")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def test_joules_that_workloads_owe_are_a_meter(server: Server) -> None:
    exporter = LocalExporter(server.url, Host(wall=lambda: 1000.25))
    page = exporter.ask()
    assert (page.quality("cpu"), page.quality("dram"), page.quality("gpu")) == ("measured", "estimated", "")
    assert page.idle_watts == {"package-0": 18.5}
    cpu, dram = exporter.read(77.0).meters
    assert (cpu.device.component, cpu.device.quality, cpu.at) == ("cpu", "measured", 76.75)
    assert cpu.joules == 1000.5 - 400 - 100  # type: ignore[union-attr]
    assert (dram.device.component, dram.device.quality) == ("dram", "estimated")


@pytest.mark.parametrize(
    ("status", "page", "reason"),
    [
        (200, "node_cpu_seconds_total 1\n", "is no page of this exporter"),
        (200, PAGE.replace("} 1000.5", "} many"), "many"),
        (401, "", "status 401"),
        (503, "", "status 503"),
    ],
)
def test_what_is_no_page_is_refused(server: Server, status: int, page: str, reason: str) -> None:
    server.status, server.page = status, page
    with pytest.raises(Unavailable, match=reason):
        LocalExporter(server.url, Host()).ask()


@pytest.mark.parametrize("seconds", [5.0, 30.0])
@pytest.mark.parametrize("regular", [False, True])
def test_a_run_is_no_scraper_that_new_counters_wait_for(regular: bool, seconds: float) -> None:
    """It follows an exporter that samples rarely, or there is one run after the other: that looks like scraping."""
    exporter = Exporter(ServerOptions(LOCAL))
    try:
        for _ in range(3):
            exporter.now += seconds
            if regular:
                exporter.get()
            with pytest.raises(Unavailable, match="503"):  # there is no sample yet
                LocalExporter(f"127.0.0.1:{exporter.port}", Host()).ask()
        assert exporter.scrapes.received_by_all(exporter.now) == (0 if regular else None)
    finally:
        exporter.server.stop()


def test_without_factors_there_are_none(server: Server) -> None:
    server.status = 404
    assert LocalExporter(server.url, Host()).factors() is None
    server.status, server.page = 200, '{"intensity": "much"}'
    with pytest.raises(Unavailable, match="no plausible intensity"):
        LocalExporter(server.url, Host()).factors()


def test_a_run_keeps_its_cgroup_until_the_exporter_has_sampled_once_more(tmp_path: Path) -> None:
    """Else the exporter finds it removed, and what it used last is that of the cgroup above."""
    server = Sampling()
    try:
        words = ["run", "--exporter.url", server.url, "--name", "awaited", "--json", str(tmp_path / "run.json"), "--"]
        command = [*COMMAND, *words, "true"]
        done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, timeout=patience(), check=False)
    finally:
        server.stop()
    assert done.returncode == 0
    written = json.loads((tmp_path / "run.json").read_text())
    if written["cpu_seconds_method"] != "cgroup":
        pytest.skip("no cgroup can be made here")
    assert server.sampled_at >= datetime.fromisoformat(written["ended"]).timestamp()
    assert server.last_had_a_cgroup
    assert not any(Path("/sys/fs/cgroup").rglob(f"{PREFIX}awaited.*"))
