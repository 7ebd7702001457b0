"""Selectors of what `ai-energy-exporter budgets` records: budgets belong to no node.

Where several clusters evaluate budgets of the same name, each is one of its own; where their rules run once for all
clusters, they have no such label.
"""

from __future__ import annotations

BUDGET = 'budget=~"$budget",owner=~"$owner"'
LABELS = "cluster, budget, owner, window"


def used_ratio(where: str = "") -> str:
    """Used part of each budget in its rolling window."""
    return f"max by ({LABELS}) (budget:energy_used:ratio{{{where}}})"


def of_chosen(name: str, *where: str) -> str:
    """A recorded series of the budgets chosen above, in the columns of a table."""
    return f"max by ({LABELS}) ({name}{{{','.join([BUDGET, *where])}}})"
