"""A worker pool without threads, for tests whose clock is not the machine's."""

from __future__ import annotations

from collections.abc import Callable

from exporter.sampling.deadline import WorkerPool


class HangsError(BaseException):
    """Instead of a call that does not return."""


class Inline(WorkerPool):
    """Makes calls in the sampler's thread, so that nothing depends on the time they take.

    One that hangs is over its deadline at once; it starts again, and ends, with `release`. What real threads make of
    a read that hangs is in test_deadline.py and test_sampler_faults.py.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._jobs: list[Callable[[], None]] = []
        self._hanging: list[Callable[[], None]] = []

    def add(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)

    def wait(self, timeout: float) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            try:
                job()
            except HangsError:
                self._hanging.append(job)

    def release(self) -> None:
        jobs, self._hanging = self._hanging, []
        for job in jobs:
            job()
