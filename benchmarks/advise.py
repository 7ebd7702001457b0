"""Whether ``advise`` finds the waste that a synthetic fleet has, covers what it would save, and finds nothing else.

``python -m benchmarks.advise [--seeds 50] [--engine] [--models 200] [--folder FOLDER]``. The seeds are judged on the
facts that the queries would answer, made without a server: 13 million samples for each seed would take an hour to
write. ``--engine`` writes the samples of the first seed into a real Prometheus (Debian's package), and compares what is
read and advised. ``--models`` measures time and memory of the command with so many models in a real Prometheus.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from exporter.analysis import advice, fleet
from exporter.analysis.facts import Facts, Fleet
from exporter.analysis.levers.curves import fuller
from exporter.analysis.prometheus import Prometheus
from exporter.analysis.window import Window
from tests.support.patience import wait_for
from tests.support.program import free_port
from tests.support.stack import Server

from . import advice_fleet
from .advice_fleet import DAYS, HOUR, PER_DAY, START, Written, exposition
from .table import show, verdict

Key = tuple[str, str]
_READING = 1e-3
"""What increase() may differ by; constant power has no interval of its own."""
COVERED_GOAL, CLEAN_GOAL = 0.90, 0.95
_SECONDS_GOAL, _MEMORY_GOAL = 20.0, 150.0


class Judged(NamedTuple):
    """What ``advise`` made of one seed: by model and lever, and whether it recommended what is not there."""

    planted: tuple[Key, ...]
    found: tuple[Key, ...]
    covered: tuple[Key, ...]
    false: tuple[Key, ...]


def judge(seed: int) -> Judged:
    """Judge one seed."""
    written = Written(seed)
    return compare(written, advice_fleet.facts(written))


def compare(written: Written, facts: Fleet) -> Judged:
    """What is advised for ``facts`` against what is planted in ``written``."""
    advised = {(one.subject.name, one.lever.name): one for one in advice.advise(facts).recommended}
    subjects = {each.subject.name: each for each in facts.subjects}
    planted = {(each.model, each.lever): each for each in written.planted}
    covered = []
    for key, each in planted.items():
        one = advised.get(key)
        interval = one and (one.grams if each.kwh is None else one.kwh)
        truth = _truth(written, key, subjects)
        if interval and interval.low * (1 - _READING) <= truth <= interval.high * (1 + _READING):
            covered.append(key)
    return Judged(
        tuple(planted),
        tuple(key for key in planted if key in advised),
        tuple(covered),
        tuple(key for key in advised if key not in planted),
    )


def _truth(written: Written, key: Key, subjects: dict[str, Facts]) -> float:
    each = next(one for one in written.planted if (one.model, one.lever) == key)
    if each.lever == "consolidate":  # of the loads that one replica was seen to bear
        found = fuller(subjects[each.model])
        return written.consolidation_kwh(found.largest / 1000 / HOUR) if found else math.nan
    return each.kwh if each.kwh is not None else each.grams or math.nan


def seeds(count: int) -> bool:
    """Judge ``count`` seeds, and print a table. Returns whether both goals are met."""
    with ProcessPoolExecutor() as pool:
        judged = list(pool.map(judge, range(count)))
    planted, found, covered = (
        Counter(key for one in judged for key in getattr(one, name)) for name in ("planted", "found", "covered")
    )
    show(
        f"planted waste in {count} seeds",
        ("model", "lever", "found", "covered"),
        [(*key, f"{found[key]}/{of}", f"{covered[key]}/{of}") for key, of in planted.items()],
    )
    clean = sum(1 for one in judged if not one.false) / count
    share = covered.total() / planted.total()
    least = min(covered[key] / of for key, of in planted.items())
    print(f"\nfound {found.total() / planted.total():.1%}, covered {share:.1%} of all, {least:.0%} of the worst lever")
    print(f"seeds in which nothing is recommended that is not there: {clean:.1%}")
    for key, times in Counter(key for one in judged for key in one.false).items():
        print(f"  {times} times {key[1]} for {key[0]}")
    met = found == planted and share >= COVERED_GOAL and clean >= CLEAN_GOAL
    print(f"all found, {COVERED_GOAL:.0%} covered, {CLEAN_GOAL:.0%} of the seeds clean: {verdict(met)}")
    return met


def write_blocks(written: Written, folder: Path, every: int = 150) -> None:
    """Blocks of a Prometheus with all samples, two days at a time: promtool reads its input once for each block."""
    for first in range(0, written.steps, 2 * PER_DAY):
        text = folder / "samples.txt"
        with text.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in exposition(written, first, first + 2 * PER_DAY, every))
        command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=54h", "openmetrics", str(text)]
        command.append(str(folder / "data"))
        subprocess.run(command, check=True, capture_output=True)
    text.unlink()


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """The address of a Prometheus with the blocks of ``folder``."""
    (folder / "prometheus.yml").write_text("", encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    command.append("--storage.tsdb.retention.time=100y")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            wait_for(Server(f"http://{address}").is_ready, "Prometheus", 120.0)
            yield f"http://{address}"
        finally:
            process.terminate()


def engine(folder: Path) -> bool:
    """Write, read and judge the first seed. Returns whether the same is advised as without a server."""
    written = Written(0)
    if not (folder / "data").exists():
        write_blocks(written, folder)
    with prometheus(folder) as url:
        server = Prometheus(url)
        began = time.monotonic()
        grid = fleet.grid(server, Window(START, START + DAYS * 86400))
        read = fleet.read(server, grid)
        print(f"\nread from a real Prometheus in {time.monotonic() - began:.1f} s: {len(read.subjects)} subjects")
    made = advice_fleet.facts(written)
    rows, worst = [], 0.0
    there = {each.subject.name: each for each in read.subjects}
    for each in made.subjects:
        other = there[each.subject.name]
        for name in ("active", "idle", "cpu", "quiet", "quiet_seconds", "output_tokens"):
            one, two = sum(getattr(each, name)), sum(getattr(other, name))
            apart = abs(one - two) / max(one, 1.0)
            worst = max(worst, apart)
            if apart > 0.01:
                rows.append((each.subject.name, name, f"{one:.4g}", f"{two:.4g}"))
    show("facts that differ by more than 1 %", ("model", "fact", "made", "read"), rows)
    one, two = compare(written, made), compare(written, read)
    print(
        f"largest difference of a fact {worst:.2%}; covered {len(two.covered)} of {len(two.planted)}, false {two.false}"
    )
    met = one.found == two.found and one.false == two.false
    print(f"the same is recommended as without a server: {verdict(met)}")
    return met


def main() -> int:
    """Run what was asked for. Returns the exit status: 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advise", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the data of --engine here, or take them from here")
    given = parser.parse_args()
    met = seeds(given.seeds) if given.seeds else True
    if given.engine:
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            met = engine(folder) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
