"""Budgets: use, burn rate, and time until each is used up."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import budget_queries as b
from .board import Row, board
from .empty import NO_BUDGET, Empty
from .links import BUDGETS, MODELS, WORKLOADS, from_line, from_row, onward
from .palette import BAD, GOOD, TEXT, WARN
from .panels import KWH, Ask, Line, bars, course, number
from .queries import KWH as JOULES
from .table import CLUSTER, Label, Value, table
from .variables import budget, everywhere, owner

_USED = [(0.8, WARN), (1, BAD)]
_GONE = {0.0: ("used up", BAD)}
_BURN = [(1.1, WARN), (2, BAD)]
_SELECTS = {0.0: ("no series", WARN), 1.0: ("ok", TEXT)}
_CALLED = "{{budget}} {{cluster}}"
_ONE = from_line(BUDGETS, "Only this budget", "budget")


def dashboard() -> Dashboard:
    """For the owners of budgets."""
    return board(
        BUDGETS,
        "Which energy budgets hold, which burn too fast, and when will each be used up?",
        [*everywhere(hidden=True), owner(), budget()],
        [
            Row(4, [(4, _exceeded()), (5, _near()), (5, _burning()), (5, _next()), (5, _empty())]),
            Row(9, [(9, _used()), (15, _course())]),
            Row(7, [(24, _list())]),
            Row(9, [(12, _power()), (12, _burn())]),
        ],
        since="now-24h",
    )


def _exceeded() -> Builder[Panel]:
    ask = Ask(
        1,
        "Used up",
        "How many budgets are used up?",
        "Budgets that are used up in their window.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    used = b.of_chosen("budget:energy_used:ratio")
    return number(ask, f"count({used} >= 1) or 0 * count({used})", "none", steps=[(1, BAD)], base=GOOD)


def _near() -> Builder[Panel]:
    ask = Ask(
        2,
        "Nearly used up",
        "How many budgets are nearly used up?",
        "Budgets with 80 % used, not yet all.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    used = b.of_chosen("budget:energy_used:ratio")
    return number(ask, f"count({used} >= 0.8 < 1) or 0 * count({used})", "none", steps=[(1, WARN)], base=GOOD)


def _burning() -> Builder[Panel]:
    ask = Ask(
        3,
        "Fastest burn",
        "How fast does the fastest burn?",
        "Energy of the short span divided by the budget's allowance for it: at 1 the budget lasts exactly its window, "
        "at 2 half of it.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    burn = b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="short"')
    return number(ask, f"max({burn})", "suffix:×", steps=_BURN, base=GOOD, decimals=2)


def _next() -> Builder[Panel]:
    ask = Ask(
        4,
        "Next used up in",
        "When is the next budget used up?",
        "Shortest time until a budget is used up, if its use continues to grow at the same rate. Budgets that will not "
        "be used up in their rolling window are not included.",
        Empty("None", "no budget will be used up, or none is defined: see docs/rules.md."),
        [onward(WORKLOADS)],
    )
    left = b.of_chosen("budget:energy_exhausted_in:seconds")
    return number(ask, f"min({left} > 0)", "s", steps=[(86400, WARN), (259200, GOOD)], base=BAD)


def _empty() -> Builder[Panel]:
    ask = Ask(
        10,
        "Without series",
        "How many budgets select nothing?",
        "Budgets whose selector matched no series in their whole window: a typing error, or none of their workloads "
        "ran yet. See docs/rules.md.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    selected = b.of_chosen("budget:energy_selected:bool")
    return number(ask, f"count({selected} == 0) or 0 * count({selected})", "none", steps=[(1, WARN)], base=GOOD)


def _used() -> Builder[Panel]:
    ask = Ask(
        5,
        "Use in the window",
        "How much of each is used?",
        "Used share in the rolling window of each budget. It falls when old use leaves the window.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    lines = [Line(f"sort_desc({b.of_chosen('budget:energy_used:ratio')})", "{{budget}} ({{window}}) {{cluster}}")]
    return bars(ask, lines, "percentunit", steps=_USED, base=GOOD, most=2, decimals=0, follow=_ONE)


def _course() -> Builder[Panel]:
    ask = Ask(
        6,
        "Use over time",
        "How does the use change?",
        "Used share over time, with the line at which a budget is used up.",
        NO_BUDGET,
        [onward(WORKLOADS)],
    )
    lines = [Line(b.of_chosen("budget:energy_used:ratio"), _CALLED)]
    return course(ask, lines, "percentunit", steps=_USED, summary="right", follow=_ONE)


def _list() -> Builder[Panel]:
    left = b.of_chosen("budget:energy_exhausted_in:seconds")
    ask = Ask(
        7,
        "Budgets",
        "Which owner has which budget, and how long will it last?",
        "Every budget with its owner and window. Burn is the energy of the short and the long span divided by the "
        "budget's allowance for them; above 2 in both an alert fires. Lasts is empty for a budget that will not be "
        "used up. A selector matches no series if it has a typing error or none of its workloads ran in the window.",
        NO_BUDGET,
    )
    return table(
        ask,
        [
            Label("budget", "Budget", 0, from_row(BUDGETS, "Only this budget", budget="Budget")),
            CLUSTER,
            Label("owner", "Owner", 150),
            Label("window", "Window", 90),
        ],
        [
            Value("Selector", b.of_chosen("budget:energy_selected:bool"), "none", 0, 100, texts=_SELECTS),
            Value("Budget kWh", f"{b.of_chosen('energy_budget_joules')} / {JOULES:g}", KWH, 1, 120),
            Value("Used kWh", f"{b.of_chosen('budget:energy_used_joules:sum')} / {JOULES:g}", KWH, 1, 120),
            Value("Used", b.of_chosen("budget:energy_used:ratio"), "percentunit", 0, 190, _USED, GOOD, 2),
            Value(
                "Burn", b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="short"'), "suffix:×", 2, 80, _BURN
            ),
            Value(
                "Burn, long",
                b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="long"'),
                "suffix:×",
                2,
                100,
                _BURN,
            ),
            Value("Lasts", left, "s", None, 120, [(86400, WARN), (259200, TEXT)], BAD, texts=_GONE),
        ],
        sort="Used",
    )


def _power() -> Builder[Panel]:
    ask = Ask(
        8,
        "Power",
        "How much power does each draw?",
        "Power of the workloads that a budget selects, over five minutes.",
        NO_BUDGET,
        [onward(MODELS)],
    )
    return course(
        ask, [Line(b.of_chosen("budget:energy_joules:rate5m"), _CALLED)], "watt", summary="right", follow=_ONE
    )


def _burn() -> Builder[Panel]:
    ask = Ask(
        9,
        "Burn rate",
        "Does any burn too fast?",
        "Energy of the long span divided by the budget's allowance for it. At 1 the budget lasts exactly its window.",
        NO_BUDGET,
        [onward(MODELS)],
    )
    burn = b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="long"')
    return course(
        ask, [Line(burn, _CALLED)], "suffix:×", decimals=2, steps=[(1, WARN), (2, BAD)], summary="right", follow=_ONE
    )
