"""Processes of real servers and trainers as ``make launchers-check`` has seen them: launched.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.records import Process, Workload
from exporter.workloads.models.resolver import Models
from tests.support.patience import wait_for

LAUNCHED: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("launched.yaml").read_text(encoding="utf-8"))
CONTAINER = Workload("", "", "c0ffee000000", "docker", container_id="c0ffee" + "0" * 58)


def written(proc: Any, launched: dict[str, Any]) -> list[Process]:
    """Write the processes into /proc, with the files that they were started beside."""
    root = proc.root.parent / "rootfs"
    for path, content in launched.get("files", {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    pids = {one["pid"] for one in launched["processes"]}
    processes = []
    for start, one in enumerate(launched["processes"], 100):
        pid, parent = one["pid"], one["parent"] if one["parent"] in pids else 1
        environ = one.get("environment", {})
        processes.append(proc.add(pid, one["command"], parent=parent, start=start, comm=one["comm"], environ=environ))
        for link in ("root", "cwd"):
            (proc.root / str(pid) / link).symlink_to(root)
    return processes


@pytest.mark.parametrize("launched", LAUNCHED, ids=lambda launched: str(launched["name"]))
def test_every_process_has_the_name_that_its_user_expects(proc: Any, launched: dict[str, Any]) -> None:
    processes = written(proc, launched)
    expected = [(one.get("model", ""), one.get("phase", "")) for one in launched["processes"]]
    models = Models(proc.host)

    def names() -> list[tuple[str, str]]:
        found = [models.resolve(process, None, CONTAINER) for process in processes]
        return [(model.model_name, model.phase) if model is not None else ("", "") for model in found]

    names()  # a worker has the model of a process that is resolved after it
    if launched.get("files"):
        wait_for(lambda: names() == expected, "the names from files")
    assert names() == expected
    models.close()


def test_the_table_is_of_real_programs() -> None:
    assert len({one["versions"] for one in LAUNCHED}) >= 15, "launchers and servers"
    assert len(LAUNCHED) >= 30, "two of each, but two"
    for launched in LAUNCHED:
        assert re.search(r" \d+\.\d+", launched["versions"]), launched["name"]
        assert launched["processes"], launched["name"]
