"""The exporter as a collector in anybody's registry, and the registry of its own metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import Collector

from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import EnergyCollector, Instruments, exporter_registry
from exporter.snapshot import Snapshot

STAT = "7 (python) S" + " 0" * 10 + " 250 50 0 0 20 0 1 0 12000 4096000 700\n"
LIMITS = "Max open files            {}              524288               files\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with the files of one process, which started two minutes after boot and has three open files."""
    (tmp_path / "self/fd").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"self/fd/{number}").touch()
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")
    (tmp_path / "self/stat").write_text(STAT)
    (tmp_path / "self/limits").write_text(LIMITS.format(1024))
    return tmp_path


def names(registry: Collector) -> set[str]:
    return {sample.name for metric in registry.collect() for sample in metric.samples}


class TestEnergyCollector:
    def test_registering_does_not_collect(self, busy_node: Callable[..., Snapshot]) -> None:
        asked: list[None] = []

        def snapshot() -> Snapshot:
            asked.append(None)
            return busy_node()

        registry = CollectorRegistry(auto_describe=True)
        registry.register(EnergyCollector(snapshot))
        assert asked == []
        assert names(registry) == {family.name for family in CATALOGUE}
        assert len(asked) == 1

    def test_its_names_are_known_to_the_registry(self) -> None:
        registry = CollectorRegistry()
        registry.register(EnergyCollector(lambda: None))
        with pytest.raises(ValueError, match="energy_node_power_watts"):
            Gauge("energy_node_power_watts", "Another one.", registry=registry)

    def test_every_family_is_there_with_its_type_and_unit(self, busy_node: Callable[..., Snapshot]) -> None:
        metrics = {metric.name: metric for metric in EnergyCollector(busy_node).collect()}
        assert [metric.documentation for metric in metrics.values()] == [family.help for family in CATALOGUE]
        joules = metrics["energy_node_joules"]
        assert (joules.type, joules.unit) == ("counter", "joules")
        assert {sample.name for sample in joules.samples} == {"energy_node_joules_total"}

    def test_before_the_first_sample_there_is_nothing(self) -> None:
        assert list(EnergyCollector(lambda: None).collect()) == []


class TestOwnMetrics:
    def test_they_are_of_the_process_of_python_and_of_the_exporter(self) -> None:
        found = names(exporter_registry())
        assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= found
        assert {"python_info", "python_gc_collections_total"} <= found
        assert "energy_sample_duration_seconds_bucket" in found
        assert not {name for name in found if name.endswith("_created")}

    def test_each_registry_has_its_own(self) -> None:
        first, second = Instruments(), Instruments()
        first.http_requests.labels(200).inc()
        counted = [
            exporter_registry(one).get_sample_value("energy_http_requests_total", {"code": "200"})
            for one in (first, second)
        ]
        assert counted == [1, 0]

    def test_the_configuration_is_good_until_somebody_says_otherwise(self) -> None:
        instruments = Instruments()
        registry = exporter_registry(instruments)
        assert registry.get_sample_value("energy_config_last_reload_successful") == 1
        instruments.config_last_reload_successful.set_function(lambda: 0.0)
        assert registry.get_sample_value("energy_config_last_reload_successful") == 0

    def test_a_state_file_that_was_never_written_has_no_time(self) -> None:
        instruments = Instruments()
        registry = exporter_registry(instruments)
        assert b"energy_state_last_write" not in generate_latest(registry)
        instruments.state_last_write_timestamp_seconds.set(1_700_000_000.5)
        assert registry.get_sample_value("energy_state_last_write_timestamp_seconds") == 1_700_000_000.5

    def test_a_sample_is_observed_when_the_next_one_is_out(self, busy_node: Callable[..., Snapshot]) -> None:
        instruments = Instruments()
        registry = exporter_registry(instruments)
        for samples, seconds in ((1, 0.0), (2, 0.004), (3, 0.304)):
            instruments.observe(
                replace(busy_node(), exporter=replace(busy_node().exporter, samples=samples, sample_seconds=seconds))
            )
        assert registry.get_sample_value("energy_sample_duration_seconds_count") == 2
        assert registry.get_sample_value("energy_sample_duration_seconds_sum") == pytest.approx(0.304)
        assert registry.get_sample_value("energy_sample_duration_seconds_bucket", {"le": "0.005"}) == 1
        assert registry.get_sample_value("energy_sample_duration_seconds_bucket", {"le": "0.1"}) == 1
        assert registry.get_sample_value("energy_sample_duration_seconds_bucket", {"le": "0.5"}) == 2


class TestOwnProcess:
    def test_what_proc_says_is_shown(self, proc: Path) -> None:
        registry = exporter_registry(proc=str(proc))
        values = {
            name: registry.get_sample_value(f"process_{name}")
            for name in ("cpu_seconds_total", "virtual_memory_bytes", "open_fds", "max_fds", "start_time_seconds")
        }
        assert values == {
            "cpu_seconds_total": 3.0,
            "virtual_memory_bytes": 4096000.0,
            "open_fds": 3.0,
            "max_fds": 1024.0,
            "start_time_seconds": 1_700_000_120.0,
        }

    def test_this_process_is_the_one_that_is_read(self) -> None:
        registry = exporter_registry()
        started = registry.get_sample_value("process_start_time_seconds")
        used = registry.get_sample_value("process_cpu_seconds_total")
        assert started is not None
        assert started <= time.time() + 1
        assert used == pytest.approx(time.process_time(), abs=0.5)

    def test_without_proc_nothing_is_invented(self, tmp_path: Path) -> None:
        """Fault 17: on a system without Linux's /proc."""
        found = names(exporter_registry(proc=str(tmp_path)))
        assert not {name for name in found if name.startswith("process_")}
        assert "python_info" in found

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("self/stat", "1 (x"),
            ("self/stat", "\xff nonsense"),
            ("self/limits", LIMITS.format("unlimited")),
            ("self/limits", "no such line\n"),
            ("stat", "btime x\n"),
        ],
    )
    def test_a_proc_of_another_form_costs_no_other_metric(self, proc: Path, path: str, text: str) -> None:
        registry = exporter_registry(proc=str(proc))
        assert "process_open_fds" in names(registry)
        (proc / path).write_text(text)
        assert {name for name in names(exporter_registry(proc=str(proc))) if name.startswith("process_")} == set()
        assert {"python_info", "energy_http_requests_total"} <= names(exporter_registry(proc=str(proc)))
