"""Explains how processes and their containers are named: from which evidence, and what was tried in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..records import GroupKey, Model, Process, Workload
from .models.resolver import Models
from .models.trace import Step
from .namer import WorkloadNamer

_MIN_ID = 6
"""Digits of a container's id or a pod's UID that are enough to mean it."""

Found = tuple[Process, GroupKey | None]
"""A process of this machine and its cgroup."""


class ProcessExplanation(NamedTuple):
    """The model of one process, None without one, and everything that was looked at for it, in order."""

    process: Process
    model: Model | None
    steps: Sequence[Step]


class Explanation(NamedTuple):
    """One container, or row that collects unrelated work: its name, where that is from, and its processes.

    ``groups`` are the paths of its cgroups, ``described`` whether a metadata provider knows it, ``shared`` whether it
    never belongs to one model as a whole.
    """

    workload: Workload
    groups: Sequence[str]
    described: bool
    shared: bool
    processes: Sequence[ProcessExplanation]


class Explainer:
    """Explains a process, or the processes of a container or pod; ``processes`` lists those of this machine."""

    def __init__(self, namer: WorkloadNamer, models: Models, processes: Callable[[], Iterable[Found]]) -> None:
        self._namer = namer
        self._models = models
        self._processes = processes

    def explain(self, target: str) -> list[Explanation]:
        """Explain a pid, a container (name, id) or a pod (name, ``namespace/name``, UID); empty if there is none.

        The processes of a container are all resolved first, because work may be handed to one of them by another.
        """
        rows: dict[object, list[Found]] = {}
        processes = list(self._processes())
        for process, group in processes:
            self._namer.learn(group, process)
        for process, group in processes:
            rows.setdefault(_row(self._namer.known(group)[0]), []).append((process, group))
        found = list(self._of_pid(target, rows.values())) if target.isdecimal() else []
        return found or [
            self._row(members, members)
            for members in rows.values()
            if _means(target, self._namer.known(members[0][1])[0])
        ]

    def _of_pid(self, target: str, rows: Iterable[list[Found]]) -> Iterator[Explanation]:
        for members in rows:
            wanted = [found for found in members if found[0].key.pid == int(target)]
            if wanted:
                yield self._row(wanted, members)

    def _row(self, wanted: Sequence[Found], members: Sequence[Found]) -> Explanation:
        for process, group in members:
            self._models.resolve(process, group, *self._namer.known(group))
        explained = []
        for process, group in wanted:
            model, steps = self._models.explain(process, group, *self._namer.known(group))
            explained.append(ProcessExplanation(process, model, steps))
        workload, metadata = self._namer.known(wanted[0][1])
        groups = sorted({group.path for _, group in wanted if group is not None})
        return Explanation(workload, groups, metadata is not None, self._namer.is_shared(workload), explained)


def _row(workload: Workload) -> object:
    return workload.container_id or workload.key


def _means(target: str, workload: Workload) -> bool:
    names = {workload.container, workload.pod, f"{workload.namespace}/{workload.pod}", "/".join(workload.place)}
    if target in names - {"", "/", "//"}:
        return True
    ids = (workload.container_id, workload.pod_uid)
    return len(target) >= _MIN_ID and any(one.startswith(target) for one in ids)
