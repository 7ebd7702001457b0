"""Meaning of each colour, on the dashboards and on the exporter's status page."""

from __future__ import annotations

COMPONENT = {"cpu": "#6EA2FF", "dram": "#B893F5", "gpu": "#3ECB97", "other": "#8796AA"}

ACTIVE, HELD_IDLE, NODE_IDLE, LOST = "#4CB8D6", "#EFB458", "#8A6A33", "#C77DBB"
"""Work; idle power of devices that a workload holds; idle power of the node; unexplained energy."""

MODE = {"active": ACTIVE, "idle": HELD_IDLE}
UNUSED = "#E4573D"
"""Power of GPUs that are held while nothing is done on them."""

ACTIVITY = {
    "idle": UNUSED,
    "throttled": "#D6557E",
    "underused": HELD_IDLE,
    "host_bound": COMPONENT["cpu"],
    "memory_bound": COMPONENT["dram"],
    "compute_bound": COMPONENT["gpu"],
    "mixed": ACTIVE,
    "unknown": COMPONENT["other"],
}
PHASE = {"training": "#E889B8", "inference": "#8FC7F0", "unknown": "#71809A"}

PLAIN = "#71809A"
"""A series shown only for comparison."""

TEXT, GOOD, WARN, BAD = "text", "green", "dark-orange", "red"
"""Neutral; healthy; look at it soon; look at it now. Grafana's names: darker in its light theme, to be legible.

Text has one of these; the colours above are for areas and lines."""

SEVERITY = {"critical": ("critical", BAD), "warning": ("warning", WARN), "info": ("info", TEXT)}
