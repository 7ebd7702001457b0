"""What all dashboards have in common: head, links, annotations, and panels laid out in rows of 24 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    Dashboard,
    DashboardCursorSync,
    GridPos,
    Panel,
    RowPanel,
    VariableModel,
)

from .events import Event, alerts, refused_reloads
from .links import OVERVIEW, TAG, TITLES, all_dashboards

COLUMNS = 24

Placed = tuple[int, Builder[Panel]]
"""Width in columns, and the panel."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side; ``height`` in grid units, of which a laptop's screen shows about 16.

    ``title`` puts the row behind a line that unfolds it: for what is not asked at first.
    """

    height: int
    panels: Sequence[Placed]
    title: str = ""
    id: int = 0


def board(
    uid: str,
    answers: str,
    variables: Sequence[Builder[VariableModel]],
    rows: Sequence[Row],
    *,
    since: str = "now-1h",
    events: Sequence[Event] = (),
) -> Dashboard:
    """A dashboard; ``answers`` is its question in one sentence, ``events`` are annotations of its own."""
    made = (
        build.Dashboard(f"Energy / {TITLES[uid]}")
        .uid(uid)
        .description(answers)
        .tags([TAG])
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("1m")
        .variables(list(variables))
        .link(all_dashboards())
        .build()
    )
    made.annotations = AnnotationContainer([alerts(shown=uid == OVERVIEW), refused_reloads(), *events])
    made.panels = []
    top = 0
    for row in rows:
        if row.title:
            made.panels.append(_folded(row, top))
            top += 1
        else:
            made.panels += _placed(row, top)
            top += row.height
    return made


def _placed(row: Row, top: int) -> list[Panel]:
    left, panels = 0, []
    for width, builder in row.panels:
        panel = builder.build()
        panel.grid_pos = GridPos(h=row.height, w=width, x=left, y=top)
        panels.append(panel)
        left += width
    if left != COLUMNS:
        raise ValueError(f"a row of {left} columns: {', '.join(str(panel.title) for panel in panels)}")
    return panels


def _folded(row: Row, top: int) -> RowPanel:
    folded = build.Row(row.title).id(row.id).collapsed(True).grid_pos(GridPos(h=1, w=COLUMNS, x=0, y=top)).build()
    folded.panels = _placed(row, top + 1)
    return folded
