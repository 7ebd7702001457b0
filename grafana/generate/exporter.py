"""Exporter health: are the numbers reliable, and what does the exporter cost?"""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from .board import Row, board
from .empty import NO_EXPORTER, NO_METER, Empty
from .links import EXPORTER, MODEL, NODES, OVERVIEW, WORKLOADS, from_line, from_place, from_row, onward
from .palette import ACTIVE, BAD, COMPONENT, GOOD, LOST, NODE_IDLE, TEXT, WARN
from .panels import Ask, Line, course, number
from .table import CLUSTER, Label, Value, table
from .variables import everywhere

_ONE = from_line(EXPORTER, "Only this exporter", "cluster", "instance")
_UP = {0.0: ("failing", BAD), 1.0: ("up", GOOD), 2.0: ("not here", TEXT)}
_READ = {0.0: ("read", GOOD), 1.0: ("not read", WARN)}
_REFUSED = 'reason!="not_found"'
_LOSSES = {
    "idle": NODE_IDLE,
    "kernel": "#7A86D9",
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
            Row(5, [(24, _exporters())]),
            Row(10, [(24, _devices())]),
            Row(9, [(10, _sources()), (14, _unattributed())]),
            Row(8, [(8, _failures()), (8, _cost()), (8, _reads())]),
            Row(8, [(24, _servers())]),
            Row(8, [(10, _meters()), (7, _samples()), (7, _dropped())], "Meters, skipped samples, dropped series", 90),
            Row(8, [(8, _requests()), (8, _durations()), (8, _idle_sources())], "Requests, durations, idle power", 91),
        ],
    )


def _up() -> Builder[Panel]:
    known = q.series("up")
    exporters = f"{known} and on (cluster, job, instance) last_over_time({q.series('energy_samples_total')}[1d])"
    ask = Ask(
        1,
        "Exporters up",
        "Are all exporters up?",
        "Share of the exporters of the last day whose last scrape succeeded.",
        NO_EXPORTER,
        [onward(OVERVIEW)],
    )
    return number(ask, f"avg({exporters})", "percentunit", steps=[(1, GOOD)], base=BAD, decimals=0)


def _age() -> Builder[Panel]:
    age = f"max({q.age('energy_sample_timestamp_seconds')})"
    ask = Ask(
        2,
        "Age of data",
        "How old is the data?",
        "Age of the oldest sample: at most a scrape interval while the sampler runs.",
        NO_EXPORTER,
        [onward(OVERVIEW)],
    )
    return number(ask, age, "s", steps=[(60, WARN), (180, BAD)], base=GOOD)


