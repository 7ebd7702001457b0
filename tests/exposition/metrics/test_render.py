"""Scrape bodies: valid in both formats, equal to the catalogue, rendered once, with bounded memory."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import EnergyCollector
from exporter.exposition.metrics.render import Renderer
from exporter.impact.values import Factors, Impact, Rates, Settled
from exporter.records import HOST, Allocation, Device, GpuState, Model, ProcessOwner, SourceHealth, Workload
from exporter.snapshot import (
    AccountRow,
    CardRow,
    DeviceRow,
    ExporterState,
    GpuView,
    ImpactView,
    NodeEnergy,
    NodeRow,
    Snapshot,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Families = dict[str, tuple[str, str, str, Samples]]
"""Name → type, unit, help and samples."""


def families(body: bytes, openmetrics: bool = False) -> Families:
    """Read a body back; a duplicate series fails. Values are rounded to the digits that the renderer writes."""
    found: Families = {}
    for family in (parse_openmetrics if openmetrics else parse_text)(body.decode()):
        assert family.name not in found, f"duplicate family {family.name}"
        samples: Samples = {}
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"duplicate series {key}"
            samples[key] = float(f"{sample.value:.14g}")
        found[family.name] = (family.type, family.unit, family.documentation, samples)
    return found


def parsed(body: bytes, openmetrics: bool = False) -> Samples:
    """All samples of a body."""
    return {key: value for *_, samples in families(body, openmetrics).values() for key, value in samples.items()}


def oracle(snapshot: Snapshot, openmetrics: bool = False) -> Families:
    """What prometheus_client says of the snapshot, without any of the renderer's shortcuts."""
    registry = CollectorRegistry()
    registry.register(EnergyCollector(lambda: snapshot))
    return families((generate_openmetrics if openmetrics else generate_latest)(registry), openmetrics)


def check(renderer: Renderer, snapshot: Snapshot) -> None:
    """Both formats are equal to prometheus_client's."""
    for openmetrics in (False, True):
        assert families(renderer.body(snapshot, openmetrics=openmetrics), openmetrics) == oracle(snapshot, openmetrics)


def test_chosen_pod_labels_are_shown_as_kube_state_metrics_does() -> None:
    labels = (("app.kubernetes.io/name", 'a"b'), ("app_kubernetes_io/name", "second"), ("team", "nlp"))
    row = AccountRow(7, Workload("ns", "pod", "c", labels=labels), (), (), (), (), (), ())
    body = Renderer().body(Snapshot(1, 1000.0, 5.0, 1.0, energy=NodeEnergy(containers=(row,)))).decode()
    assert ',label_app_kubernetes_io_name="a\\"b",label_team="nlp"} 1\n' in body


def test_a_small_snapshot_in_full() -> None:
    row = AccountRow(7, Workload("ns", "pod", "c"), (("cpu", "active"),), (12.5,), ("cpu",), (2.0,), ("cpu",), (0.25,))
    snapshot = Snapshot(1, 1000.0, 5.0, 1.0, energy=NodeEnergy(nodes=(NodeRow("cpu", 20.0, None),), containers=(row,)))
    body = Renderer().body(snapshot).decode()
    assert "energy_node_power_watts" not in body  # unknown: no sample, and so no family
    lines = [line for line in body.splitlines() if "node" in line or "energy_container" in line]
    assert [line for line in lines if not line.startswith("# HELP")] == [
        "# TYPE energy_node_joules_total counter",
        'energy_node_joules_total{component="cpu"} 20',
        "# TYPE energy_container_joules_total counter",
        'energy_container_joules_total{namespace="ns",pod="pod",container="c",runtime="host",component="cpu",'
        'mode="active"} 12.5',
        "# TYPE energy_container_power_watts gauge",
        'energy_container_power_watts{namespace="ns",pod="pod",container="c",runtime="host",component="cpu"} 2',
        "# TYPE energy_container_utilization_ratio gauge",
        'energy_container_utilization_ratio{namespace="ns",pod="pod",container="c",runtime="host",component="cpu"} '
        "0.25",
        "# TYPE energy_container_info gauge",
        'energy_container_info{namespace="ns",pod="pod",container="c",runtime="host",container_id="",pod_uid="",'
        'image="",owner_kind="",owner_name="",model_name="",model_source=""} 1',
    ]


