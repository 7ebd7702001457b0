"""What tests check of GPU joules by card and by activity."""

from __future__ import annotations

from collections import defaultdict

import pytest

from exporter.records import Workload
from exporter.snapshot import AccountRow, Snapshot


def check_cards(snapshot: Snapshot) -> None:
    """For each container and mode, the sum over its cards is its GPU joules; neither has what the other lacks."""
    by_card: defaultdict[tuple[Workload, str], float] = defaultdict(float)
    for owner, _, mode, joules in snapshot.energy.container_cards:
        by_card[owner, mode] += joules
    whole: dict[tuple[Workload, str], float] = {}
    for row in snapshot.energy.containers:
        assert isinstance(row.owner, Workload)
        cells = zip(row.cells, row.joules, strict=True)
        whole |= {(row.owner, mode): joules for (component, mode), joules in cells if component == "gpu"}
    assert by_card == pytest.approx(whole, rel=1e-12)
    check_activities(snapshot)


def check_activities(snapshot: Snapshot) -> None:
    """For each model, the sum over activities is its GPU joules; a container did not use more than it was charged."""
    for row in snapshot.energy.models:
        assert sum(row.activities.values()) == pytest.approx(_of_gpus(row), rel=1e-9, abs=1e-9)
    for row in snapshot.energy.containers:
        assert sum(row.activities.values()) <= _of_gpus(row) * (1 + 1e-9)


def _of_gpus(row: AccountRow) -> float:
    return sum(joules for (component, _), joules in zip(row.cells, row.joules, strict=True) if component == "gpu")
