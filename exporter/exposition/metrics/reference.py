"""The metrics reference, generated from the catalogue by ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from .catalogue import CATALOGUE
from .collector import Described, Instruments
from .families import Family
from .impact import IMPACT
from .regions import REGIONS
from .tokens import TOKENS

_INTRO = """\
# Metrics

Generated from the catalogue by `make docs`; a test keeps both equal.

Base units only, ratios from 0 to 1, no timestamps. Joules are exact: the exporter integrates them on its own timer,
between scrapes. Watts are the mean over the last sample interval, for convenience. An unknown value is an absent series
or an empty label, never 0 and never NaN. Label values longer than 256 characters are truncated, control characters are
removed, and a hash at the end keeps such values distinct. Values have 14 significant digits.

`energy_node_*` is disjoint by `component`, so `sum()` is the node. Devices may include each other: never sum
`energy_device_*`. Containers conserve energy, for each component and at every moment:

    energy_node = energy_container + energy_unattributed + energy_retired

`energy_unnamed_joules` is a fourth term: joules of containers whose names are not known yet, and of counters that are
new. A new counter is exposed at 0 until every regular scraper has seen it once, because `increase()` leaves out what a
counter holds at its first sample. Regular scrapers are those that declare themselves, as Prometheus and vmagent do, or
that scrape repeatedly; other clients always see what the last snapshot holds. There are no `_created` series: they
would double the counters in every store that takes them for series, as Prometheus does by default, and a counter that
is seen at 0 needs none.

The equation holds for the values of one scrape, not for `increase()` over a window: a container that expires in the
window is in its own increase and again in that of `energy_retired`. The energy of a window is that of containers and
`energy_unattributed`, without `energy_retired`; the examples have the query.

