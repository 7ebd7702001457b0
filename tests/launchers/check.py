"""``make launchers-check``: real servers and trainers, one after the other, and the names that the exporter gives them.

As root, outside the suite. The programs are installed from PyPI, in pinned versions, into a folder (``--folder``, else
a temporary one), and started as their users start them, in a cgroup of their own with the path of a container. Beside
them runs the exporter. A trial whose packages cannot be had is named and left out. ``--record FILE`` writes what was
seen of the processes: the fixture tests/workloads/models/launched.yaml.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from tests.launchers.container import CONTAINER_ID, Container, Seen, answer
from tests.launchers.environments import prepare
from tests.launchers.trials import ENVIRONMENTS, TRIALS, Trial
from tests.support.live import Exporter, Scrape, Tree, cgroup_mount, tree
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

PROGRAMS = Path(__file__).with_name("programs")

_KIND = "v1" if cgroup_mount("v1") else "v2"
_HEAD = """\
# Written by `make launchers-check ARGS="--record tests/workloads/models/launched.yaml"`: the processes of real
# programs, the variables of the table that they have, the files that they were started beside, and the names that
# their users expect. Paths are those of a usual installation. A process without model belongs to none.

"""
_SHOWN_WORDS = 12
_RECORDED_WORDS = 48
_EXPLAINED = re.compile(r"process (\d+) \(.*\): (?:no model|(.+), (\w+), from .+)\n")

Names = dict[int, tuple[str, str]]
"""Model and phase of each process by pid, both "" without a model."""


def check(trial: Trial, folder: Path, cgroups: Tree) -> tuple[list[str], dict[str, Any]]:
    """Run one trial; returns what is wrong, and the record of its processes."""
    programs = prepare(trial.environment, ENVIRONMENTS[trial.environment], folder)
    work = folder / "work"
    for made, command in trial.before.items():
        if not (work / made).exists():
            subprocess.run(
                _words(command, programs), cwd=work, check=True, capture_output=True, timeout=patience(300.0)
            )
    container = Container(cgroups, work, programs)
    exporter = Exporter("--path.cgroupfs", str(cgroups.root), *trial.settings)
    try:
        container.start(shlex.split(trial.command), {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **trial.variables})
        _wait_until_ready(trial, container)
        return _compare(trial, container, exporter, programs)
    finally:
        container.end()
        exporter.end()


def _words(command: str, programs: Path) -> list[str]:
    program, *rest = shlex.split(command)
    return [str(programs / program), *rest]


def _wait_until_ready(trial: Trial, container: Container) -> None:
    """Raises `OSError` if the program ends, or is not ready after minutes."""
    deadline = time.monotonic() + patience(60.0)
    while not _ready(trial, container):
        if ended := container.ended():
            raise OSError(ended)
        if time.monotonic() > deadline:
            raise OSError("not ready: " + container.log.read_text("utf-8", "replace")[-600:])
        time.sleep(0.5)


def _ready(trial: Trial, container: Container) -> bool:
    if trial.url:
        return bool(answer(trial.url))
    return re.search(trial.said, container.log.read_text("utf-8", "replace")) is not None


def _compare(
    trial: Trial, container: Container, exporter: Exporter, programs: Path
) -> tuple[list[str], dict[str, Any]]:
    """Compare until everything is as expected; what still is not after a while is wrong."""
    deadline = time.monotonic() + patience(trial.seconds)
    while True:
        for _ in range(5):
            if trial.request[0]:
                answer(trial.request[0], trial.request[1])
            time.sleep(0.2)
        seen = list(container.processes())
        names = _explain(CONTAINER_ID, trial.settings)
        scrape = exporter.scrape()
        wrong = [*_wrong_names(trial, seen, names), *_wrong_rows(trial, seen, scrape)]
        if not wrong or time.monotonic() > deadline:
            break
    if ended := container.ended():
        wrong.append(ended)
    versions = _versions(trial.versions, programs)
    print(f"\n{trial.name}: {versions}")
    for one in seen:
        name, phase = names.get(one.pid, ("?", "?"))
        words = " ".join(one.command[:_SHOWN_WORDS])[:100]
        print(f"  {one.pid} < {one.parent} {one.comm}: {words} -> {name or 'no model'} {phase}")
    print("  models:", _models(scrape), "container:", scrape.info(container_id=CONTAINER_ID).get("model_name"))
    if trial.url:
        print(f"  {trial.url}: {answer(trial.url)[:300]}")
    record = {
        "name": trial.name,
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "files": {name: (PROGRAMS / name).read_text(encoding="utf-8") for name in trial.reads},
        "processes": [_record(trial, one, programs) for one in seen if one.pid in names],
    }
    return wrong, {key: value for key, value in record.items() if value}


def _wrong_names(trial: Trial, seen: Sequence[Seen], names: Names) -> list[str]:
    wrong = [] if names else ["explain names none of its processes"]
    return wrong + [
        f"process {one.pid} ({one.comm}): {names[one.pid]}, expected {trial.expected(one.command)}"
        for one in seen
        if one.pid in names and names[one.pid] != trial.expected(one.command)
    ]


def _wrong_rows(trial: Trial, seen: Sequence[Seen], scrape: Scrape) -> list[str]:
    wrong = []
    expected = {trial.expected(one.command) for one in seen}
    info = scrape.info(container_id=CONTAINER_ID)
    row = info.get("model_name", "no row")
    only = next(iter(expected))[0] if len({name for name, _ in expected}) == 1 else ""
    if row != only and not (trial.short_lived and row in {name for name, _ in expected}):
        wrong.append(f"energy_container_info has model_name={row!r}, expected {only!r}")
    models, wanted = _models(scrape), {one for one in expected if one[0]}
    if not wanted <= models or not (models <= wanted or trial.short_lived):
        wrong.append(f"energy_model_joules_total has {models}, expected {wanted}")
    pids = {int(labels["pid"]) for labels, _ in scrape.find("energy_process_joules_total", container=CONTAINER_ID[:12])}
    if not pids & {one.pid for one in seen}:
        wrong.append("energy_process_joules_total has none of its processes")
    return wrong


def _models(scrape: Scrape) -> set[tuple[str, str]]:
    found = scrape.find("energy_model_joules_total", mode="active", component="cpu")
    return {(labels["model_name"], labels["phase"]) for labels, joules in found if joules > 0}


def _explain(what: str, settings: Sequence[str]) -> Names:
    """What ``ai-energy-exporter explain`` says of the processes of a container."""
    command = [sys.executable, "-m", "exporter", "explain", what, *settings]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=patience(60.0))
    return {int(match[1]): (match[2] or "", match[3] or "") for match in _EXPLAINED.finditer(done.stdout)}


def _versions(packages: Sequence[str], programs: Path) -> str:
    """``NAME VERSION`` of packages in an environment."""
    places = [str(path) for path in programs.parent.glob("lib/python3*/site-packages")]
    found = {one.name.lower().replace("_", "-"): one.version for one in distributions(path=places)}
    return ", ".join(f"{name} {found.get(name, '(not found)')}" for name in packages)


def _record(trial: Trial, one: Seen, programs: Path) -> dict[str, Any]:
    """A process for the fixture, without the paths of this machine."""
    name, phase = trial.expected(one.command)
    folders = {str(programs.parent): "/opt/venv", str(programs.parents[2] / "work"): "/srv"}
    folders |= {sys.base_prefix: "/usr"}

    def plain(text: str) -> str:
        for folder, known in folders.items():
            text = text.replace(folder, known)
        return text

    record: dict[str, Any] = {"pid": one.pid, "parent": one.parent, "comm": one.comm}
    record["command"] = [plain(word) for word in one.command[:_RECORDED_WORDS]]
    if one.variables:
        record["environment"] = {key: plain(value) for key, value in one.variables.items()}
    return record | ({"model": name, "phase": phase} if name else {})


def _write(records: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the records; trials that were not run keep theirs."""
    known = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else []
    by_name = {record["name"]: record for record in [*known, *records]}
    ordered = [by_name[trial.name] for trial in TRIALS if trial.name in by_name]
    file.write_text(_HEAD + yaml.safe_dump(ordered, sort_keys=False, width=110), encoding="utf-8")