def test_openmetrics_names_units_and_end() -> None:
    snapshot = Snapshot(1, 1000.0, 5.0, 1.0, energy=NodeEnergy(nodes=(NodeRow("cpu", 20.0, 3.0),)))
    body = Renderer().body(snapshot, openmetrics=True).decode()
    start = body.index("# TYPE energy_node_joules counter")
    assert body[start:].startswith(
        "# TYPE energy_node_joules counter\n# UNIT energy_node_joules joules\n# HELP energy_"
    )
    assert 'energy_node_joules_total{component="cpu"} 20\n' in body
    assert body.endswith("# EOF\n")
    assert body.count("# EOF") == 1


def test_both_formats_are_what_prometheus_client_makes_of_it(busy_node: Callable[..., Snapshot]) -> None:
    renderer = Renderer()
    for sequence in range(3):  # the second and third come from the cache
        snapshot = busy_node(sequence)
        check(renderer, snapshot)
        assert {name for name, _ in parsed(renderer.body(snapshot))} == {family.name for family in CATALOGUE}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_metrics_of_a_registry_follow_once_a_snapshot(busy_node: Callable[..., Snapshot], openmetrics: bool) -> None:
    registry = CollectorRegistry()
    scrapes = Counter("energy_scrapes_total", "Scrapes.", registry=registry)
    renderer = Renderer(registry)
    for sequence in range(3):
        snapshot = busy_node(sequence)
        samples = parsed(renderer.body(snapshot, openmetrics=openmetrics), openmetrics)
        assert samples.pop(("energy_scrapes_total", ())) == sequence
        samples.pop(("energy_scrapes_created", ()), None)
        assert samples == parsed(Renderer().body(snapshot, openmetrics=openmetrics), openmetrics)
        scrapes.inc()
        again = parsed(renderer.body(snapshot, openmetrics=openmetrics), openmetrics)
        assert again["energy_scrapes_total", ()] == sequence


def test_a_snapshot_is_rendered_once_and_shared(busy_node: Callable[..., Snapshot]) -> None:
    """Fault 62: ten scrapers cost one rendering per format."""
    renderer, snapshot = Renderer(), busy_node()
    for openmetrics in (False, True):
        plain = renderer.body(snapshot, openmetrics=openmetrics)
        packed = renderer.body(snapshot, openmetrics=openmetrics, gzipped=True)
        assert renderer.body(snapshot, openmetrics=openmetrics) is plain
        assert renderer.body(snapshot, openmetrics=openmetrics, gzipped=True) is packed
        assert gzip.decompress(packed) == plain


def test_what_changes_is_rendered_anew(row: Callable[..., AccountRow]) -> None:
    renderer = Renderer()
    base = Snapshot(1, 1.0, 1.0, 1.0)
    old = row(1, Workload("n", "p", "c"), {("cpu", "active"): 1.0}, {"cpu": 1.0})
    states = [
        old,
        old,
        row(1, old.owner, {("cpu", "active"): 2.0}, {"cpu": 2.0}),
        row(1, old.owner, {("cpu", "active"): 3.0, ("gpu", "idle"): 1.0}, {"cpu": 2.0, "gpu": 5.0}, {"gpu": 0.5}),
        row(1, Workload("n", "p", "late-name"), {("cpu", "active"): 3.0}, {"cpu": 2.0}),
    ]
    model = Model("m", "n", "inference", "argv")
    for sequence, state in enumerate(states):
        models = {1: model} if sequence % 2 else {}
        snapshot = replace(
            base, sequence=sequence, energy=replace(base.energy, containers=(state,), container_models=models)
        )
        check(renderer, snapshot)


