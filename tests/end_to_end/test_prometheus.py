"""A real Prometheus scrapes the exporter, and what it stored adds up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import patience
from tests.support.needs import needs
from tests.support.program import free_port
from tests.support.repository import REPOSITORY

pytestmark = needs("prometheus")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Prometheus that scrapes the simulated node every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    exporter_port, port = free_port(), free_port()
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "energy",
                        "honor_labels": True,
                        "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
                    }
                ],
            }
        )
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AI_ENERGY_")}
    listen = f"127.0.0.1:{exporter_port}"
    exporter = subprocess.Popen(
        [sys.executable, "-m", "exporter", "--demo", "--web.listen-address", listen, "--sample.interval", "200ms"],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    server = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    for process in (server, exporter):
        process.terminate()
        process.wait(patience.patience())


def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    answer = urllib.request.urlopen(
        f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=patience.patience()
    )
    with answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return [(sample["metric"], float(sample["value"][1])) for sample in result]


def wait_for(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Ask until there is an answer."""

    def ask() -> list[tuple[dict[str, str], float]]:
        try:
            return query(url, expression)
        except (urllib.error.URLError, ConnectionError):
            return []

    return patience.wait_for(ask, f"an answer to {expression}", 40.0)


def test_target_is_healthy_and_every_sample_is_taken(prometheus: str) -> None:
    assert wait_for(prometheus, 'up{job="energy"} == 1')
    ((_, scraped),) = wait_for(prometheus, "scrape_samples_scraped > 100")
    ((_, kept),) = wait_for(prometheus, "scrape_samples_post_metric_relabeling > 100")
    assert scraped == kept


def test_devices_are_containers_and_unattributed_and_retired(prometheus: str) -> None:
    """The promise, in PromQL, over what Prometheus stored."""
    attributed = " + on (component) ".join(
        [
            "sum by (component) (energy_container_joules_total or 0 * energy_node_joules_total)",
            "sum by (component) (energy_unattributed_joules_total or 0 * energy_node_joules_total)",
            "energy_retired_joules_total",
        ]
    )
    differences = wait_for(prometheus, f"abs(({attributed}) / on (component) (energy_node_joules_total > 0) - 1)")
    assert {labels["component"] for labels, _ in differences} == {"cpu", "dram", "gpu", "other"}
    assert max(value for _, value in differences) < 1e-9


def test_rate_of_joules_is_the_power(prometheus: str) -> None:
    wait_for(prometheus, "count_over_time(energy_node_power_watts[10s]) > 8")
    ratios = wait_for(prometheus, "rate(energy_node_joules_total[10s]) / avg_over_time(energy_node_power_watts[10s])")
    for labels, ratio in ratios:
        assert ratio == pytest.approx(1.0, abs=0.25), labels


@pytest.mark.parametrize(
    "block", re.findall(r"`(sum by [^`]+)`", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
)
def test_queries_of_the_readme_answer(prometheus: str, block: str) -> None:
    assert wait_for(prometheus, block)
