"""Which meter a device of a trace has: a counter of the exporter in Prometheus, or a file of power samples."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ..prometheus import Prometheus, Series
from .pricing import NoMeterError, Point, from_watts
from .trace import Device, Trace, TraceError

_MARGIN_SECONDS = 120.0
"""How much of a counter is read before and after the trace: two scrapes in most setups."""


def _selector(device: Device, trace: Trace, given: Mapping[str, str], matchers: str) -> str:
    """PromQL of the counter of a device; ``given`` maps keys of devices to UUIDs, indexes or whole selectors."""
    chosen = given.get(device.key, "")
    if "{" in chosen:
        return chosen
    if device.pid is not None:
        labels = f'pid="{device.pid}"'
        return f"energy_process_joules_total{{{_joined(labels, matchers)}}}"
    if chosen.startswith(("GPU-", "MIG-")) or (device.uuid and not chosen):
        labels = f'uuid="{chosen or device.uuid}"'
    else:
        labels = f'gpu="{chosen or device.number}"'
        if trace.host and "instance" not in matchers:
            labels += f',instance=~"{trace.host}(:[0-9]+)?"'
    return f"energy_gpu_joules_total{{{_joined(labels, matchers)}}}"


def _joined(*parts: str) -> str:
    return ",".join(filter(None, parts))


def counted(
    prometheus: Prometheus, device: Device, trace: Trace, given: Mapping[str, str], matchers: str
) -> list[Point]:
    """What Prometheus has of a device around the trace. Raises `NoMeterError`, `QueryError`."""
    query = _selector(device, trace, given, matchers)
    start, end = trace.start / 1e9 - _MARGIN_SECONDS, trace.end / 1e9 + _MARGIN_SECONDS
    found = prometheus.raw(query, start, end)
    if not found:
        raise NoMeterError(f"Prometheus has no samples of {query} around it")
    if len({tuple(one.labels.get(name) for name in ("instance", "uuid", "pid")) for one in found}) > 1:
        names = ", ".join(sorted({one.labels.get("instance", "") for one in found}))
        raise NoMeterError(f"{query} has several devices ({names}): choose by --prometheus.matchers or --meter")
    return _sum([_grown(series) for series in found])


def sampled(meters: Mapping[str, list[Point]], device: Device, given: Mapping[str, str]) -> list[Point]:
    """What a file of power samples has of a device. Raises `NoMeterError`."""
    uuid = given.get(device.key) or device.uuid
    if not uuid and len(meters) == 1:
        (uuid,) = meters
    if uuid not in meters:
        raise NoMeterError(
            f"the power samples are of {', '.join(meters) or 'no device'}: choose by --meter {device.key}="
        )
    return meters[uuid]


def _grown(series: Series) -> list[Point]:
    """A counter from 0 on, without the falls of its resets."""
    points, joules, last = [], 0.0, None
    for at, value in zip(series.times, series.values, strict=True):
        if last is not None:
            joules += value - last if value >= last else value
        last = value
        points.append(Point(round(at * 1e9), joules))
    return points


def _sum(counters: Sequence[Sequence[Point]]) -> list[Point]:
    """Counters that were scraped together, such as the components of a process."""
    together: dict[int, float] = {}
    for counter in counters:
        for point in counter:
            together[point.at] = together.get(point.at, 0.0) + point.joules
    return [Point(at, together[at]) for at in sorted(together)]


def from_samples(path: Path) -> dict[str, list[Point]]:
    """Meters by UUID of a CSV file with the columns timestamp, uuid, power.draw [W], as nvidia-smi writes it.

    ``nvidia-smi --query-gpu=timestamp,uuid,power.draw.instant --format=csv -lms 100``; its times are local, so a file
    with Unix seconds or a time zone in ``timestamp`` is better. Raises `TraceError`, OSError.
    """
    samples: dict[str, list[tuple[int, float]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, skipinitialspace=True)
            head = [name.strip().lower() for name in next(rows, [])]
            power = next((number for number, name in enumerate(head) if name.startswith("power")), -1)
            if "timestamp" not in head or "uuid" not in head or power < 0:
                raise TraceError(f"{path}:1: columns timestamp, uuid and power.draw are wanted, not {', '.join(head)}")
            for number, row in enumerate(rows, 2):
                try:
                    at = _moment(row[head.index("timestamp")])
                    watts = float(row[power].split()[0])
                except (ValueError, IndexError):
                    raise TraceError(f"{path}:{number}: {','.join(row)}: no time, UUID and power") from None
                samples.setdefault(row[head.index("uuid")].strip(), []).append((at, watts))
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: {error}") from None
    return {uuid: from_watts(sorted(found)) for uuid, found in samples.items()}


def _moment(text: str) -> int:
    word = text.strip()
    try:
        return round(float(word) * 1e9)
    except ValueError:
        pass
    moment = datetime.fromisoformat(word.replace("/", "-"))
    return round(moment.timestamp() * 1e9)  # without a zone it is local time, which nvidia-smi prints
