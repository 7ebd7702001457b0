"""Why a model uses its energy: the first of a few findings that applies, as a number with a text."""

from __future__ import annotations

from . import queries as q
from .palette import BAD, GOOD, TEXT, WARN

IDLE, THROTTLED, MOSTLY_IDLE, MEMORY_BOUND, COMPUTE_BOUND, UNDERUSED, NOTHING = range(1, 8)
"""In order of precedence: of several rows, the smallest number counts."""

TEXTS = {
    float(IDLE): ("Loaded, does nothing", BAD),
    float(THROTTLED): ("Power or heat limit", WARN),
    float(MOSTLY_IDLE): ("Idle most of the time", WARN),
    float(MEMORY_BOUND): ("Memory-bound", TEXT),
    float(COMPUTE_BOUND): ("Compute-bound", GOOD),
    float(UNDERUSED): ("Uses little of its card", WARN),
    float(NOTHING): ("Nothing stands out", TEXT),
}
"""Thresholds: docs/dashboards.md. Memory and tensor activity are divided by the share of time with work; otherwise a
server with pauses would never be bound by anything."""


def _mean(ratio: str) -> str:
    return f"avg_over_time({q.series(ratio)}[$__range])"


def why(by: str, *where: str) -> str:
    """One of `TEXTS` for each model; ``by`` are the labels of a row, among them cluster, model_name and namespace.

    The activity of a model's cards is known only where Kubernetes reports allocations; elsewhere the idle share is.
    """
    rows = f"0 * {q.watts('model', by, *where)}"
    idle = q.idle_share("model", by, *where)

    def of_cards(condition: str) -> str:
        return f"{rows} + on (cluster, model_name, namespace) group_left () 0 * ({condition})"

    at_work = _mean("energy_gpu_sm_active_ratio")
    memory = q.on_cards_of_models(f"{_mean('energy_gpu_dram_active_ratio')} / ({at_work} > 0.02)")
    tensor = q.on_cards_of_models(f"{_mean('energy_gpu_tensor_active_ratio')} / ({at_work} > 0.02)")
    sm = q.on_cards_of_models(at_work)
    throttled = q.on_cards_of_models(q.throttled("cluster, instance, uuid", "$__range"), whole_card=True)
    findings = [
        (IDLE, f"0 * ({idle} > 0.95)"),
        (THROTTLED, of_cards(f"{throttled} > 0.1")),
        (MOSTLY_IDLE, f"0 * ({idle} > 0.5)"),
        (MEMORY_BOUND, of_cards(f"{memory} >= 0.5")),
        (COMPUTE_BOUND, of_cards(f"{tensor} >= 0.5")),
        (UNDERUSED, of_cards(f"{sm} < 0.3")),
        (NOTHING, rows),
    ]
    return " or ".join(f"({condition} + {number})" for number, condition in findings)