def _conserved() -> Builder[Panel]:
    error = f"max({q.series('energy_conservation_error_ratio')})"
    ask = Ask(
        3,
        "Sum error",
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
        "Failing sources",
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
        "Sample time",
        "How long is a sample?",
        "Mean time per sample of the slowest exporter. It has to be well below the sample interval.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return number(ask, busy, "s", steps=[(0.2, WARN), (0.5, BAD)], base=GOOD)


def _memory() -> Builder[Panel]:
    memory = f"max({q.series('process_resident_memory_bytes')} and on (cluster, job, instance) {_samples_of()})"
    ask = Ask(
        6,
        "Memory",
        "How much memory does it use?",
        "Resident memory of the largest exporter.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return number(ask, memory, "bytes", steps=[(256 * 2**20, WARN)])


def _samples_of() -> str:
    return q.series("energy_samples_total")


def _exporters() -> Builder[Panel]:
    ask = Ask(
        7,
        "Exporters",
        "Which exporter is it?",
        "Every exporter with its version, the age of its data and state file, its sample interval and what it costs. "
        "Demo is one that shows a simulated node.",
        NO_EXPORTER,
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 0, from_place(EXPORTER, "Only this exporter", instance="Node")),
            Label("version", "Version", 110),
            Label("python_version", "Python", 110),
            Label("demo", "Demo", 80),
        ],
        [
            Value(
                "Age",
                f"{_with_build(q.age('energy_sample_timestamp_seconds'))}",
                "s",
                None,
                90,
                [(60, WARN), (180, BAD)],
            ),
            Value("Every", _with_build(q.series("energy_sample_interval_seconds")), "s", None, 80),
            Value(
                "Sample",
                _with_build(f"{q.rate('energy_sample_seconds_total')} / {q.rate('energy_samples_total')}"),
                "s",
                None,
                90,
            ),
            Value(
                "State file",
                _with_build(q.age("energy_state_last_write_timestamp_seconds")),
                "s",
                None,
                90,
            ),
            Value("CPU", _with_build(q.rate("process_cpu_seconds_total")), "percentunit", 1, 80),
            Value("Memory", _with_build(q.series("process_resident_memory_bytes")), "bytes", None, 100),
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
    age = f"min by ({by}) ({q.age('energy_source_last_success_timestamp_seconds')})"
    ask = Ask(
        8,
        "Sources",
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
            Value("Failures", failures, "none", 0, 85, [(1, WARN)]),
            Value("Age", age, "s", None, 80, [(60, WARN), (300, BAD)]),
        ],
        sort="Failures",
    )


def _servers() -> Builder[Panel]:
    by = f"{q.NODES}, namespace, pod, container, model_name, server"
    ask = Ask(
        20,
        "Model servers",
        "Which model servers are read for tokens?",
        "Servers that the exporter recognised, those that it cannot read first. The log, the status page and "
        "ai-energy-exporter doctor give the reason and the fix.",
        Empty("No model server", "none was recognised on these nodes, or --no-source.inference is set."),
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 120, from_place(EXPORTER, "Only this exporter", instance="Node")),
            Label("namespace", "Namespace", 130, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 120),
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            Label("server", "Server", 110),
        ],
        [Value("Unread", f"1 - min by ({by}) ({q.series('energy_token_source_up')})", "none", 0, 90, texts=_READ)],
        sort="Unread",
    )


def _devices() -> Builder[Panel]:
    known = "cluster, job, instance, device"
    by = f"{q.NODES}, device, component, source, quality, method"
    info = q.series("energy_power_source_info")
    cards = q.series("energy_gpu_info", q.WHOLE)
    cards = f'max by ({known}, gpu) (label_replace({cards}, "device", "$1", "uuid", "(.+)"))'

    def of(expr: str) -> str:
        """With its method, and of a card the number in place of its id, which is too long for a column."""
        named = f"({expr}) * on ({known}) group_left (quality, method) {info}"
        numbered = f'label_replace({named} * on ({known}) group_left (gpu) {cards}, "device", "GPU $1", "gpu", "(.+)")'
        return f"max by ({by}) ({numbered} or {named} unless on ({known}) {cards})"

    age = of(q.age("energy_device_last_reading_timestamp_seconds"))
    ask = Ask(
        9,
        "Devices",
        "Where does each number come from?",
        "Every metered device: measured, simulated or estimated, how, its power and idle power now with their bounds "
        "where they are not measured, and the age of its last reading.",
        NO_METER,
        [onward(NODES)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 120),
            Label("device", "Device"),
            Label("component", "Component", 100),
            Label("source", "Source", 80),
            Label("quality", "Quality", 95, texts=_QUALITY),
            Label("method", "Method", 115),
        ],
        [
            Value("Power", of(q.series("energy_device_power_watts")), "watt", None, 80),
            Value("At least", of(q.series("energy_device_power_low_watts")), "watt", None, 80),
            Value("At most", of(q.series("energy_device_power_high_watts")), "watt", None, 80),
            Value("Idle", of(q.series("energy_device_idle_watts")), "watt", None, 80),
            Value("Idle, least", of(q.series("energy_device_idle_low_watts")), "watt", None, 90),
            Value("Idle, most", of(q.series("energy_device_idle_high_watts")), "watt", None, 90),
            Value("Age", age, "s", None, 80, [(60, WARN), (300, BAD)]),
        ],
        sort="Power",
    )


