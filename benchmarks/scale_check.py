"""Every shipped rule and every query of the dashboards, in several engines, on the same data.

``make scale-check``, or ``python -m benchmarks.scale_check [--data FOLDER] [--prometheus VERSION=PROGRAM]...
[--victoria-metrics VERSION=PROGRAM]...``; takes Debian's packages prometheus and victoria-metrics. The data are those
that `grafana.render` makes: a simulated node for a week, with all that the rules record, the first five minutes of it,
and nothing. Debian's Prometheus is what the others are compared with. Where an answer differs by more than 1 %, or has
other series, the difference must be of a kind that docs/scale.md explains. Returns 1 if one is not, or if an engine
refuses a query.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import yaml

from grafana.render import history, storage
from grafana.render.states import DAY, MINUTES, NOTHING, STATES, Data, State
from tests.support.boards import BOARDS, filled, panels, variables

from .engines import Answer, Engine, Refused, copy, prometheus, version, victoria_metrics
from .table import show, verdict

RULES = Path(__file__).resolve().parent.parent / "prometheus" / "rules"
NEAR = 0.01
POINTS = 800
"""Of a graph: about as many as Grafana asks for."""
MOMENTS = 6
"""At which rules are asked, two hours apart at most."""

BETWEEN_SECONDS = 7.0
"""Before the end of the data single values are asked: between two scrapes and two evaluations, as almost every moment
is. Those of the data are at multiples of their interval, and so would be one at the very beginning of each window of
hours, which Prometheus 2 counts and 3 does not; a Prometheus evaluates each group at an offset of its own."""

FIRST = {"model_name": ["Qwen/Qwen2.5-7B-Instruct"]}
"""What Grafana chooses where there is no "All"."""


class Question(NamedTuple):
    """A query at ``end``; with a ``step`` over a range that begins at ``start``. Times are in Unix seconds.

    A rule is asked at `MOMENTS`, each ``before`` seconds before the other.
    """

    where: str
    expression: str
    end: float
    start: float = 0.0
    step: float = 0.0
    before: float = 0.0

    @property
    def is_rule(self) -> bool:
        """Whether it is a recording rule or an alert."""
        return self.where.startswith("rule: ")

    def ask(self, engine: Engine) -> Answer:
        """The answer of one engine; raises `Refused`."""
        if self.step:
            return engine.course(self.expression, self.start, self.end, self.step)
        if not self.is_rule:
            return engine.instant(self.expression, self.end)
        found: Answer = {}
        for number in range(MOMENTS):
            for labels, values in engine.instant(self.expression, self.end - number * self.before).items():
                found.setdefault(labels, {})[number] = sum(values.values())
        return found


def hours(state: State, board: str) -> float:
    """The time range of a dashboard in a state, in hours."""
    own = re.fullmatch(r"now-(\d+)h", BOARDS[board]["time"]["from"])
    return state.hours or float(own[1] if own else 6)


def of_boards(state: State) -> Iterator[Question]:
    """Panels, annotations and drop-downs of all dashboards, as Grafana would ask for them in a state."""
    for uid in BOARDS:
        yield from of_board(uid, state)


def of_board(uid: str, state: State) -> Iterator[Question]:
    """The same of one dashboard."""
    board, scrape = BOARDS[uid], float(state.data.scrape.removesuffix("s"))
    seconds = hours(state, uid) * 3600
    step = max(15.0, math.ceil(seconds / POINTS / 15) * 15)
    window, start = max(step + scrape, 4 * scrape), history.END - seconds
    chosen = {name: "|".join(values) for name, values in {**FIRST, **state.chosen.get(uid, {})}.items()}
    for name in chosen.keys() & variables(board).keys():
        if variables(board)[name]["includeAll"]:  # a regular expression in a string
            chosen[name] = re.sub(r"([.+*?()\[\]{}^$\\])", r"\\\\\1", chosen[name])

    def fill(expression: str) -> str:
        return filled(expression, uid, f"{window:g}s", f"{seconds:g}s", **chosen)

    for panel in panels(board):
        for target in panel["targets"]:
            where, expression = f"{uid}: {panel['title']}", fill(target["expr"])
            if panel.get("timeFrom"):  # bars of days
                yield Question(where, expression, history.END, history.END - 6 * 86_400, 86_400.0)
            elif target.get("range"):
                yield Question(where, expression, history.END, start, step)
            else:
                yield Question(where, expression, history.END - BETWEEN_SECONDS)
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield Question(f"{uid}: {annotation['name']}", fill(annotation["expr"]), history.END, start, 60.0)
    for name, variable in variables(board).items():
        if variable["type"] == "query" and (asked := listed(variable["query"])):
            yield Question(f"{uid}: ${name}", fill(asked), history.END - BETWEEN_SECONDS)


def listed(query: str) -> str:
    """The PromQL that lists what a drop-down lists."""
    if found := re.fullmatch(r"query_result\((.*)\)", query, re.DOTALL):
        return found[1]
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", query, re.DOTALL)
    return f"group by ({found[2]}) ({found[1]})" if found else ""


def of_rules(data: Data) -> Iterator[Question]:
    """Every recording rule and alert, at moments over the hours that have all samples."""
    if not data.stretches:
        return
    seconds = min(data.stretches[-1].hours * 3600 / 2, 7200.0)
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                name = f"rule: {rule.get('record') or rule['alert']}"
                yield Question(name, rule["expr"], history.END - BETWEEN_SECONDS, before=seconds / MOMENTS)


class Difference(NamedTuple):
    """How two answers differ: series of one only, the greatest relative difference of a value, and that of the sums.

    ``whole`` compares the sums over all series and times: what a graph's area or a table's total is.
    """

    fewer: int
    more: int
    worst: float
    whole: float

    @property
    def counts(self) -> bool:
        """Whether it is one at all."""
        return bool(self.fewer or self.more or self.worst > NEAR)


class Kind(NamedTuple):
    """A difference that docs/scale.md explains, in expressions that match, up to a difference of the sums.

    ``course`` is that limit for graphs, ``rule`` for a rule at all its moments, ``instant`` for single values,
    ``young`` for series of five minutes. With ``same_values`` only the series differ, with ``renamed`` as many are
    missing as there are others.
    """

    name: str
    pattern: str
    course: float
    rule: float
    instant: float
    young: float
    same_values: bool = False
    renamed: bool = False

    def explains(self, question: Question, difference: Difference, *, young: bool) -> bool:
        """Whether it is of this kind."""
        limit = self.course if question.step else self.rule if question.is_rule else self.instant
        limit = self.young if young else limit
        return (
            re.search(self.pattern, question.expression, re.DOTALL) is not None
            and difference.whole <= limit
            and not (self.same_values and difference.worst > NEAR)
            and not (self.renamed and not 0 < difference.fewer == difference.more)
        )


KINDS = (
    Kind("rows at the end of a list", r"\b(topk|bottomk)\b", 0.05, 0.05, 0.05, 0.05, same_values=True),
    Kind("change to a week before, near 0", r"offset 1w.* - 1\b", 0.0, 0.0, 2.0, 2.0),
    Kind("name of a model that a server does not give", r"\bserved_model\b", 0.05, 0.05, 0.05, 1.0, renamed=True),
    Kind("window of a counter", r"\b(rate|increase|resets)\(", 0.05, 0.1, 0.3, 1.0),
    Kind("a sample of exactly five minutes ago", r"energy_container_info", 0.0, 0.0, 0.0, 0.05, same_values=True),
    Kind("a series of one sample", r":rate5m\b", 0.0, 0.0, 0.0, 1.0),
)


def apart(one: float, other: float) -> float:
    """The relative difference of two values; 1 if only one of them is finite."""
    if one == other or max(abs(one), abs(other)) < 1e-9:
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return 1.0
    return abs(one - other) / max(abs(one), abs(other))


def compare(one: Answer, other: Answer) -> Difference:
    """Series and values of two answers. A point that only one of them has differs by 1."""
    worst = 0.0
    for labels in one.keys() & other.keys():
        here, there = one[labels], other[labels]
        for at in here.keys() | there.keys():
            worst = max(worst, apart(here[at], there[at]) if at in here and at in there else 1.0)
    sums = [sum(sum(values.values()) for values in answer.values()) for answer in (one, other)]
    return Difference(len(one.keys() - other.keys()), len(other.keys() - one.keys()), worst, apart(*sums))


class Tally:
    """What one engine answered."""

    def __init__(self) -> None:
        self.states: dict[str, Counter[str]] = {}
        self.kinds: dict[str, list[Difference]] = {kind.name: [] for kind in KINDS}
        self.faults: list[str] = []

    def add(self, state: str, question: Question, expected: Answer, answer: Answer | Refused, *, young: bool) -> None:
        """Count one answer beside the expected one; ``young`` is where no series is older than five minutes."""
        row = self.states.setdefault(state, Counter())
        row["queries"] += 1
        where = f"{state}: {question.where}"
        if isinstance(answer, Refused):
            self.faults.append(f"{where}: refused: {answer}")
        elif not expected and not answer:
            row["empty"] += 1
        elif not (difference := compare(expected, answer)).counts:
            row["same"] += 1
        elif kind := next((kind for kind in KINDS if kind.explains(question, difference, young=young)), None):
            row["differ"] += 1
            self.kinds[kind.name].append(difference)
        else:
            row["differ"] += 1
            numbers = (
                f"{difference.fewer} missing, {difference.more} more, {difference.worst:.2%}, {difference.whole:.2%}"
            )
            self.faults.append(f"{where}: {numbers}: {' '.join(question.expression.split())}")

    def report(self, name: str) -> None:
        """Print what was counted."""
        columns = ("queries", "empty", "same", "differ")
        show(
            name, ("state", *columns), [(key, *(str(row[one]) for one in columns)) for key, row in self.states.items()]
        )
        rows = [
            (kind, str(len(found)), f"{max(one.worst for one in found):.0%}", f"{max(one.whole for one in found):.1%}")
            for kind, found in self.kinds.items()
            if found
        ]
        show("Differences", ("kind", "queries", "most, of a value", "most, of the sum"), rows)
        for fault in self.faults:
            print(f"NOT EXPLAINED: {fault}")


def named(extra: str) -> tuple[str, str]:
    """Version and program of an option."""
    name, separator, program = extra.partition("=")
    if not separator or shutil.which(program) is None:
        raise SystemExit(f"{extra}: not VERSION=PROGRAM, or no such program")
    return name, program


def check(data: Data, folder: Path, scratch: Path, options: argparse.Namespace, tallies: dict[str, Tally]) -> None:
    """Ask all engines everything that belongs to this data."""
    folder.mkdir(parents=True, exist_ok=True)
    began = history.END - sum(stretch.hours for stretch in data.stretches) * 3600
    with ExitStack() as stack:
        baseline = stack.enter_context(prometheus(folder, f"Prometheus {version('prometheus')}"))
        others = []
        for name, program in map(named, options.prometheus):
            shutil.copytree(folder, copied := scratch / f"{data.name}-{name}", ignore=shutil.ignore_patterns("lock"))
            others.append(stack.enter_context(prometheus(copied, f"Prometheus {name}", program)))
        for name, program in [(version("victoria-metrics"), "victoria-metrics"), *map(named, options.victoria_metrics)]:
            own = scratch / f"{data.name}-victoria-{name}"
            other = stack.enter_context(victoria_metrics(own, f"VictoriaMetrics {name}", program))
            copy(baseline, other, began, history.END)
            others.append(other)
        asked = [(f"rules, {data.name}", question) for question in of_rules(data)]
        asked += [(state.name, question) for state in STATES if state.data == data for question in of_boards(state)]
        for state, question in asked:
            expected = question.ask(baseline)
            for engine in others:
                try:
                    answer: Answer | Refused = question.ask(engine)
                except Refused as refusal:
                    answer = refusal
                tallies.setdefault(engine.name, Tally()).add(state, question, expected, answer, young=data is MINUTES)


def are_accepted() -> bool:
    """Whether Debian's vmagent and vmalert accept the shipped flags, configuration and rules."""
    met = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "prometheus"
        shutil.copytree(RULES.parent, folder)
        for path in (folder / "rules").glob("*.yml"):  # docs/rules.md#vmalert
            path.write_text(re.sub(r" +keep_firing_for:.*\n", "", path.read_text(encoding="utf-8")), encoding="utf-8")
        for program in ("vmagent", "vmalert"):
            own = folder / "scale" / "victoria-metrics"
            flags = (own / f"{program}.args").read_text(encoding="utf-8").split()
            flags = [flag.replace("/var/lib", name) for flag in flags]
            done = subprocess.run([program, "-dryRun", *flags], cwd=own, capture_output=True, text=True, check=False)
            met &= done.returncode == 0
            print(f"{program} {version('victoria-metrics')}: {verdict(done.returncode == 0)}")
            if done.returncode:
                print(done.stderr.splitlines()[-1])
    return met


def main() -> int:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_check", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in which the simulated history is kept")
    for engine in ("--prometheus", "--victoria-metrics"):
        parser.add_argument(engine, action="append", default=[], metavar="VERSION=PROGRAM", help="another one to ask")
    options = parser.parse_args()
    met = are_accepted()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for data in (DAY, MINUTES, NOTHING):
            folder = (options.data or scratch / "data") / data.name
            if data.stretches and not (folder / "data").exists():
                print(f"making the history: {data.name}", flush=True)
                storage.build(folder, data.stretches)
            check(data, folder, scratch, options, tallies)
    for name, tally in tallies.items():
        tally.report(name)
        met &= not tally.faults
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