**What bills.** Prometheus extrapolates `increase()` by half a scrape interval beyond the end of a series: with a scrape
every 15 s that is 2 % too much for containers of a minute or two, nothing for those that go on. The difference of a
counter's values, as the second example takes it and all kWh of the dashboards do, is exact in Prometheus and in
VictoriaMetrics, windows that follow each other add up, and it falls back to `increase()` where a counter was reset.
VictoriaMetrics' `increase()` is exact too; its `rate()` is not for series that are younger than the window, so use
`increase(…[5m]) / 300` there. Measured over an hour with `python -m benchmarks.stores`: [accuracy](accuracy.md#stores).

Processes and models are other views of the same joules: do not add them to containers.

Details:

- `energy_device_joules_total` is exposed after a restart before the device is read again.
- `energy_device_up` is also 0 after a restart while a GPU's driver is not loaded. It is absent while the device is
  suspended, because a read would resume it, and while its source is disabled. The series of a device that is 0 for a
  week end; its joules move to `energy_device_retired_joules_total`. The devices that are exposed and not included in
  another one, plus the retired ones, make the node.
- `energy_device_agreement_ratio` covers the first minute, then windows of five. It is 0.95 to 1.05 under steady load,
  wider where the load changes faster than the sample interval, and was seen at 0.6 on idle cards. Below 0.5 or above 2
  either the counter or the power gauge is broken.
- The age of a device's reading is `time() - energy_device_last_reading_timestamp_seconds`, that of the sample
  `time() - energy_sample_timestamp_seconds`.
- `energy_gpu_ecc_errors_total` counts over the lifetime of the card: use `increase()` for recent errors.
- `energy_source_failures_total` starts at 0 for every reason.
- Samples are taken on a timer because power has to be integrated more often than it is scraped.
"""

_GROUPS = {
    **{family.name: "Carbon and cost" for family in IMPACT},
    **{family.name: "Tokens and requests" for family in TOKENS},
    **{family.name: "Regions of programs" for family in REGIONS},
    "energy_node_": "Node",
    "energy_device_": "Devices",
    "energy_gpu_": "GPUs",
    "energy_process_": "Processes",
    "energy_container_": "Containers",
    "energy_model_": "Models",
    "energy_unattributed_": "Unattributed and retired energy",
    "energy_retired_": "Unattributed and retired energy",
    "energy_conservation_": "Unattributed and retired energy",
    "energy_power_source_": "Sources and meters",
    "energy_source_": "Sources and meters",
    "energy_meter_": "Sources and meters",
}
_LAST_GROUP = "The exporter itself"
_DAEMON = "The daemon"

QUERIES = (
    ("Power of the node, now and by component", "sum by (component) (rate(energy_node_joules_total[5m]))"),
    ("Energy of each namespace in the last day, in kWh",
     "sum by (namespace) (increase(energy_container_joules_total[1d])) / 3.6e6"),
    ("The same to the joule, also for containers that came and went",
     "sum by (namespace) (\n"
     "  max_over_time(energy_container_joules_total[1d])\n"
     "    - (\n"
     "      (energy_container_joules_total offset 1d or min_over_time(energy_container_joules_total[1d]))\n"
     "        <= min_over_time(energy_container_joules_total[1d])\n"
     "    )\n"
     "  unless resets(energy_container_joules_total[1d]) > 0\n"
     "    or increase(energy_container_joules_total[1d])\n"
     ") / 3.6e6"),
    ("A bill: all of the node's energy in the last day, in kWh, by namespace and by reason",
     "(\n"
     "  sum by (namespace) (increase(energy_container_joules_total[1d]))\n"
     "    or sum by (reason) (increase(energy_unattributed_joules_total[1d]))\n"
     ") / 3.6e6"),
    ("The ten models that use most power", "topk(10, sum by (model_name) (rate(energy_model_joules_total[5m])))"),
    ("Joules per generated token (tokens.md says when it is true)",
     "sum by (model_name, namespace) (rate(energy_model_joules_total[5m]))\n"
     '  / sum by (model_name, namespace) (rate(energy_model_tokens_total{kind="output"}[5m]))'),
    ("GPUs that are held but not used: watts wasted by each container",
     "sum by (namespace, pod) (rate(energy_container_gpu_unused_joules_total[15m]))"),
    ("What the GPUs of each model did in the last day, in kWh",
     "sum by (model_name, activity) (increase(energy_model_activity_joules_total[1d])) / 3.6e6"),
    ("Which GPU each workload uses, and with how many watts",
     "sum by (namespace, pod, gpu, uuid) (rate(energy_container_gpu_joules_total[5m])) > 0"),
    ("Power of each GPU, with its product",
     'energy_gpu_power_watts * on (instance, uuid) group_left (gpu_model) energy_gpu_info{gpu_instance=""}'),
    ("Power of each GPU as a part of its limit", "energy_gpu_power_watts / energy_gpu_power_limit_watts"),
    ("Share of the node's energy that is not attributed",
     "sum(rate(energy_unattributed_joules_total[1h])) / sum(rate(energy_node_joules_total[1h]))"),
    ("Add the GPU's model name to its temperature",
     "energy_gpu_temperature_celsius * on (uuid, gpu_instance) group_left (gpu_model) energy_gpu_info"),
    ("Which joules are estimated, not measured", 'energy_power_source_info{quality="estimated"}'),
    ("Age of the data in seconds", "time() - energy_sample_timestamp_seconds"),
)  # fmt: skip


def _group(family: Family) -> str:
    return next((title for prefix, title in _GROUPS.items() if family.name.startswith(prefix)), _LAST_GROUP)


def _heading(title: str) -> str:
    return f"\n## {title}\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"


def _row(metric: Family | Described) -> str:
    labels = ", ".join([f"`{label}`" for label in metric.labels]) or "–"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


def sections() -> Iterator[tuple[str, list[Family | Described]]]:
    """Yield the title of each group of metrics, and the metrics."""
    order = list(dict.fromkeys((*_GROUPS.values(), _LAST_GROUP)))
    families = sorted(CATALOGUE, key=lambda family: order.index(_group(family)))
    for title, members in groupby(families, key=_group):
        yield title, list(members)
    yield _DAEMON, list(Instruments().rows())


def reference() -> str:
    """Return the whole document."""
    parts = [_INTRO]
    for title, metrics in sections():
        parts.append(_heading(title))
        parts += map(_row, metrics)
    parts.append(
        "\nThe exporter also exposes the usual metrics of a Python process: `process_*` (CPU time, memory, file\n"
        "descriptors, start time), `python_info` and `python_gc_*`.\n"
    )
    parts.append("\n## Examples\n")
    parts += [f"\n{title}:\n\n```promql\n{query}\n```\n" for title, query in QUERIES]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(reference())
