"""The rules of budgets: amounts used, burn rates, time until exhaustion, and alerts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config.value_types import show_duration
from .budget import DAY, MINUTE, UNITS, WINDOWS, Budget, Burn, Unit, Window
from .selector import rate

Rule = dict[str, Any]
"""A rule or a group of rules in its YAML structure."""

SAMPLE_SECONDS = MINUTE
"""Time that one sample of a budget's consumption covers: the evaluation interval of its rules."""

SELECTED = "budget:energy_selected:bool"
RATIO = "budget:energy_used:ratio"
BURN = "budget:energy_burn:ratio"
LEFT = "budget:energy_exhausted_in:seconds"


def groups(budgets: Sequence[Budget]) -> list[Rule]:
    """All groups of rules: two or three rules for each budget, the others shared by all budgets of a window."""
    used = {
        window: [unit for unit in UNITS.values() if any((b.window, b.unit) == (window, unit) for b in budgets)]
        for window in WINDOWS.values()
        if any(budget.window is window for budget in budgets)
    }
    return [
        _group("energy-budgets", SAMPLE_SECONDS, (rule for budget in budgets for rule in _of_budget(budget))),
        *(_group(f"energy-budgets-{w.name}", w.interval, _of_window(w, units)) for w, units in used.items()),
        _group("energy-budgets-alerts", SAMPLE_SECONDS, _alerts(list(used))),
    ]


def _group(name: str, seconds: int, rules: Iterable[Rule]) -> Rule:
    return {"name": name, "interval": show_duration(seconds), "rules": list(rules)}


def _of_budget(budget: Budget) -> Iterator[Rule]:
    unit, window = budget.unit, budget.window
    labels = budget.labels | ({"currency": budget.currency} if budget.currency else {})
    yield {"record": unit.amount, "expr": f"vector({budget.amount:.15g})", "labels": labels}
    yield {"record": unit.rate, "expr": rate(budget.selector, unit, budget.currency), "labels": labels}
    if window.calendar:
        # one series for each month, so that a range of 31 days has the samples of this month apart
        own = f'{unit.rate}{{budget="{budget.name}", window="{window.name}"}}'
        month = f'{own}\n  * on () group_left (month)\ncount_values("month", month())'
        yield {"record": unit.rate_of_month, "expr": month, "labels": labels}


def _of_window(window: Window, units: Sequence[Unit]) -> Iterator[Rule]:
    matcher = f'{{window="{window.name}"}}'
    labels = {"window": window.name}  # the series have it already; without it promtool reports duplicate rules
    for unit in units:
        yield {"record": unit.used, "expr": _used(unit, window, matcher), "labels": labels}
    yield {
        "record": RATIO,
        "expr": _either(f"{unit.used}{matcher} / {unit.amount}" for unit in units),
        "labels": labels,
    }
    # No alert uses it: a typing error and a team without consumption so far cannot be distinguished.
    yield {
        "record": SELECTED,
        "expr": _either(f"{unit.used}{matcher} >= bool 0\n  or\n0 * {unit.amount}{matcher}" for unit in units),
        "labels": labels,
    }
    for burn in window.burns:
        for span, seconds in (("long", burn.long), ("short", burn.short)):
            yield {
                "record": BURN,
                # joules in the span over those the budget allows in it, not mean power: half an hour of work in a span
                # of six counts with a twelfth of its power
                "expr": _either(
                    f"{_sum(unit.rate, matcher, seconds)}\n  / ({unit.amount} * {seconds} / {window.length})"
                    for unit in units
                ),
                "labels": labels | {"burn": burn.name, "span": span},
            }
    # a second less: Prometheus 2 takes a sample at the very beginning of a range too, Prometheus 3 does not
    growth = f"deriv({RATIO}{matcher}[{show_duration(window.lookback - 1)}])"
    left = f"clamp_min(1 - {RATIO}{matcher}, 0) / ({growth} > 0)"
    if window.calendar:
        # what lasts until the next month begins is not used up
        until = f"scalar((days_in_month() - day_of_month() + 1) * {DAY}) - time() % {DAY}"
        yield {"record": LEFT, "expr": f"{left}\n  < {until}", "labels": labels}
        return
    recent = show_duration(window.burns[-1].long - 1)
    young = _either(
        f"avg_over_time({unit.rate}{matcher}[{recent}]) <= {unit.amount} / {window.seconds}\n"
        f"  unless {unit.rate}{matcher} offset {show_duration(window.seconds)}"
        for unit in units
    )
    # no energy leaves a window that is not full yet, so in the first window consumption grows at any power; the budget
    # will only be used up if the power is above what it allows, and within a window, because it grows no longer
    yield {"record": LEFT, "expr": f"{left}\n  < {window.seconds}\n  unless\n({young})", "labels": labels}


