"""Exporter health: are the numbers reliable, and what does the exporter cost?"""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from .board import Row, board
from .links import EXPORTER, NODES, OVERVIEW, WORKLOADS, from_row, onward
from .palette import ACTIVE, BAD, COMPONENT, GOOD, LOST, NODE_IDLE, TEXT, WARN
from .panels import Ask, Line, course, number
from .table import CLUSTER, Label, Value, table
from .variables import everywhere

NO_EXPORTER = "No exporter is up: see the targets of Prometheus"

_UP = {0.0: ("failing", BAD), 1.0: ("up", GOOD), 2.0: ("not here", TEXT)}
_REFUSED = 'reason!="not_found"'
_LOSSES = {
    "idle": NODE_IDLE,
    "kernel": "#8FA3BF",
    "exited": "#A58FBF",
    "gap": BAD,
    "unknown": LOST,
    "fans, disks, supply": COMPONENT["other"],
}
_QUALITY = {"measured": ("measured", GOOD), "estimated": ("estimated", WARN)}


def dashboard() -> Dashboard:
    """For operators of the exporter."""
    return board(
        EXPORTER,
        "Are these numbers reliable, and what does it cost to collect them?",
        everywhere(),
        [
            Row(4, [(4, _up()), (4, _age()), (4, _conserved()), (4, _failing()), (4, _tick()), (4, _memory())]),
            Row(6, [(24, _exporters())]),
            Row(10, [(8, _sources()), (16, _devices())]),
            Row(8, [(8, _unattributed()), (8, _failures()), (8, _cost())]),
            Row(8, [(8, _meters()), (8, _samples()), (8, _dropped())], "Meters, skipped samples, dropped series", 90),
        ],
    )


def _up() -> Builder[Panel]:
    known = q.series("up")
    exporters = f"{known} and on (cluster, job, instance) last_over_time({q.series('energy_samples_total')}[1d])"
    ask = Ask(
        1,
        "Are all exporters up?",
        "Share of the exporters of the last day whose last scrape succeeded.",
        NO_EXPORTER,
        [onward(OVERVIEW)],
    )
    return number(ask, f"avg({exporters})", "percentunit", steps=[(1, GOOD)], base=BAD, decimals=0)


def _age() -> Builder[Panel]:
    age = f"max(time() - {q.series('energy_sample_timestamp_seconds')})"
    ask = Ask(
        2,
        "How old is the data?",
        "Age of the oldest sample: at most a scrape interval while the sampler runs.",
        NO_EXPORTER,
        [onward(OVERVIEW)],
    )
    return number(ask, age, "s", steps=[(60, WARN), (180, BAD)], base=GOOD, decimals=0)


