"""Energy of the regions of code that the programs of one model report: a row of Model detail, folded."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from . import queries as q
from .board import Row
from .empty import Empty
from .links import WORKLOADS, onward
from .palette import WARN
from .panels import JOULES, KWH, Ask, Line, course
from .table import CLUSTER, Label, Value, table

_NONE = Empty("No regions", "no program of this model reports regions: see docs/regions.md.")
_NO_UNITS = Empty("No units", "no program of this model counts units in its regions: see docs/regions.md.")

_BY = "cluster, region"


def row(*where: str) -> Row:
    """The row for the model, or models, that ``where`` selects."""
    panels = [(7, _power(*where)), (11, _regions(*where)), (6, _per_unit(*where))]
    return Row(9, panels, "Regions of code", 92)


def _power(*where: str) -> Builder[Panel]:
    ask = Ask(
        30,
        "Power by region",
        "Which part of the program uses the energy?",
        "Power of its programs by the region of code that they are in: a part of the power above.",
        _NONE,
        [onward(WORKLOADS)],
    )
    power = q.watts("region", "region", *where)
    return course(ask, [Line(f"topk(12, {power})", "{{region}}")], "watt", stacked=True, summary="bottom")


def _regions(*where: str) -> Builder[Panel]:
    used = q.total(q.increase("energy_region_joules_total", *where), _BY)
    runs = q.total(q.increase("energy_region_runs_total", *where), _BY)

    def watts(of: str) -> str:
        return f"max by ({_BY}) (sum by ({q.NODES}, region) ({q.series(f'energy_region_{of}', *where)}))"

    ask = Ask(
        31,
        "Regions",
        "Which region, or layer, costs most?",
        "Energy and joules per run in the time range; “While in it” are the watts of one program while the region is "
        "its innermost one, “±” half the width of their 90 % interval. Above 30 % they are not identified.",
        _NONE,
        [onward(WORKLOADS)],
    )
    return table(
        ask,
        [CLUSTER, Label("region", "Region")],
        [
            Value("Energy", f"{used} / {q.KWH:g}", KWH, 2, 80, total=True),
            Value("Per run", f"{used} / ({runs} > 0)", JOULES, 1, 80),
            Value("While in it", watts("watts"), "watt", None, 90),
            Value("±", f"{watts('high_watts')} / ({watts('watts')} > 0) - 1", "percentunit", 0, 60, [(0.3, WARN)]),
        ],
        sort="Energy",
    )


def _per_unit(*where: str) -> Builder[Panel]:
    ask = Ask(
        32,
        "Energy per unit",
        "Does a sample or token use more energy than before?",
        "Joules of all its regions by each unit that its programs count.",
        _NO_UNITS,
        [onward(WORKLOADS)],
    )
    joules = q.total(q.rate("energy_region_joules_total", *where))
    units = q.total(q.rate("energy_region_units_total", *where), "unit")
    return course(ask, [Line(f"scalar({joules}) / ({units} > 0)", "{{unit}}")], JOULES)
