"""Why a model uses its energy: what its cards did, as a number with a text."""

from __future__ import annotations

from . import queries as q
from .palette import BAD, GOOD, TEXT, WARN

LOADED, THROTTLED = 1, 2
"""In this order they come before the activity that took most."""
ACTIVITIES = {
    "idle": (3, "Idle most of the time", WARN),
    "memory_bound": (4, "Memory-bound", TEXT),
    "compute_bound": (5, "Compute-bound", GOOD),
    "underused": (6, "Uses little of its card", WARN),
    "host_bound": (7, "Waits for the host", WARN),
    "mixed": (8, "Nothing stands out", TEXT),
    "unknown": (9, "Not known", TEXT),
    "throttled": (THROTTLED, "Power or heat limit", WARN),
}

LOADED_SHARE, THROTTLED_SHARE = 0.95, 0.1
"""Thresholds: docs/dashboards.md; those of the activities themselves: exporter/accounting/activity.py."""

TEXTS = {
    float(LOADED): ("Loaded, does nothing", BAD),
    **{float(number): (text, colour) for number, text, colour in ACTIVITIES.values()},
}


def why(by: str, *where: str) -> str:
    """One of `TEXTS` for each model; ``by`` are the labels of a row. Models without GPU energy have none."""

    def used(*more: str, each: str = by) -> str:
        return q.total(q.increase("energy_model_activity_joules_total", *where, *more), each)

    def share(activity: str) -> str:
        part = used(f'activity="{activity}"')
        return f"{part} / ({used()} > 0)"

    numbers = " or ".join(
        f'label_replace(vector({number}), "activity", "{name}", "", "")' for name, (number, *_) in ACTIVITIES.items()
    )
    most = f"topk by ({by}) (1, {used(each=f'{by}, activity')} > 0) > bool 0"
    findings = [
        f"0 * ({share('idle')} > {LOADED_SHARE}) + {LOADED}",
        f"0 * ({share('throttled')} > {THROTTLED_SHARE}) + {THROTTLED}",
        f"sum by ({by}) (({most}) * on (activity) group_left () ({numbers}))",
    ]
    return " or ".join(f"({finding})" for finding in findings)
