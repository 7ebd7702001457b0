"""``ai-energy-exporter doctor``: reads every source, checks the machine, and prints how to fix what does not work."""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TextIO

from .. import __version__
from ..config.settings import Settings
from ..host import Host
from ..impact.protocol import FactorProvider
from ..records import NODE, Component, EnergyReading, GpuState, Problem, Reading, Scope, SourceHealth, Unavailable
from ..service.assembly import make_factors, make_host, make_namer, make_sources
from ..sources.protocol import Source
from ..workloads.protocol import Namer
from .host_checks import HostCheck, run_checks
from .process_list import processes

PAUSE_SECONDS = 1.0
"""Time between the two readings of each source."""

TIMEOUT_SECONDS = 5.0
"""Time after which a source counts as hung (fault 15 of docs/faults.md)."""

ANSWER_SECONDS = 45.0
"""Time after which a source that asks another machine, such as a BMC, has no answer."""

_PENDING_PAUSE_SECONDS = 0.1

COMPONENTS: tuple[Component, ...] = ("cpu", "dram", "gpu", "platform")


_SCOPES: Mapping[Scope, str] = {
    "outlet": "at the plug",
    "supply": "at the input of the power supplies",
    "node": "of the whole machine",
}


class Examination(NamedTuple):
    """Two readings of one source; ``failure`` if the second one could not be made.

    ``read_at`` is when the second one was made, in boot-time seconds.
    """

    source: str
    first: Reading | None
    second: Reading | None
    failure: Problem | None
    read_at: float = 0.0

    @property
    def state(self) -> str:
        """``works``, ``partly`` or ``no``."""
        if self.second is None:
            return "no"
        return "partly" if self.second.problems else "works"


def run(settings: Settings) -> int:
    """Examine this machine and print the report. Returns the exit status."""
    host = make_host(settings)
    namer = make_namer(settings, host)
    sources = make_sources(settings, host, namer, every=True)
    for process, group in processes(host):
        namer.model(group, process)  # so that it recognises model servers
    report(settings, sources, host, sys.stdout, namer=namer, factors=make_factors(settings))
    return 0


def report(
    settings: Settings,
    sources: Sequence[Source],
    host: Host,
    out: TextIO,
    pause_seconds: float = PAUSE_SECONDS,
    namer: Namer | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    factors: FactorProvider | None = None,
) -> None:
    """Write the whole report. Takes about a second, at worst three times ``timeout_seconds``; raises nothing."""
    if namer is not None:
        namer.health()  # the providers start their requests while the sources are read
    if factors is not None:
        factors.at(host.wall())  # so do the feeds
    out.write(f"ai-energy-exporter {__version__} on {platform.system()} {platform.release()} {platform.machine()}, ")
    out.write(f"{host.cpu_count()} CPUs\n\nSources\n")
    examinations = examine(sources, host, pause_seconds, timeout_seconds)
    for one in examinations:
        off = " (but switched off)" if settings.enabled_sources.get(one.source) is False else ""
        candidates = _candidates(examinations) if one.source == "estimate" else []
        _write(out, one.source, f"{one.state}{off}", [*_reading_lines(one), *_problem_lines(one), *candidates])
    if namer is not None:
        out.write("\nNames\n")
        names = wait_for_providers(namer.health, timeout_seconds)
        for directory in names:
            lines = _provider_lines(directory, "provides the names of containers")
            _write(out, directory.name, "works" if directory.up else "no", lines)
        if not names:
            _write(out, "paths", "works", ["no metadata provider on this machine: containers are named by their ids"])
        namer.close()
    out.write("\nCarbon and cost\n")
    _write_factors(out, factors, host, timeout_seconds)
    out.write("\nThis machine\n")
    for check in run_checks(settings, host):
        _write(out, check.what, "ok" if not check.fix else "!!", _check_lines(check))
    out.write(f"\n{verdict(examinations)}\n")


