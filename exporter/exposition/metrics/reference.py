"""The metrics reference, written from the catalogue by ``make docs``."""

from __future__ import annotations

import sys
from itertools import groupby

from .catalogue import CATALOGUE
from .collector import Described, Instruments
from .families import Family

_INTRO = """\
# Metrics

Generated from the catalogue by `make docs`; a test keeps both equal.

Base units only, ratios from 0 to 1, no timestamps. Joules are the truth, counted on the exporter's own timer between
scrapes; watts are the mean over the last sample interval, a convenience. What is unknown is an absent series or an
empty label, never 0 and never NaN. Label values longer than 256 characters, or with control characters, are cut and
cleaned, and end in a hash that keeps them apart. Values carry 14 significant digits.

`energy_node_*` is disjoint by `component`, so `sum()` is the node. Devices may include each other: never sum
`energy_device_*`. Containers conserve, for each component and at every moment:

    energy_node = energy_container + energy_unattributed + energy_retired

Processes and models are other views of the same joules: do not add them to containers.
"""

_GROUPS = {
    "energy_node_": "Node",
    "energy_device_": "Devices",
    "energy_gpu_": "GPUs",
    "energy_process_": "Processes",
    "energy_container_": "Containers",
    "energy_model_": "Models",
    "energy_unattributed_": "What no workload is charged with",
    "energy_retired_": "What no workload is charged with",
    "energy_conservation_": "What no workload is charged with",
    "energy_power_source_": "Sources and meters",
    "energy_source_": "Sources and meters",
    "energy_meter_": "Sources and meters",
}
_LAST_GROUP = "The exporter itself"
_DAEMON = "The daemon"

_QUERIES = (
    ("Power of the node, now and by component", "sum by (component) (rate(energy_node_joules_total[5m]))"),
    ("Energy of each namespace in the last day, in kWh",
     "sum by (namespace) (increase(energy_container_joules_total[1d])) / 3.6e6"),
    ("The ten models that use most power", "topk(10, sum by (model_name) (rate(energy_model_joules_total[5m])))"),
    ("Joules per generated token, with vLLM's own counter",
     "sum by (model_name) (rate(energy_model_joules_total[5m]))\n"
     "  / on (model_name) sum by (model_name) (rate(vllm:generation_tokens_total[5m]))"),
    ("GPUs that are held but not used: watts wasted by each container",
     'sum by (namespace, pod) (rate(energy_container_joules_total{component="gpu", mode="idle"}[15m]))'),
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


def reference() -> str:
    """Return the whole document."""
    parts = [_INTRO]
    order = list(dict.fromkeys((*_GROUPS.values(), _LAST_GROUP)))
    families = sorted(CATALOGUE, key=lambda family: order.index(_group(family)))
    for title, members in groupby(families, key=_group):
        parts.append(_heading(title))
        parts += map(_row, members)
    parts.append(_heading(_DAEMON))
    parts += map(_row, Instruments().rows())
    parts.append(
        "\nBesides these there are the usual metrics of a Python process: `process_*` (CPU time, memory, file\n"
        "descriptors, start time), `python_info` and `python_gc_*`.\n"
    )
    parts.append("\n## Examples\n")
    parts += [f"\n{title}:\n\n```promql\n{query}\n```\n" for title, query in _QUERIES]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(reference())