def test_the_cache_forgets_accounts_that_are_gone(row: Callable[..., AccountRow]) -> None:
    """Fault 43: churn of containers must not grow memory."""
    import tracemalloc

    renderer = Renderer()

    def churn(first: int) -> None:
        for serial in range(first, first + 3000, 30):
            rows = tuple(
                row(serial + i, Workload("n", f"pod-{serial + i}"), {("cpu", "active"): 1.0}) for i in range(30)
            )
            body = renderer.body(Snapshot(serial, 1.0, 1.0, 1.0, energy=NodeEnergy(containers=rows)))
            assert body.count(b"energy_container_info{") == 30

    churn(0)
    tracemalloc.start()
    churn(3000)
    before = tracemalloc.get_traced_memory()[0]
    churn(6000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 50_000


def test_a_reused_pid_shows_the_newer_process(row: Callable[..., AccountRow]) -> None:
    """Fault 34: equal labels of an ended and a new process would be a duplicate series."""
    owner = ProcessOwner(42, "python3", "", "", "host")
    old, new = row(5, owner, {("cpu", "active"): 100.0}), row(9, owner, {("cpu", "active"): 1.0})
    renderer = Renderer()
    key = (
        "energy_process_joules_total",
        tuple(sorted({**owner._asdict(), "pid": "42", "component": "cpu", "mode": "active"}.items())),
    )
    for rows in [(old,), (new, old), (old, new), (new,)]:
        samples = parsed(renderer.body(Snapshot(1, 1.0, 1.0, 1.0, energy=NodeEnergy(processes=rows))))
        assert samples[key] == (1.0 if new in rows else 100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_value_that_is_not_finite_is_shown(row: Callable[..., AccountRow], value: float) -> None:
    account = row(1, HOST, {("cpu", "active"): value, ("gpu", "idle"): 4.0}, {"cpu": value, "gpu": 2.0}, {"cpu": value})
    snapshot = Snapshot(
        1, 1.0, 1.0, 1.0, energy=NodeEnergy(containers=(account,), nodes=(NodeRow("cpu", value, value),))
    )
    check(Renderer(), snapshot)
    samples = parsed(Renderer().body(snapshot))
    assert sum(name == "energy_container_joules_total" for name, _ in samples) == 1


# --- any snapshot --------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    ["", "%", "%%s%(x)d", '"', "\\", "\\n", "\n", "\x00", "\udcff", "\u202e", "a" * 300, "a" * 299 + "b", "{", "} 1"]
)
VALUE = st.floats(min_value=0) | st.floats(0, 1e12) | st.sampled_from([0.0, math.nan, math.inf])
COMPONENT = st.sampled_from(["cpu", "dram", "gpu", "platform", "other"])


CELL = st.tuples(COMPONENT, st.sampled_from(["active", "idle"]))


def rows_of(owner: st.SearchStrategy[Workload | ProcessOwner | Model]) -> st.SearchStrategy[tuple[AccountRow, ...]]:
    cells = st.dictionaries(CELL, VALUE, max_size=4)
    parts = st.dictionaries(COMPONENT, VALUE, max_size=3)
    settled = st.dictionaries(CELL, st.builds(Settled, VALUE, VALUE, VALUE, VALUE), max_size=2)
    row = st.tuples(st.integers(1, 50), owner, cells, parts, parts, settled)
    numbered = st.lists(row, max_size=5, unique_by=lambda r: r[0])
    return numbered.map(
        lambda found: tuple(
            AccountRow(n, o, tuple(c), tuple(c.values()), tuple(w), tuple(w.values()), tuple(r), tuple(r.values()), s)
            for n, o, c, w, r, s in found
        )
    )


def tuples_of(*parts: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.tuples(*parts), max_size=3).map(tuple)


OPTIONAL = st.none() | VALUE
ENERGY = st.builds(
    NodeEnergy,
    devices=st.lists(
        st.builds(
            DeviceRow,
            st.builds(
                Device, TEXT, COMPONENT, TEXT, st.sampled_from(["measured", "estimated"]), TEXT, VALUE,
                method=st.sampled_from(["energy_counter", "power_integrated"]),
            ),
            VALUE, OPTIONAL, OPTIONAL, TEXT, OPTIONAL, OPTIONAL, OPTIONAL, st.integers(0, 9), st.integers(0, 9),
            st.booleans(), st.none() | st.booleans(), OPTIONAL, OPTIONAL,
        ),
        max_size=3,
    ).map(tuple),
    nodes=st.lists(st.builds(NodeRow, COMPONENT, VALUE, OPTIONAL), max_size=4).map(tuple),
    containers=rows_of(
        st.builds(
            Workload, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT,
            st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        )
    ),
    processes=rows_of(st.builds(ProcessOwner, st.integers(1, 9), TEXT, TEXT, TEXT, TEXT)),
    models=rows_of(st.builds(Model, TEXT, TEXT, TEXT, TEXT)),
    unattributed=tuples_of(COMPONENT, st.sampled_from(["idle", "gap"]), VALUE),
    retired=tuples_of(COMPONENT, VALUE),
    unnamed=tuples_of(COMPONENT, VALUE),
    retired_devices=st.dictionaries(COMPONENT, VALUE, max_size=2),
    container_cards=st.lists(
        st.builds(
            CardRow, st.builds(Workload, TEXT, TEXT, TEXT, TEXT), TEXT, st.sampled_from(["active", "idle"]), VALUE
        ),
        max_size=4,
    ).map(tuple),
    container_models=st.dictionaries(st.integers(1, 50), st.builds(Model, TEXT, TEXT, TEXT, TEXT), max_size=3),
)  # fmt: skip
GPU_VIEWS = st.builds(
    GpuView,
    states=st.lists(
        st.builds(
            GpuState, TEXT, TEXT, TEXT, gpu_model=TEXT, driver_version=TEXT, pci_bus_id=TEXT,
            power_limit_watts=OPTIONAL, memory_used_bytes=OPTIONAL, xid_errors=OPTIONAL, last_xid=OPTIONAL,
            clock_hertz=tuples_of(TEXT, VALUE), throttle_seconds=tuples_of(TEXT, VALUE),
            ecc_errors=tuples_of(TEXT, VALUE), memory_repair=tuples_of(TEXT, VALUE),
        ),
        max_size=3,
    ).map(tuple),
    allocations=st.lists(
        st.builds(Allocation, TEXT, TEXT, TEXT, TEXT, st.floats(0.01, 8.0), TEXT, TEXT), max_size=3
    ).map(tuple),
    indexes=st.dictionaries(TEXT, TEXT, max_size=3),
)  # fmt: skip
EXPORTERS = st.builds(
    ExporterState,
    sources=st.lists(
        st.builds(SourceHealth, TEXT, st.booleans(), st.none(), TEXT, TEXT, st.just({}), VALUE, VALUE), max_size=2
    ).map(tuple),
    samples=st.integers(1, 10**9),
    sample_seconds=VALUE,
    overruns=st.integers(0, 9),
    series_dropped=tuples_of(TEXT, st.integers(0, 5)),
)  # fmt: skip
RATE = st.none() | st.floats(0, 1e-3)
IMPACT = st.builds(Impact, VALUE, VALUE, VALUE)
IMPACTS = st.builds(
    ImpactView,
    st.builds(
        Factors, OPTIONAL, OPTIONAL, VALUE, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, st.booleans(), st.booleans(),
        OPTIONAL, OPTIONAL,
    ),
    st.builds(Rates, RATE, RATE, RATE),
    IMPACT,
    st.dictionaries(st.sampled_from(["idle", "gap"]), IMPACT, max_size=2),
    IMPACT,
    IMPACT,
)  # fmt: skip
SNAPSHOTS = st.builds(
    Snapshot,
    sequence=st.integers(1),
    taken_at=VALUE,
    monotonic_at=VALUE,
    interval_seconds=VALUE,
    demo=st.booleans(),
    energy=ENERGY,
    gpu=GPU_VIEWS,
    exporter=EXPORTERS,
    impact=st.none() | IMPACTS,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SNAPSHOTS, min_size=1, max_size=3))
def test_any_snapshots_are_what_prometheus_client_makes_of_them(snapshots: list[Snapshot]) -> None:
    """Faults 45 and 46: one hostile label may not cost a single other series, nor may the cache mix them up."""
    renderer = Renderer()
    for snapshot in snapshots:
        check(renderer, snapshot)
        assert all(map(math.isfinite, parsed(renderer.body(snapshot)).values()))