def _unattributed() -> Builder[Panel]:
    ask = Ask(
        10,
        "Unattributed power",
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
    return course(ask, lines, "watt", colours=_LOSSES, stacked=True, summary="right")


def _failures() -> Builder[Panel]:
    rate = f"60 * sum by (source, reason) ({q.rate('energy_source_failures_total')})"
    ask = Ask(
        11,
        "Failed reads",
        "Which reads fail?",
        "Failed reads per minute, by source and reason. Zero is healthy.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return course(ask, [Line(f"topk(10, {rate})", "{{source}} {{reason}}")], "suffix:/min")


def _cost() -> Builder[Panel]:
    cpu = f"{q.rate('process_cpu_seconds_total')} and on (cluster, job, instance) {_samples_of()}"
    ask = Ask(
        12,
        "CPU of the exporters",
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
        follow=_ONE,
    )


def _meters() -> Builder[Panel]:
    def events(kind: str) -> str:
        return f"sum by ({q.NODES}) ({q.increase(f'energy_meter_{kind}_total')})"

    ask = Ask(
        13,
        "Meters",
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
        "Skipped samples",
        "How many samples are skipped?",
        "Share of samples skipped because the previous one was not finished. Energy counters lose nothing; the "
        "attribution to workloads gets coarser.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    return course(
        ask,
        [Line(f"topk(16, {skipped})", "{{instance}} {{cluster}}")],
        "percentunit",
        steps=[(0.05, WARN)],
        follow=_ONE,
    )


def _dropped() -> Builder[Panel]:
    dropped = f"60 * sum by (level) ({q.rate('energy_series_dropped_total')})"
    ask = Ask(
        15,
        "Dropped series",
        "Are series dropped?",
        "Accounts dropped from a level per minute because its limit was reached; their energy stays in the level "
        "above.",
        NO_EXPORTER,
        [onward(WORKLOADS)],
    )
    return course(ask, [Line(dropped, "{{level}}")], "suffix:/min", colours={"process": ACTIVE})


def _reads() -> Builder[Panel]:
    ask = Ask(
        16,
        "Time of reads",
        "Which source takes how long?",
        "Mean time per second that reading each source takes, of the ten slowest.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    seconds = f"topk(10, max by (source) ({q.rate('energy_source_read_seconds_total')}))"
    return course(ask, [Line(seconds, "{{source}}")], "percentunit")


def _requests() -> Builder[Panel]:
    ask = Ask(
        17,
        "HTTP requests",
        "How is the exporter asked?",
        "Requests per minute by status code.",
        NO_EXPORTER,
        [onward(OVERVIEW)],
    )
    requests = f"60 * sum by (code) ({q.rate('energy_http_requests_total')})"
    return course(ask, [Line(requests, "{{code}}")], "suffix:/min")


def _durations() -> Builder[Panel]:
    def slow(name: str) -> str:
        return f"histogram_quantile(0.99, sum by (le) ({q.rate(f'{name}_bucket')}))"

    ask = Ask(
        18,
        "Slow samples and scrapes",
        "How long do the slowest samples and scrapes take?",
        "The time that 99 of 100 samples and scrapes do not exceed.",
        NO_EXPORTER,
        [onward(NODES)],
    )
    lines = [
        Line(slow("energy_sample_duration_seconds"), "Sample"),
        Line(slow("energy_scrape_duration_seconds"), "Scrape"),
    ]
    return course(ask, lines, "s")


def _idle_sources() -> Builder[Panel]:
    by = "component, method"
    ask = Ask(
        19,
        "Idle power",
        "Where is the idle power from?",
        "Devices by the method with which their idle power is known: learned from the device, given by a setting, or "
        "assumed from a published value.",
        NO_METER,
        [onward(NODES)],
    )
    return table(
        ask,
        [CLUSTER, Label("component", "Component", 120), Label("method", "Method", 0)],
        [Value("Devices", f"count by (cluster, {by}) ({q.series('energy_device_idle_info')})", "none", 0, 90)],
        sort="Devices",
    )