def examine(
    sources: Sequence[Source],
    host: Host,
    pause_seconds: float = PAUSE_SECONDS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[Examination]:
    """Read every source twice, all concurrently, each in its own thread, which is left behind if it hangs."""
    probes = [_Probe(source, host, pause_seconds) for source in sources]
    deadline = time.monotonic() + timeout_seconds
    for probe in probes:
        probe.join(max(0.0, deadline - time.monotonic()))
    deadline += max(0.0, ANSWER_SECONDS - timeout_seconds)
    for probe in probes:
        if probe.pending:
            probe.join(max(0.0, deadline - time.monotonic()))
    return [probe.result() for probe in probes]


def wait_for_providers(
    ask: Callable[[], tuple[SourceHealth, ...]], timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[SourceHealth, ...]:
    """Health of metadata providers or feeds, once each has answered or failed."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        health = ask()
        if all(one.up or one.reason for one in health) or time.monotonic() >= deadline:
            return health
        time.sleep(0.05)


def verdict(examinations: Iterable[Examination]) -> str:
    """Which components' joules are measured and which only estimated on this machine, in one or two sentences."""
    measured: set[Component] = set()
    estimated: set[Component] = set()
    for one in examinations:
        for meter in one.second.meters if one.second else ():
            (measured if meter.device.quality == "measured" else estimated).add(meter.device.component)
    parts = []
    if names := [name for name in COMPONENTS if name in measured]:
        parts.append(f"Measured here: {', '.join(names)}.")
    if names := [name for name in COMPONENTS if name in estimated - measured]:
        parts.append(f"Only estimated: {', '.join(names)}.")
    if not parts:
        return "No meter works here: the exporter runs and reports that, but shows no joules."
    if not measured:
        parts.append("No joule on this machine is measured; the estimate's bounds are in energy_device_power_*_watts.")
    return " ".join(parts)


_HUNG = Problem("timeout", "no answer: its driver hangs", "look for the reason in the kernel's log: dmesg")
_NO_ANSWER = Problem("timeout", f"no answer within {ANSWER_SECONDS:g} s", "see whether it hangs, and try again")


class _Probe(threading.Thread):
    def __init__(self, source: Source, host: Host, pause_seconds: float) -> None:
        super().__init__(name=f"doctor-{source.name}", daemon=True)
        self._source = source
        self._host = host
        self._pause_seconds = pause_seconds
        self._first: Reading | None = None
        self._second: Reading | None = None
        self._failure: Problem | None = None
        self._read_at = 0.0
        self.pending = False
        """Whether it waits for an answer of another machine."""
        self.start()

    def run(self) -> None:
        try:
            self._first = self._source.read(self._host.clock())
            time.sleep(self._pause_seconds)
            second = self._read_again()
            while second.pending:
                self.pending = True
                time.sleep(_PENDING_PAUSE_SECONDS)
                second = self._read_again()
            # A source that reads more rarely than twice in the pause has given what it has the first time.
            self._second = second if second.meters else replace(second, meters=self._first.meters)
            self.pending = False
            self._source.close()
        except Unavailable as error:
            self._failure = Problem(error.reason, error.message, error.fix)
        except Exception as error:  # noqa: BLE001 - a broken source must not end the report
            self._failure = Problem("error", f"{type(error).__name__}: {error}", "this is a bug: please report it")

    def _read_again(self) -> Reading:
        self._read_at = self._host.clock()
        return self._source.read(self._read_at)

    def result(self) -> Examination:
        failure = self._failure
        if self._second is None and failure is None:
            failure = _NO_ANSWER if self.pending else _HUNG
        return Examination(self._source.name, self._first, self._second, failure, self._read_at)


def _reading_lines(one: Examination) -> list[str]:
    if one.second is None:
        return []
    lines = [_meter(one, index) for index in range(len(one.second.meters))]
    if any(meter.device.source == "estimate" and meter.device.name != "configured" for meter in one.second.meters):
        lines.append("its table is of whole servers at the wall (SPECpower): with memory, fans and power supply")
    if (cpu := one.second.cpu) is not None:
        processes = sum(len(group.processes) for group in cpu.groups)
        lines.append(
            f"{len(cpu.groups)} groups and {processes} processes used "
            f"{cpu.busy_seconds / max(cpu.window_seconds, 1e-9):.2f} CPUs in the last {cpu.window_seconds:.1f} s"
        )
    lines += [_card(gpu) for gpu in one.second.gpus]
    users: dict[str, set[int | None]] = {}
    for use in one.second.gpu_uses:
        users.setdefault(use.device, set()).add(use.pid)
    lines += [f"{device}: held by {len(pids)} processes" for device, pids in users.items()]
    if one.second.socket_busy_seconds:
        lines.append(f"busy seconds of {len(one.second.socket_busy_seconds)} sockets")
    for server in one.second.tokens or ():
        if server.read:
            served = f" ({', '.join(server.served_models)})" if any(server.served_models) else ""
            lines.append(f"{server.server} of pid {server.process.key.pid}{served}: its tokens or requests are read")
    return lines or ["nothing to report on this machine"]


def _card(gpu: GpuState) -> str:
    text = f"GPU {gpu.index}: {gpu.gpu_model or 'unknown model'} ({gpu.uuid})"
    if gpu.power_utilization_ratio is not None:
        text += f", {gpu.power_utilization_ratio:.1%} of an unpublished maximum; joules need --neuron.watts"
    return text


def _meter(one: Examination, index: int) -> str:
    assert one.second is not None
    meter = one.second.meters[index]
    device = meter.device
    text = f"{device.id} ({device.component})"
    if isinstance(meter, EnergyReading):
        before = next((m for m in one.first.meters if m.device.id == device.id), None) if one.first else None
        if isinstance(before, EnergyReading) and meter.at > before.at and meter.joules >= before.joules:
            watts = (meter.joules - before.joules) / (meter.at - before.at)
            text += f": {watts:.1f} W"
            if meter.watts is not None and before.watts is not None:
                text += _by_gauge(watts, (before.watts + meter.watts) / 2)
        elif device.period_seconds:
            text += f": {meter.joules / 3.6e6:.3f} kWh" + ("" if meter.watts is None else f", {meter.watts:.1f} W now")
    else:
        text += f": {meter.watts:.1f} W"
    for bounds in one.second.bounds:
        if bounds.device == device.id:
            text += f", between {bounds.low_watts:.1f} and {bounds.high_watts:.1f} W"
    text += "" if device.quality == "measured" else f", {device.quality}"
    if device.period_seconds:
        text += f", every {device.period_seconds:g} s, {max(0.0, one.read_at - meter.at):.0f} s old"
    if device.step_joules:
        text += f", in steps of {device.step_joules / 1000:g} kJ"
    if device.component == "platform" and device.scope in _SCOPES and device.within is None:
        text += f", {_SCOPES[device.scope]}"
    text += f", part of {device.within}" if device.within else ""
    return text + (", counts only where no other meter measures it" if device.fallback else "")


def _candidates(examinations: Sequence[Examination]) -> list[str]:
    """Meters whose component is not known, where the CPU is only estimated; one of them may be its meter."""
    devices = [meter.device for one in examinations if one.second for meter in one.second.meters]
    if any(device.component == "cpu" and device.quality == "measured" for device in devices):
        return []
    unknown = [device for device in devices if device.source in ("hwmon", "powercap") and device.within == NODE]
    lines = []
    for device in unknown:
        chip, _, label = device.name.partition(" ")
        channel = "power" if device.method == "power_integrated" else "energy"
        key = f"{chip}/{label or channel + device.id.rpartition('-')[2]}"
        lines.append(f"measured, of unknown scope: {key}")
        lines.append(f"fix: if it is the CPU's, --hwmon.components '{key}=cpu'")
    return lines


def _by_gauge(counted_watts: float, gauge_watts: float) -> str:
    """The device's power gauge beside its counter; over one second they may differ by a factor of two."""
    apart = counted_watts > 2 * gauge_watts or gauge_watts > 2 * counted_watts
    advice = ": implausible, unless its load changed just now" if apart and max(counted_watts, gauge_watts) > 1 else ""
    return f" by its counter, {gauge_watts:.1f} W by its power gauge{advice}"


def _problem_lines(one: Examination) -> list[str]:
    problems = [one.failure] if one.failure else list(one.second.problems if one.second else ())
    lines = []
    for problem in problems:
        lines.append(f"{problem.message} ({problem.reason})")
        if problem.fix:
            lines.append(f"fix: {problem.fix}")
    return lines


def _write_factors(out: TextIO, factors: FactorProvider | None, host: Host, timeout_seconds: float) -> None:
    if factors is None:
        _write(
            out,
            "factors",
            "no",
            ["neither carbon intensity nor price is known", "fix: --impact.zone, --impact.price: docs/impact.md"],
        )
        return
    feeds = wait_for_providers(factors.health, timeout_seconds)
    found = factors.at(host.wall())
    factors.close()
    for one in feeds:
        _write(out, one.name, "works" if one.up else "no", _provider_lines(one, "answers"))
    if found is not None and found.intensity is not None:
        kind = ", ".join(filter(None, (found.zone, found.provider, found.source, found.factor_type, found.year)))
        _write(out, "intensity", "works", [f"{found.intensity:g} g/kWh ({kind})"])
    if found is not None and found.price is not None:
        _write(out, "price", "works", [f"{found.price:g} {found.currency} per kWh"])


def _provider_lines(one: SourceHealth, what: str) -> list[str]:
    if one.up:
        return [what]
    return [one.message or "no answer yet", *([f"fix: {one.fix}"] if one.fix else [])]


def _check_lines(check: HostCheck) -> list[str]:
    return [check.text, f"fix: {check.fix}"] if check.fix else [check.text]


def _write(out: TextIO, what: str, state: str, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        printable = "".join(letter if letter.isprintable() else "?" for letter in line)
        head = f"  {what:<12} {state:<7} " if number == 0 else " " * 23
        out.write(f"{head}{printable}\n")
