"""What stands in a panel without data: a short text in a neutral colour, and in the description why that may be."""

from __future__ import annotations

from typing import NamedTuple


class Empty(NamedTuple):
    """``text`` has at most 20 letters, because Grafana fits it to the panel: longer ones become unreadable."""

    text: str
    reason: str


NO_EXPORTER = Empty("No exporter", "no exporter of these nodes is up: see the targets of Prometheus.")
NO_METER = Empty("No meter", "no device is metered on these nodes: run ai-energy-exporter doctor.")
NO_GPU = Empty("No GPU", "the exporters of these nodes know no GPU.")
NOT_REPORTED = Empty("Not reported", "the card or its driver does not report it.")
NO_ALLOCATION = Empty("No allocation", "there is no GPU, or Kubernetes reports no allocations.")
NO_WORKLOAD = Empty("No workload", "nothing runs in these namespaces and pods.")
NO_POD = Empty("No pod", "no pod runs here: see the containers below.")
NO_MODEL = Empty("No model", "no model is running here, or none was recognised: see docs/models.md.")
NO_TOKENS = Empty(
    "No tokens",
    "no tokens are counted, or there are no requests: see docs/rules.md.",
)
NO_IMPACT = Empty("No zone, no price", "neither a zone nor a price is known: see docs/impact.md.")
NO_BUDGET = Empty("No budgets", "none is defined: see docs/rules.md.")
NO_RULES = Empty("No rules yet", "the recording rules are not loaded, or have run for less than five minutes.")
