"""Which of the driver's calls reports the use of a card by its processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from exporter.sources.nvml.driver import PROCESS_USE_CALLS, Driver
from exporter.sources.nvml.process_use import ProcessUse

OLDER, NEWER = PROCESS_USE_CALLS


class Bindings:
    """Stands for pynvml: what each call answers, a list or the code of an error."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"code {value}")
            self.value = value

    class NVMLLibraryMismatchError(Exception):
        pass

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> Any:
            self.asked.append(name)
            answer = self.answers[name]
            if isinstance(answer, int):
                raise self.NVMLError(answer)
            return answer

        return call


SAMPLE = SimpleNamespace(pid=7, timeStamp=2_000_000, smUtil=50)


@pytest.mark.parametrize("empty", [0, 6, []], ids=["pynvml raises SUCCESS", "NOT_FOUND", "an empty list"])
def test_no_samples_are_no_refusal(empty: Any) -> None:
    bindings = Bindings(**{OLDER: empty, NEWER: [SAMPLE]})
    use = ProcessUse(Driver(bindings))
    assert use.read(None, 1.0, 1.0, busy=False) == []
    assert use.reported
    assert bindings.asked == [OLDER], "an idle card needs one call"
    assert [sample.pid for sample in use.read(None, 1.0, 1.0, busy=True)] == [7]
    bindings.asked.clear()
    use.read(None, 1.0, 1.0, busy=True)
    assert bindings.asked == [NEWER], "the call that reports is asked first"


def test_a_card_that_is_silent_for_a_moment_is_not_said_to_report_nothing() -> None:
    use = ProcessUse(Driver(Bindings(**{OLDER: [], NEWER: 13})))
    for _ in range(9):
        use.read(None, 1.0, 1.0, busy=True)
    assert use.problem(2) is None
    use.read(None, 1.0, 1.0, busy=True)
    problem = use.problem(2)
    assert problem is not None
    assert "550" in problem.fix
    assert use.problem(1) is None
    use.attach()
    assert use.reported


def test_a_refusal_for_lack_of_privilege_says_so() -> None:
    use = ProcessUse(Driver(Bindings(**{OLDER: 4, NEWER: 4})))
    use.read(None, 1.0, 1.0, busy=False)
    problem = use.problem(3)
    assert problem is not None
    assert problem.reason == "permission"
    assert "root" in problem.fix