def _either(expressions: Iterable[str]) -> str:
    """The values of several units, of which each budget has one."""
    return "\n  or\n".join(expressions)


def _used(unit: Unit, window: Window, matcher: str) -> str:
    if not window.calendar:
        return _sum(unit.rate, matcher, window.seconds)
    this = 'count_values("month", month())'
    return f"sum without (month) (\n  {_sum(unit.rate_of_month, matcher, window.seconds)}\n    and on (month) {this}\n)"


def _sum(series: str, matcher: str, seconds: int) -> str:
    # one second less: a range includes both ends, and would contain one sample too many
    return f"sum_over_time({series}{matcher}[{show_duration(seconds - 1)}]) * {SAMPLE_SECONDS}"


def _alerts(windows: Sequence[Window]) -> Iterator[Rule]:
    fast, medium, slow = (next(iter(WINDOWS.values())).burns[index] for index in range(3))
    milder = '{{ if eq $labels.severity "info" }}info{{ else }}warning{{ end }}'
    yield _alert(
        "EnergyBudgetBurnFast",
        f"max without (burn, span) (\n{_burning(fast)}\n)",
        "An energy budget is consumed at twice the rate it allows.",
        "Budget {{ $labels.budget }} of {{ $labels.owner }} is consumed at {{ $value | humanize }} times the rate it "
        f"allows over its window ({{{{ $labels.window }}}}), more than {fast.factor:g} times in both the long and the "
        "short span.",
        milder,
    )
    yield _alert(
        "EnergyBudgetBurnSlow",
        f"max without (burn, span) (\n{_burning(medium)}\n    or\n{_burning(slow)}\n)",
        "An energy budget has been consumed above its rate for a long time.",
        "Budget {{ $labels.budget }} of {{ $labels.owner }} is consumed at {{ $value | humanize }} times the rate it "
        f"allows over its window ({{{{ $labels.window }}}}): above {medium.factor:g} times, "
        f"or above {slow.factor:g} times for longer.",
        "info",
    )
    due = "\n    or\n".join(f'{LEFT}{{window="{window.name}"}} < {window.horizon}' for window in windows)
    yield _alert(
        "EnergyBudgetProjectedExhaustion",
        f"(\n{_indented(due)}\n)\n  and {RATIO} > 0.5 < 1",
        "An energy budget will soon be used up.",
        "Budget {{ $labels.budget }} of {{ $labels.owner }} ({{ $labels.window }}) will be used up in "
        "{{ $value | humanizeDuration }} at the current rate.",
        milder,
    )
    yield _alert(
        "EnergyBudget80Percent",
        f"{RATIO} >= 0.8 < 1",
        "80 % of an energy budget is used.",
        "{{ $labels.owner }} has used {{ $value | humanizePercentage }} of budget {{ $labels.budget }} "
        "({{ $labels.window }}).",
        milder,
    )
    yield _alert(
        "EnergyBudgetExceeded",
        f"{RATIO} >= 1",
        "An energy budget is used up.",
        "{{ $labels.owner }} has used {{ $value | humanizePercentage }} of budget {{ $labels.budget }} "
        "({{ $labels.window }}).",
    )


def _burning(burn: Burn) -> str:
    long, short = (f'{BURN}{{burn="{burn.name}", span="{span}"}} > {burn.factor:g}' for span in ("long", "short"))
    return f"  {long}\n    and ignoring (span)\n  {short}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _alert(name: str, expression: str, summary: str, description: str, severity: str = "") -> Rule:
    """An alert. ``severity`` overrides that of the budget, which is a label of its series."""
    # an alert that oscillates around its threshold sends one notification, not ten
    rule: Rule = {"alert": name, "expr": expression, "keep_firing_for": show_duration(15 * MINUTE)}
    if severity:
        rule["labels"] = {"severity": severity}
    rule["annotations"] = {
        "summary": summary,
        "description": description,
        "runbook_url": f"docs/runbooks/{name}.md",
        "dashboard_url": "/d/energy-budgets?var-budget={{ $labels.budget | urlquery }}",
    }
    return rule
