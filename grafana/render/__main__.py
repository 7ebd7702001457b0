"""Renders the dashboards with Grafana's own components: ``python -m grafana.render pictures|check [--data FOLDER]``.

``pictures`` writes docs/pictures/*.webp. ``check`` renders every dashboard in five states and two widths, prints what
is wrong, and returns 1 if anything is. It also renders a dashboard with planted faults, and fails unless it finds them.

Both simulate a week of the demonstration, have promtool make blocks of it and of all that the shipped rules would have
recorded, and let the page in this folder ask a real Prometheus. With ``--data`` the history is kept there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import planted, storage
from .findings import findings
from .states import DAY, FOLDER, MINUTES, NOTHING, STATES, WIDTHS, Data, State, boards, plan, shot

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent.parent / "docs" / "pictures"

_SIX_HOURS = State("six hours", DAY, 6, rows="")
_QWEN = {"energy-model": {"model_name": ["Qwen/Qwen2.5-7B-Instruct"]}}
_POD = {"energy-workloads": {"namespace": ["team-nlp"], "pod": ["qwen2-5-7b-chat-6f7c9d5b8-x2lqp"]}}
TAKEN: Mapping[str, tuple[str, State]] = {
    **{uid: (uid, _SIX_HOURS._replace(chosen=_QWEN)) for uid in sorted(path.stem for path in FOLDER.glob("*.json"))},
    "energy-overview-light": ("energy-overview", _SIX_HOURS._replace(theme="light")),
    "energy-overview-first-minutes": ("energy-overview", State("first five minutes", MINUTES, rows="")),
    "energy-workloads-pod": ("energy-workloads", _SIX_HOURS._replace(chosen=_POD)),
}
"""Name of each picture → dashboard and state."""


@contextmanager
def _servers(folder: Path, wanted: Sequence[Data]) -> Iterator[dict[Data, str]]:
    """A Prometheus for each of these, whose data is made unless it is there."""
    with ExitStack() as stack:
        found = {}
        for data in wanted:
            own = folder / data.name
            if data.stretches and not (own / "data").exists():
                _say(f"making the history: {data.name}")
                storage.build(own, data.stretches)
            own.mkdir(parents=True, exist_ok=True)
            found[data] = stack.enter_context(storage.serving(own))
        yield found


def _shoot(shots: Sequence[Mapping[str, Any]], scratch: Path) -> dict[str, dict[str, Any]]:
    """Facts by name of the shot and width."""
    order, report = scratch / "plan.json", scratch / "report.json"
    order.write_text(json.dumps(shots), encoding="utf-8")
    subprocess.run(["node", str(HERE / "shoot.mjs"), str(order), str(report)], check=True)
    facts: dict[str, dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))
    return facts


def pictures(folder: Path, scratch: Path, only: Sequence[str]) -> int:
    """Take those pictures, or all."""
    PICTURES.mkdir(exist_ok=True)
    with _servers(folder, [DAY, MINUTES]) as servers:
        shots = []
        for name, (uid, state) in TAKEN.items():
            if not only or name in only:
                made = shot(uid, boards()[uid], FOLDER / f"{uid}.json", state, servers[state.data])
                picture = {str(WIDTHS[0]): str(PICTURES / f"{name}.webp")}
                shots.append(made | {"name": name, "widths": WIDTHS[:1], "pictures": picture})
        _shoot(shots, scratch)
    return 0


def check(folder: Path, scratch: Path, report: Path | None) -> int:
    """Render everything and print what is wrong."""
    every = boards()
    bad = planted.broken(every["energy-models"])
    path = scratch / "energy-models.json"
    path.write_text(json.dumps(bad), encoding="utf-8")
    with _servers(folder, [DAY, MINUTES, NOTHING]) as servers:
        shots = [shot("planted", bad, path, STATES[0], servers[DAY]), *plan(servers)]
        facts = _shoot(shots, scratch)
    if report:
        report.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    count = 0
    for each in shots:
        name = str(each["name"])
        board = json.loads(Path(each["board"]).read_text(encoding="utf-8"))
        for width in each["widths"]:
            found = findings(facts[name][str(width)], board, every)
            if name.startswith("planted"):
                found = planted.overlooked(found)
            for finding in found:
                _say(f"{name} at {width} px: {finding.kind}: {finding.panel}: {finding.detail}")
            count += len(found)
    _say(f"{len(shots)} dashboards and states in {len(WIDTHS)} widths: {count} faults")
    return 1 if count else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Take pictures or check."""
    parser = argparse.ArgumentParser(prog="python -m grafana.render", description=__doc__)
    parser.add_argument("what", choices=["pictures", "check"])
    parser.add_argument("--data", type=Path, help="folder in which the simulated history is kept")
    parser.add_argument("--report", type=Path, help="check: where all that was seen is written, as JSON")
    parser.add_argument("names", nargs="*", help="pictures: which; all without")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.data or scratch / "data"
        if options.what == "pictures":
            return pictures(folder, scratch, options.names)
        return check(folder, scratch, options.report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