def _conserved() -> Builder[Panel]:
    error = f"max({q.series('energy_conservation_error_ratio')})"
    ask = Ask(
        3,
        "Does every joule add up?",
        "Largest relative difference between the joules of devices and the sum of workloads, unattributed energy and "
        "ended containers. Rounding is about 1e-15; above 1e-9 it is a bug: please report it.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return number(ask, error, "sci", steps=[(1e-9, BAD)], base=GOOD, decimals=1)


def _failing() -> Builder[Panel]:
    known = q.series("energy_source_up")
    ask = Ask(
        4,
        "Is a source failing?",
        "Sources that fail to read an existing device. Sources without a device, such as NVML without a card, are not "
        "counted. The status page of the exporter gives the reason and the fix.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return number(ask, f"count({_broken()}) or 0 * count({known})", "none", steps=[(1, BAD)], base=GOOD)


def _broken() -> str:
    """Sources that are down and worked before, or found a device that they cannot read, as in the alert."""
    by = "cluster, job, instance, source"
    refused = q.increase("energy_source_failures_total", _REFUSED)
    return (
        f"{q.series('energy_source_up')} == 0 and on ({by}) "
        f"({q.series('energy_source_last_success_timestamp_seconds')} > 0 or sum by ({by}) ({refused}) > 0)"
    )


def _tick() -> Builder[Panel]:
    busy = f"max({q.rate('energy_sample_seconds_total')} / {q.rate('energy_samples_total')})"
    ask = Ask(
        5,
        "How long is a sample?",
        "Mean time per sample of the slowest exporter. It has to be well below the sample interval.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return number(ask, busy, "s", steps=[(0.2, WARN), (0.5, BAD)], base=GOOD, decimals=1, trend=True)


def _memory() -> Builder[Panel]:
    memory = f"max({q.series('process_resident_memory_bytes')} and on (cluster, job, instance) {_samples_of()})"
    ask = Ask(6, "How much memory?", "Resident memory of the largest exporter.", NO_EXPORTER, [onward(NODES)])
    return number(ask, memory, "bytes", steps=[(256 * 2**20, WARN)], base=TEXT, decimals=0, trend=True)


def _samples_of() -> str:
    return q.series("energy_samples_total")


def _exporters() -> Builder[Panel]:
    ask = Ask(
        7,
        "Which exporter is it?",
        "Every exporter with its version, its age, its sample interval and what it costs. Demo is one that shows a "
        "simulated node.",
        NO_EXPORTER,
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 0, from_row(EXPORTER, "Only this exporter", instance="Node")),
            Label("version", "Version", 110),
            Label("python_version", "Python", 110),
            Label("demo", "Demo", 80),
        ],
        [
            Value(
                "Age",
                f"{_with_build('time() - ' + q.series('energy_sample_timestamp_seconds'))}",
                "s",
                0,
                90,
                [(60, WARN), (180, BAD)],
            ),
            Value("Every", _with_build(q.series("energy_sample_interval_seconds")), "s", 1, 80),
            Value(
                "Sample",
                _with_build(f"{q.rate('energy_sample_seconds_total')} / {q.rate('energy_samples_total')}"),
                "s",
                1,
                90,
            ),
            Value("CPU", _with_build(q.rate("process_cpu_seconds_total")), "percentunit", 1, 80),
            Value("Memory", _with_build(q.series("process_resident_memory_bytes")), "bytes", 0, 100),
            Value("Series", _with_build(q.series("scrape_samples_scraped")), "none", 0, 90),
            Value(
                "Reload",
                _with_build(q.series("energy_config_last_reload_successful")),
                "none",
                0,
                100,
                texts={
                    0.0: ("refused", BAD),
                    1.0: ("ok", GOOD),
                },
            ),
        ],
        sort="Age",
    )


def _with_build(expr: str) -> str:
    by = f"{q.NODES}, version, python_version, demo"
    build = q.series("energy_exporter_build_info")
    return f"max by ({by}) (({expr}) * on (cluster, job, instance) group_left (version, python_version, demo) {build})"


def _sources() -> Builder[Panel]:
    by = f"{q.NODES}, source"
    up = q.series("energy_source_up")
    state = f"0 * ({_broken()}) or {up} == 1 or 2 + {up}"
    failures = f"sum by ({by}) ({q.increase('energy_source_failures_total', _REFUSED)})"
    age = f"time() - max by ({by}) ({q.series('energy_source_last_success_timestamp_seconds')})"
    ask = Ask(
        8,
        "Which sources work?",
        "Sources of each exporter, and the age of the last read. Not here is hardware that a machine does not have, "
        "such as NVML without a card: ai-energy-exporter doctor lists what is missing and how to fix it.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return table(
        ask,
        [CLUSTER, Label("instance", "Node"), Label("source", "Source", 100)],
        [
            Value("State", f"min by ({by}) ({state})", "none", 0, 70, texts=_UP),
            Value("Failures", failures, "none", 0, 75, [(1, WARN)]),
            Value("Age", age, "s", 0, 65, [(60, WARN), (300, BAD)]),
        ],
        sort="Failures",
    )


def _devices() -> Builder[Panel]:
    by = f"{q.NODES}, device, component, source, quality, method"
    info = q.series("energy_power_source_info")

    def of(expr: str) -> str:
        return f"max by ({by}) (({expr}) * on (cluster, job, instance, device) group_left (quality, method) {info})"

    ask = Ask(
        9,
        "Where does each number come from?",
        "Every metered device: measured or estimated, how, its power and idle power now, and the age of its last "
        "reading.",
        "Nothing is metered here: run ai-energy-exporter doctor",
        [onward(NODES)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 110),
            Label("device", "Device"),
            Label("component", "Component", 100),
            Label("source", "Source", 75),
            Label("quality", "Quality", 90, texts=_QUALITY),
            Label("method", "Method", 110),
        ],
        [
            Value("Power", of(q.series("energy_device_power_watts")), "watt", 0, 75),
            Value("Idle", of(q.series("energy_device_idle_watts")), "watt", 0, 65),
            Value(
                "Age",
                of(f"time() - {q.series('energy_device_last_reading_timestamp_seconds')}"),
                "s",
                0,
                65,
                [(60, WARN), (300, BAD)],
            ),
        ],
        sort="Power",
    )


