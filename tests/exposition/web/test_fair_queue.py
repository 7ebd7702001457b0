"""Fair queue: one client with thousands of steps delays the others by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from exporter.exposition.web.fair_queue import FairQueue
from tests.support.patience import patience


def played(plan: Callable[[FairQueue, list[str]], None], until: int) -> tuple[list[str], list[str]]:
    """Return what ran, in order, and the exceptions that reached the loop's handler."""
    ran: list[str] = []
    wrong: list[str] = []

    def record(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        wrong.append(str(context.get("exception")))

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(record)
        plan(FairQueue(), ran)
        while len(ran) + len(wrong) < until:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(play(), patience()))
    return ran, wrong


def test_clients_are_served_round_robin() -> None:
    def plan(queue: FairQueue, ran: list[str]) -> None:
        for _ in range(3):
            queue.add("flood", lambda: ran.append("flood"))
        queue.add("honest", lambda: ran.append("honest"))

    assert played(plan, 4)[0] == ["flood", "honest", "flood", "flood"]


def test_other_callbacks_of_the_loop_run_meanwhile() -> None:
    def plan(queue: FairQueue, ran: list[str]) -> None:
        def step() -> None:
            time.sleep(0.002)
            ran.append("flood")

        for _ in range(20):
            queue.add("flood", step)
        asyncio.get_running_loop().call_later(0.005, ran.append, "other")

    ran, _ = played(plan, 21)
    assert 0 < ran.index("other") < 19


def test_a_step_that_raises_does_not_stop_the_others() -> None:
    def broken() -> None:
        raise KeyError("bug")

    def plan(queue: FairQueue, ran: list[str]) -> None:
        queue.add("one", broken)
        queue.add("two", lambda: ran.append("two"))
        queue.add("one", lambda: ran.append("one"))

    assert played(plan, 3) == (["two", "one"], ["'bug'"])
