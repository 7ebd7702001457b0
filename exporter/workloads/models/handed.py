"""Finds the model of processes that its own processes did not start: workers of Ray, MPI, Dask and Spark."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from ...host import Host
from ...records import GroupKey, Model, ProcessKey, Workload
from ..proc import container_marks, environment, process_stat
from ..shared import is_shared
from .commandline import commands

_TITLES = ("ray::", "vllm::", "sglang::")
_NO_WORKERS = (
    "ray::IDLE",
    "ray::Serve",
    "ray::Proxy",
    "ray::HTTPProxy",
    "ray::Dashboard",
    "ray::RuntimeEnv",
    "ray::Job",
)
"""Ray's own actors, and replicas, which have the name of their deployment."""

_PROGRAMS = {
    "-m mpi4py.futures": "MPI",
    "-m mpi4py.futures.server": "MPI",
    "-m tensorrt_llm.llmapi.mgmn_worker_node": "MPI",
    "dask-worker": "Dask",
    "dask-cuda-worker": "Dask",
    "-m distributed.cli.dask_worker": "Dask",
    "-m dask_cuda.cli": "Dask",
    "-m pyspark.daemon": "Spark",
    "-m pyspark.worker": "Spark",
}
_DASK = (("worker",), ("cuda", "worker"))
_SPARK = ("org.apache.spark.executor.", "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend")

_HINT = re.compile(r"dask|mpi4py|pyspark|mgmn_worker|apache\.spark")
_HINT_WORDS = 64

_JOB = "RAY_JOB_ID"
_NO_JOB = "f"
"""Ray sets the variable for the workers of a driver, not for the driver itself; a worker that was started before its
job has only this digit in it, for its whole life (seen with Ray 2.60)."""

_MAX_PLACES = 4096
_MAX_MODELS = 64
_MAX_PROCESSES = 16
_MAX_GROUPS = 256


def worker_kind(words: Sequence[str]) -> str:
    """``Ray``, ``MPI``, ``Dask`` or ``Spark`` for a process that works for programs which did not start it, else "".

    A title that names an engine (``VLLM::Worker``) counts as ``engine``.
    """
    title = words[0] if words else ""
    if title.lower().startswith(_TITLES):
        return "" if title.startswith(_NO_WORKERS) else "Ray" if title.startswith("ray::") else "engine"
    if not _HINT.search(" ".join(words[:_HINT_WORDS])):
        return ""
    for command in commands(words):
        if kind := _PROGRAMS.get(command.program):
            return kind
        if command.program in ("dask", "-m dask") and any(command.arguments[: len(verbs)] == verbs for verbs in _DASK):
            return "Dask"
        if command.program == "java" and any(word.startswith(_SPARK) for word in command.arguments):
            return "Spark"
    return ""


class _Place:
    """One container: the processes that are known to work for each model, and the groups of its workers."""

    __slots__ = ("groups", "models")

    def __init__(self) -> None:
        self.models: OrderedDict[tuple[str, str], tuple[Model, OrderedDict[ProcessKey, None]]] = OrderedDict()
        self.groups: set[GroupKey] = set()


class HandedWork:
    """Finds the model of a worker: the only one in its container, or the only one with its Ray job.

    Rows that collect unrelated work are no container, and no model is looked for in another container. Memory is
    bounded: an evicted container's workers have no model until its processes are resolved again.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()
        self._changed: set[GroupKey] = set()

    def add(self, workload: Workload, model: Model, key: ProcessKey) -> None:
        """A process that is not itself a worker works for ``model``."""
        place = self._place(workload)
        if place is None:
            return
        name = _name(model)
        if name not in place.models:
            if len(place.models) >= _MAX_MODELS:
                place.models.popitem(last=False)
            place.models[name] = (model, OrderedDict())
            self._changed |= place.groups
        processes = place.models[name][1]
        processes[key] = None
        if len(processes) > _MAX_PROCESSES:
            processes.popitem(last=False)

    def find(self, workload: Workload, key: ProcessKey, kind: str, group: GroupKey | None) -> Model | None:
        """The model of a worker, None while undecided; ``group`` is then in `changed` once a model is added there."""
        place = self._place(workload)
        if place is None:
            return None
        if group is not None and len(place.groups) < _MAX_GROUPS:
            place.groups.add(group)
        marks = container_marks(self._host, key.pid)
        live = [model for model in self._live(place) if marks is not None and self._has_marks(place, model, marks)]
        if len(live) > 1 and kind == "Ray":
            live = self._of_job(place, live, key)
        return live[0] if len(live) == 1 else None

    def models(self, workload: Workload) -> list[Model]:
        """Models that live processes of this container work for; empty for a row that collects unrelated work."""
        place = self._place(workload)
        return [] if place is None else self._live(place)

    def changed(self) -> set[GroupKey]:
        """Groups of workers whose container has a new model since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def _place(self, workload: Workload) -> _Place | None:
        if is_shared(workload):
            return None
        key: Hashable = workload.container_id or workload.key
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
            if len(self._places) > _MAX_PLACES:
                self._places.popitem(last=False)
        self._places.move_to_end(key)
        return place

    def _live(self, place: _Place) -> list[Model]:
        for name, (_, processes) in list(place.models.items()):
            for key in list(processes):
                stat = process_stat(self._host, key.pid)
                if stat is None or stat.key != key:
                    del processes[key]
            if not processes:
                del place.models[name]
        return [model for model, _ in place.models.values()]

    def _has_marks(self, place: _Place, model: Model, marks: frozenset[bytes]) -> bool:
        return any(marks == container_marks(self._host, one.pid) for one in place.models[_name(model)][1])

    def _of_job(self, place: _Place, live: list[Model], key: ProcessKey) -> list[Model]:
        """Those of ``live`` that a worker may belong to by its Ray job: the same job, else a driver, which has none."""
        job = self._job(key)
        if not job:
            return live
        jobs = {_name(model): {self._job(one) for one in place.models[_name(model)][1]} for model in live}
        same = [model for model in live if job in jobs[_name(model)]]
        return same or [model for model in live if "" in jobs[_name(model)]]

    def _job(self, key: ProcessKey) -> str:
        job = environment(self._host, key.pid, (_JOB,)).get(_JOB, "")
        return job if job.strip(_NO_JOB) else ""


def _name(model: Model) -> tuple[str, str]:
    """What distinguishes the models of one container."""
    return (model.model_name, model.variant)
