"""What the exporter costs a node all day, beside Debian's prometheus-node-exporter scraped at the same rate."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import NamedTuple

from tests.support.program import free_port

from .crowd import crowd
from .service import Service, served
from .table import show, verdict

PROCESSES, GROUPS = 200, 50
SCRAPE_SECONDS = 5.0
GOAL_CORE = 0.005
GOAL_MIB = 45.0


class Footprint(NamedTuple):
    """Share of one core, resident MiB at the end, bytes of a scrape."""

    core: float
    mib: float
    scrape_bytes: int


def measure(services: list[Service], seconds: float) -> list[Footprint]:
    """Scrape all of them at the same rate for a while."""
    time.sleep(45.0)  # until the exporter found who is active
    sizes = [len(service.scrape()) for service in services]
    began, used = time.monotonic(), [service.cpu_seconds() for service in services]
    due = began
    while (due := due + SCRAPE_SECONDS) <= began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        for service in services:
            service.scrape()
    elapsed = time.monotonic() - began
    return [
        Footprint((service.cpu_seconds() - before) / elapsed, service.resident_bytes() / 2**20, size)
        for service, before, size in zip(services, used, sizes, strict=True)
    ]


def main(seconds: float = 60.0) -> None:
    """Print the table."""
    theirs = shutil.which("prometheus-node-exporter")
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(crowd(PROCESSES, GROUPS))
        services = [stack.enter_context(Service.started(*on.flags))]
        if theirs is not None:
            address = f"127.0.0.1:{free_port()}"
            command, url = [theirs, f"--web.listen-address={address}"], f"http://{address}/metrics"
            services.append(stack.enter_context(served(command, url, silent=True)))
        found = measure(services, seconds)
    names = ["ai-energy-exporter", "prometheus-node-exporter"]
    show(
        f"Footprint: {PROCESSES} processes in {GROUPS} cgroups, a tick every second, a scrape every "
        f"{SCRAPE_SECONDS:g} s, over {seconds:g} s",
        ("", "of one core", "resident MiB", "bytes of a scrape"),
        [
            (name, f"{one.core:.2%}", f"{one.mib:.1f}", f"{one.scrape_bytes:,}")
            for name, one in zip(names, found, strict=False)
        ],
    )
    ours = found[0]
    print(
        f"goals: at most {GOAL_CORE:.1%} of one core: {verdict(ours.core <= GOAL_CORE)}; "
        f"at most {GOAL_MIB:g} MiB: {verdict(ours.mib <= GOAL_MIB)}"
    )
    if theirs is None:
        print("prometheus-node-exporter is not installed: apt-get install prometheus-node-exporter")
