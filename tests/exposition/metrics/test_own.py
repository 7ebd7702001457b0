"""The exporter's own process metrics are those of every client library."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.metrics.own import OwnProcess


def values(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in parse_text(text) for sample in family.samples}


def headers(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith("# ")}


def test_names_help_and_values_are_those_of_the_client_library() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    theirs, ours = generate_latest(registry).decode(), OwnProcess().body().decode()
    assert headers(ours) == headers(theirs)
    for name, value in values(theirs).items():
        tolerance = 0.05 if name == "process_cpu_seconds_total" else 0.02 * value
        assert abs(values(ours)[name] - value) <= max(tolerance, 1.0 if name == "process_open_fds" else 0.0), name


def test_openmetrics() -> None:
    text = OwnProcess().body(openmetrics=True).decode() + "# EOF\n"
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["process_cpu_seconds"].type == "counter"
    assert families["process_resident_memory_bytes"].unit == "bytes"


def test_without_proc_only_what_the_system_calls_tell_is_there(tmp_path: Path) -> None:
    """Fault 17: on a system without Linux's /proc nothing is invented."""
    names = set(values(OwnProcess(str(tmp_path)).body().decode()))
    assert names == {"process_cpu_seconds_total", "process_max_fds"}


def test_garbage_in_proc_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/statm").write_bytes(b"\xff nonsense")
    (tmp_path / "self/stat").write_text("1 (x")
    (tmp_path / "stat").write_text("btime x")
    assert "process_resident_memory_bytes" not in values(OwnProcess(str(tmp_path)).body().decode())
