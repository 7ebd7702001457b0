"""Budgets: which hold, which burn too fast, and when each will be used up."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import budget_queries as b
from .board import Row, board
from .links import BUDGETS, MODELS, WORKLOADS, onward
from .palette import BAD, GOOD, TEXT, WARN
from .panels import Ask, Line, bars, course, number
from .queries import KWH
from .table import CLUSTER, Label, Value, table
from .variables import budget, everywhere, owner

NO_BUDGETS = "No budgets: write prometheus/budgets.yaml, see docs/rules.md"

_USED = [(0.8, WARN), (1, BAD)]
_GONE = {0.0: ("used up", BAD)}
_BURN = [(1.1, WARN), (2, BAD)]
_SELECTS = {0.0: ("nothing", WARN), 1.0: ("something", TEXT)}
_CALLED = "{{budget}} {{cluster}}"


def dashboard() -> Dashboard:
    """For whoever answers for a budget."""
    return board(
        BUDGETS,
        "Which energy budgets hold, which burn too fast, and when will each be used up?",
        [*everywhere(hidden=True), owner(), budget()],
        [
            Row(4, [(4, _exceeded()), (5, _near()), (5, _burning()), (5, _next()), (5, _empty())]),
            Row(9, [(10, _used()), (14, _course())]),
            Row(7, [(24, _list())]),
            Row(9, [(12, _power()), (12, _burn())]),
        ],
        since="now-24h",
    )


def _exceeded() -> Builder[Panel]:
    ask = Ask(1, "How many are used up?", "Budgets of which all is used.", NO_BUDGETS, [onward(WORKLOADS)])
    used = b.of_chosen("budget:energy_used:ratio")
    return number(ask, f"count({used} >= 1) or 0 * count({used})", "none", steps=[(1, BAD)], base=GOOD)


def _near() -> Builder[Panel]:
    ask = Ask(
        2, "How many are nearly used up?", "Budgets with 80 % used, not yet all.", NO_BUDGETS, [onward(WORKLOADS)]
    )
    used = b.of_chosen("budget:energy_used:ratio")
    return number(ask, f"count({used} >= 0.8 < 1) or 0 * count({used})", "none", steps=[(1, WARN)], base=GOOD)


def _burning() -> Builder[Panel]:
    ask = Ask(
        3,
        "How fast does the fastest burn?",
        "Energy of the short span by what the budget allows in it: at 1 it lasts exactly its window, at 2 half.",
        NO_BUDGETS,
        [onward(WORKLOADS)],
    )
    burn = b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="short"')
    return number(ask, f"max({burn})", "none", steps=_BURN, base=GOOD, decimals=2)


def _next() -> Builder[Panel]:
    ask = Ask(
        4,
        "When is the next one used up?",
        "Shortest time to the end of a budget, if its use goes on growing as it does. Nothing grows without end in a "
        "rolling window: a budget that holds is not in it.",
        "None is on its way to its end",
        [onward(WORKLOADS)],
    )
    left = b.of_chosen("budget:energy_exhausted_in:seconds")
    return number(ask, f"min({left} > 0)", "s", steps=[(86400, WARN), (259200, GOOD)], base=BAD, decimals=1)


def _empty() -> Builder[Panel]:
    ask = Ask(
        10,
        "How many select nothing?",
        "Budgets whose selector matched no joule in their whole window: a typing error, or nothing of theirs ran yet. "
        "See docs/rules.md.",
        NO_BUDGETS,
        [onward(WORKLOADS)],
    )
    selected = b.of_chosen("budget:energy_selected:bool")
    return number(ask, f"count({selected} == 0) or 0 * count({selected})", "none", steps=[(1, WARN)], base=GOOD)


def _used() -> Builder[Panel]:
    ask = Ask(
        5,
        "How much of each is used?",
        "Used part in the rolling window of each budget. It falls again when old use leaves the window.",
        NO_BUDGETS,
        [onward(WORKLOADS)],
    )
    lines = [Line(f"sort_desc({b.of_chosen('budget:energy_used:ratio')})", "{{budget}} ({{window}}) {{cluster}}")]
    return bars(ask, lines, "percentunit", steps=_USED, most=1.2, decimals=0)


def _course() -> Builder[Panel]:
    ask = Ask(
        6,
        "Which way do they go?",
        "Used part over time, with the line at which each is used up.",
        NO_BUDGETS,
        [onward(WORKLOADS)],
    )
    lines = [Line(b.of_chosen("budget:energy_used:ratio"), _CALLED)]
    return course(ask, lines, "percentunit", steps=_USED)


def _list() -> Builder[Panel]:
    left = b.of_chosen("budget:energy_exhausted_in:seconds")
    ask = Ask(
        7,
        "Whose are they, and how long will they last?",
        "Every budget with its owner and window. Burn is the energy of the short and the long span by what the "
        "budget allows in them; above 2 in both an alert fires. Lasts is empty for a budget that holds. Where "
        "nothing is selected, the selector has a typing error, or nothing of it ran in the window.",
        NO_BUDGETS,
    )
    return table(
        ask,
        [
            Label("budget", "Budget", 0, onward(BUDGETS, "Only this budget", budget="Budget")),
            CLUSTER,
            Label("owner", "Owner", 150),
            Label("window", "Window", 90),
        ],
        [
            Value("Selects", b.of_chosen("budget:energy_selected:bool"), "none", 0, 100, texts=_SELECTS),
            Value("Budget kWh", f"{b.of_chosen('energy_budget_joules')} / {KWH:g}", "kwatth", 1, 120),
            Value("Used kWh", f"{b.of_chosen('budget:energy_used_joules:sum')} / {KWH:g}", "kwatth", 1, 120),
            Value("Used", b.of_chosen("budget:energy_used:ratio"), "percentunit", 0, 190, _USED, GOOD, 1.2),
            Value("Burn", b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="short"'), "none", 2, 80, _BURN),
            Value(
                "Burn, long",
                b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="long"'),
                "none",
                2,
                100,
                _BURN,
            ),
            Value("Lasts", f"{left}", "s", 1, 120, [(86400, WARN), (259200, TEXT)], BAD, texts=_GONE),
        ],
        sort="Used",
    )


def _power() -> Builder[Panel]:
    ask = Ask(
        8,
        "How much power goes to each?",
        "Power of whatever a budget selects, over five minutes.",
        NO_BUDGETS,
        [onward(MODELS)],
    )
    return course(ask, [Line(b.of_chosen("budget:energy_joules:rate5m"), _CALLED)], "watt")


def _burn() -> Builder[Panel]:
    ask = Ask(
        9,
        "Does any burn faster than it may?",
        "Energy of the long span by what the budget allows in it. At 1 the budget lasts exactly its window.",
        NO_BUDGETS,
        [onward(MODELS)],
    )
    burn = b.of_chosen("budget:energy_burn:ratio", 'burn="fast"', 'span="long"')
    return course(ask, [Line(burn, _CALLED)], "none", decimals=2, steps=[(1, WARN), (2, BAD)])
