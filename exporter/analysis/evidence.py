"""Queries for what advice is based on, as a reader asks Prometheus or Grafana."""

from __future__ import annotations

import json
import re

from .advice import Advice, Advised

_MOST_NAMES = 20
"""Pods or containers of a workload that a query names; with more of them it is about all of the namespace."""


def evidence(advice: Advice, advised: Advised) -> tuple[str, str]:
    """The queries of evidence and counter-evidence, with the subject's labels and the window."""
    subject = advice.subject
    labels = {
        "model": {"namespace": subject.namespace, "model_name": subject.name},
        "workload": {"namespace": subject.namespace},
        "node": {"instance": subject.name},
    }[subject.kind]
    cluster = {"cluster": subject.cluster} if subject.cluster else {}
    matchers = [f"{label}={_quoted(value)}" for label, value in (cluster | labels).items()]
    for label, names in zip(("pod", "container"), zip(*advised.containers.get(subject, ()), strict=True), strict=False):
        if len(set(names)) <= _MOST_NAMES:
            matchers.append(f"{label}=~{_quoted('|'.join(map(re.escape, sorted(set(names)))))}")
    window = f"{max(1, round(advised.grid.seconds / 3600))}h"

    def filled(query: str) -> str:
        if subject.kind == "workload":
            query = query.replace("energy_model_joules_total", "energy_container_joules_total")
        return query.replace("$subject", ",".join(matchers)).replace("$range", window)

    return filled(advice.lever.evidence), filled(advice.lever.counter_evidence)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
