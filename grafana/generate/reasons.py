"""Why a model costs what it costs: the first of a few findings that hold, as a number with words."""

from __future__ import annotations

from . import queries as q
from .palette import BAD, GOOD, HELD_IDLE, TEXT, WARN

IDLE, THROTTLED, MOSTLY_IDLE, MEMORY_BOUND, COMPUTE_BOUND, UNDERUSED, NOTHING = range(1, 8)
"""In the order in which they are looked for: of several rows, the smallest says most."""

TEXTS = {
    float(IDLE): ("Loaded, does nothing", BAD),
    float(THROTTLED): ("Power or heat limit", WARN),
    float(MOSTLY_IDLE): ("Idle most of the time", HELD_IDLE),
    float(MEMORY_BOUND): ("Memory-bound", TEXT),
    float(COMPUTE_BOUND): ("Compute-bound", GOOD),
    float(UNDERUSED): ("Uses little of its card", WARN),
    float(NOTHING): ("Nothing stands out", TEXT),
}
"""Thresholds: docs/dashboards.md. What memory and tensor cores do is counted by the time in which there is work, or a
server with pauses would never be bound by anything."""


def _mean(ratio: str) -> str:
    return f"avg_over_time({q.series(ratio)}[$__range])"


def why(by: str, *where: str) -> str:
    """One of `TEXTS` for each model; ``by`` are the labels of a row, among them cluster, model_name and namespace.

    What a model's cards do is known where Kubernetes tells whose they are; elsewhere only the idle share speaks.
    """
    rows = f"0 * {q.watts('model', by, *where)}"
    idle = q.idle_share("model", by, *where)

    def of_cards(condition: str) -> str:
        return f"{rows} + on (cluster, model_name, namespace) group_left () 0 * ({condition})"

    at_work = _mean("energy_gpu_sm_active_ratio")
    memory = q.on_cards_of_models(f"{_mean('energy_gpu_dram_active_ratio')} / ({at_work} > 0.02)")
    tensor = q.on_cards_of_models(f"{_mean('energy_gpu_tensor_active_ratio')} / ({at_work} > 0.02)")
    sm = q.on_cards_of_models(at_work)
    held_down = q.on_cards_of_models(q.throttled("cluster, instance, uuid", "$__range"), whole_card=True)
    findings = [
        (IDLE, f"0 * ({idle} > 0.95)"),
        (THROTTLED, of_cards(f"{held_down} > 0.1")),
        (MOSTLY_IDLE, f"0 * ({idle} > 0.5)"),
        (MEMORY_BOUND, of_cards(f"{memory} >= 0.5")),
        (COMPUTE_BOUND, of_cards(f"{tensor} >= 0.5")),
        (UNDERUSED, of_cards(f"{sm} < 0.3")),
        (NOTHING, rows),
    ]
    return " or ".join(f"({condition} + {number})" for number, condition in findings)
