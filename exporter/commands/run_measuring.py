"""The measuring process of ``ai-energy-exporter run``: puts its sampler together, and prints what it found."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import __version__
from ..config.settings import Settings
from ..host import Host
from ..impact.protocol import FactorProvider
from ..impact.values import Factors
from ..records import Unavailable
from ..runs import summary
from ..runs.consumption import Consumption, Focused, RunNamer
from ..runs.descendants import Descendants
from ..runs.launcher import Abandoned, Link
from ..runs.local_exporter import DEFAULT_URL, LocalExporter, Page
from ..runs.measuring import Measurement, Result
from ..runs.own_cgroup import OWN_PROC, OwnCgroup
from ..sampling.sampler import Sampler
from ..service import logs
from ..service.assembly import make_factors, make_host, make_sources, sampler_options
from ..sources.protocol import Source

_REPLACED = ("rapl", "hwmon", "estimate")
"""Sources of CPU and DRAM joules, in whose place the exporter's are taken where it measures and this user may not."""

_LONGEST_WAIT_SECONDS = 2.0
"""How long the next sample of the exporter is waited for after the end: at longer intervals the run returns at once."""


def measure_and_print(
    link: Link, settings: Settings, given: Mapping[str, Any], command: Sequence[str], group: OwnCgroup | None
) -> None:
    """Measure until the command ends, then print and write what was asked for. Raises `Abandoned`."""
    if settings.log_level == "debug":
        logs.configure(settings.log_level, settings.log_format)
    else:
        logging.disable(logging.CRITICAL)  # the terminal is the command's: what matters is in the line at the end
    host = make_host(settings)
    descendants = Descendants(replace(host, procfs=OWN_PROC), link.launcher, os.getpid())
    consumption = Consumption(descendants, group, subreaper=link.subreaper)
    exporter, page = _ask(given["exporter.url"], host)
    local = make_sources(replace(settings, regions_socket=""), host)  # programs report to the exporter, not to a run
    sources, meter = _sources(local, exporter, page, host)
    focused = [Focused(source, consumption) for source in sources]
    options = sampler_options(settings)
    if page is not None:
        options = replace(options, idle_watts={**page.idle_watts, **options.idle_watts})
    factors = make_factors(settings)
    if factors is None and exporter is not None:
        factors = _factors_of(exporter)
    sampler = Sampler(focused, RunNamer(), host, options, factors=factors)
    try:
        result = Measurement(sampler, focused, consumption, host, meter, page).run(link)
    except Abandoned:
        if group is not None:
            group.remove()
        raise
    finally:
        sampler.close()
    run = summary.Run(
        uuid.uuid4().hex,
        given["name"],
        command,
        socket.gethostname(),
        time.time() - (host.clock() - result.ending.ended_at),
        __version__,
        "" if exporter is None or page is None else exporter.url,
    )
    _publish(run, result, given)
    if group is not None and exporter is not None and page is not None:
        _await_sample(exporter, run.ended_at, host)


def _await_sample(exporter: LocalExporter, ended_at: float, host: Host) -> None:
    """Keep the run's cgroup until the exporter has sampled after its end, at Unix time ``ended_at``.

    What a removed cgroup used since the last sample is in the counter of the one above it only, and counts for that
    where processes are in it: the exporter's row of a run of 5 s would have a tenth too little.
    """
    with contextlib.suppress(Unavailable):
        page = exporter.ask()
        due = page.sampled_at + page.interval_seconds - host.wall()
        if page.sampled_at < ended_at and due <= _LONGEST_WAIT_SECONDS:
            exporter.follow()


def _ask(url: str | None, host: Host) -> tuple[LocalExporter | None, Page | None]:
    """The exporter of this machine and its page; one that was not named need not be there."""
    if url == "":
        return None, None
    try:
        exporter = LocalExporter(url or DEFAULT_URL, host)
        page = exporter.ask()
    except (Unavailable, ValueError) as error:
        if url:
            _say(f"--exporter.url: {error}: this process reads the meters itself")
        return None, None
    if page.demo:
        if url:
            _say(f"--exporter.url: {exporter.url} runs with --demo: its joules are simulated, and not used")
        return None, None
    return exporter, page


def _sources(
    local: Sequence[Source], exporter: LocalExporter | None, page: Page | None, host: Host
) -> tuple[list[Source], LocalExporter | None]:
    """Sources to read, and the exporter if it is one of them: where it has a meter, and this process has none."""
    if exporter is None or page is None or page.quality("cpu") != "measured" or _measures_cpu(local, host):
        return list(local), None
    kept = []
    for source in local:
        if source.name in _REPLACED:
            source.close()
        else:
            kept.append(source)
    return [exporter, *kept], exporter


def _measures_cpu(local: Sequence[Source], host: Host) -> bool:
    for source in local:
        if source.name not in ("rapl", "hwmon"):
            continue
        try:
            reading = source.read(host.clock())
        except Unavailable:
            continue
        if any(meter.device.component == "cpu" and meter.device.quality == "measured" for meter in reading.meters):
            return True
    return False


class _Constant:
    """Factors that stay as they are: a run asks once."""

    def __init__(self, factors: Factors) -> None:
        self._factors = factors

    def at(self, unix_seconds: float) -> Factors:  # noqa: ARG002 - the signature of `FactorProvider`
        """The factors."""
        return self._factors

    def health(self) -> tuple[()]:
        """There is no feed."""
        return ()

    def retry(self) -> None:
        """There is no feed."""

    def close(self) -> None:
        """There is no feed."""


def _factors_of(exporter: LocalExporter) -> FactorProvider | None:
    try:
        factors = exporter.factors()
    except Unavailable:
        return None
    return None if factors is None else _Constant(factors)


def _publish(run: summary.Run, result: Result, given: Mapping[str, Any]) -> None:
    """Print the line, and write the files; a file that cannot be written takes nothing from the others."""
    if not given["quiet"]:
        _say(summary.line(result))
        for remark in summary.remarks(result):
            _say(remark)
    if given["json"] == "-":
        sys.stdout.write(summary.as_json(run, result))
    elif given["json"]:
        _write(given["json"], summary.as_json(run, result))
    if given["csv"]:
        _append(given["csv"], summary.row(run, result))


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        _say(f"{path}: {error.strerror}")
        sys.stderr.write(text)


def _append(path: str, row: str) -> None:
    """Append a row, after a header if the file is new; runs that end at the same time write one after the other."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(row if os.fstat(file.fileno()).st_size else summary.header() + row)
    except OSError as error:
        _say(f"{path}: {error.strerror}")
        sys.stderr.write(row)


def _say(text: str) -> None:
    sys.stderr.write(f"ai-energy-exporter run: {text}\n")
    sys.stderr.flush()
