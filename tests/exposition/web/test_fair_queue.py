"""Turns: one address with thousands of steps delays the others by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from exporter.exposition.web.fair_queue import Turns
from tests.support.patience import patience


def played(plan: Callable[[Turns, list[str]], None], until: int) -> tuple[list[str], list[str]]:
    """What ran, in order, and what the loop was told went wrong."""
    ran: list[str] = []
    wrong: list[str] = []

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        wrong.append(str(context.get("exception")))

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(complain)
        plan(Turns(), ran)
        while len(ran) + len(wrong) < until:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(play(), patience()))
    return ran, wrong


def test_addresses_take_turns() -> None:
    def plan(turns: Turns, ran: list[str]) -> None:
        for _ in range(3):
            turns.add("flood", lambda: ran.append("flood"))
        turns.add("honest", lambda: ran.append("honest"))

    assert played(plan, 4)[0] == ["flood", "honest", "flood", "flood"]


def test_the_rest_of_the_loop_goes_on_meanwhile() -> None:
    def plan(turns: Turns, ran: list[str]) -> None:
        def step() -> None:
            time.sleep(0.002)
            ran.append("flood")

        for _ in range(20):
            turns.add("flood", step)
        asyncio.get_running_loop().call_later(0.005, ran.append, "other")

    ran, _ = played(plan, 21)
    assert 0 < ran.index("other") < 19


def test_a_step_that_raises_stops_nobody() -> None:
    def broken() -> None:
        raise KeyError("bug")

    def plan(turns: Turns, ran: list[str]) -> None:
        turns.add("one", broken)
        turns.add("two", lambda: ran.append("two"))
        turns.add("one", lambda: ran.append("one"))

    assert played(plan, 3) == (["two", "one"], ["'bug'"])