def _unattributed() -> Builder[Panel]:
    ask = Ask(
        10,
        "Which power is attributed to no workload?",
        "Unattributed power by reason. Idle is the power of the node without work, and fans, disks and the power "
        "supply are shared by all workloads; the others should be small, gap and unknown close to 0.",
        NO_EXPORTER,
        [onward(WORKLOADS)],
    )
    lines = [
        Line(q.watts("unattributed", "reason", q.NOT_OTHER), "{{reason}}"),
        Line(q.watts("unattributed", "", q.OTHER), "fans, disks, supply"),
    ]
    return course(ask, lines, "watt", colours=_LOSSES, stacked=True)


def _failures() -> Builder[Panel]:
    rate = f"sum by (source, reason) ({q.rate('energy_source_failures_total')})"
    ask = Ask(
        11,
        "Which reads fail?",
        "Failed reads per second, by source and reason. Zero is healthy.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return course(ask, [Line(f"topk(10, {rate})", "{{source}} {{reason}}")], "none", decimals=2)


def _cost() -> Builder[Panel]:
    cpu = f"{q.rate('process_cpu_seconds_total')} and on (cluster, job, instance) {_samples_of()}"
    ask = Ask(
        12,
        "How much CPU does an exporter use?",
        "Share of one CPU core, of the 16 exporters that use most.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return course(
        ask,
        [Line(f"topk(16, sum by ({q.NODES}) ({cpu}))", "{{instance}} {{cluster}}")],
        "percentunit",
        steps=[(0.1, WARN)],
    )


def _meters() -> Builder[Panel]:
    def events(kind: str) -> str:
        return f"sum by ({q.NODES}) ({q.increase(f'energy_meter_{kind}_total')})"

    ask = Ask(
        13,
        "Which meters reset or are stuck?",
        "Wraps are normal and counted exactly. After a reset no energy is attributed for one interval. A stuck meter "
        "does not move although its device is busy. All in the time range.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return table(
        ask,
        [CLUSTER, Label("instance", "Node")],
        [
            Value("Wraps", events("wraps"), "none", 0, 80),
            Value("Resets", events("resets"), "none", 0, 80, [(1, WARN)]),
            Value("Stuck", f"sum by ({q.NODES}) ({q.series('energy_device_stuck')})", "none", 0, 80, [(1, BAD)]),
            Value(
                "Disagree",
                f"count by ({q.NODES}) ({q.series('energy_device_agreement_ratio')} < 0.5 or "
                f"{q.series('energy_device_agreement_ratio')} > 2) or "
                f"0 * sum by ({q.NODES}) ({q.series('energy_device_stuck')})",
                "none",
                0,
                90,
                [(1, BAD)],
            ),
        ],
        sort="Wraps",
    )


def _samples() -> Builder[Panel]:
    skipped = f"sum by ({q.NODES}) ({q.rate('energy_sample_overruns_total')} / {q.rate('energy_samples_total')})"
    ask = Ask(
        14,
        "How many samples are skipped?",
        "Share of samples skipped because the previous one was not finished. Energy counters lose nothing; the "
        "attribution to workloads gets coarser.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return course(ask, [Line(f"topk(16, {skipped})", "{{instance}} {{cluster}}")], "percentunit", steps=[(0.05, WARN)])


def _dropped() -> Builder[Panel]:
    dropped = f"sum by (level) ({q.rate('energy_series_dropped_total')})"
    ask = Ask(
        15,
        "Are series dropped?",
        "Accounts dropped from a level per second because its limit was reached; their energy stays in the level "
        "above.",
        NO_EXPORTER,
        [onward(WORKLOADS)],
    )
    return course(ask, [Line(dropped, "{{level}}")], "none", decimals=2, colours={"process": ACTIVE})