def main() -> int:
    """Run the trials whose names begin with the words of the command line, or all. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="launchers-check")
    parser.add_argument("--folder", type=Path, help="where the programs are installed, and kept (10 GB for all)")
    parser.add_argument("--record", type=Path, help="write the processes into this file")
    parser.add_argument("trials", nargs="*", help="beginnings of names")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, as after an interrupt
    chosen = [one for one in TRIALS if not arguments.trials or one.name.startswith(tuple(arguments.trials))]
    problems: list[str] = []
    records = []
    with tempfile.TemporaryDirectory(prefix="aee-") as temporary, tree(_KIND) as cgroups:
        folder = (arguments.folder or Path(temporary)).resolve()
        shutil.copytree(PROGRAMS, folder / "work", dirs_exist_ok=True)
        for trial in chosen:
            if missing := [program for program in trial.needs if shutil.which(program) is None]:
                print(f"\n{trial.name}: left out, not installed: {', '.join(missing)}")
                continue
            try:
                wrong, record = check(trial, folder, cgroups)
            except subprocess.CalledProcessError as error:
                print(f"\n{trial.name}: left out: {error} {(error.stderr or b'')[-300:]!r}")
                continue
            except OSError as error:
                wrong = [f"not started: {error}"]
            else:
                records += [] if wrong else [record]
                if arguments.record is not None:
                    _write(records, arguments.record)
            problems += [f"{trial.name}: {text}" for text in wrong]
            print("  " + ("as expected" if not wrong else "\n  ".join(["WRONG", *wrong])), flush=True)
    print("\n" + ("\n".join(problems) if problems else f"{len(records)} trials as expected"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
