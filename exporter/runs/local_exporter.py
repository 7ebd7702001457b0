"""The exporter of this machine as a meter: what it read with rights that the user of a run may not have."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from .. import __version__
from ..host import Host
from ..impact import exchange
from ..impact.values import Factors
from ..network.http_get import Answer, Request, http_get
from ..records import Component, Device, EnergyReading, Quality, Reading, Unavailable

DEFAULT_URL = "http://127.0.0.1:9400"

_WANTED = (
    b"energy_node_joules_total",
    b"energy_unattributed_joules_total",
    b"energy_power_source_info",
    b"energy_device_idle_watts",
    b"energy_sample_timestamp_seconds",
    b"energy_sample_interval_seconds",
    b"energy_exporter_build_info",
)
_USER_AGENT = f"ai-energy-exporter/{__version__}"
"""By that an exporter knows that a run asks, which ends: it waits for no run until it publishes a new counter."""

_METERED: tuple[Component, ...] = ("cpu", "dram")
_RESPONSE_SECONDS = 2.0
_MOST_BYTES = 64 << 20
_MOST_WATTS = 1e6
_SETTLE_SECONDS = 0.03
_RETRY_SECONDS = 0.05
_MISSED_INTERVALS = 3.0


class PowerSource(NamedTuple):
    """A device of the exporter: ``quality`` is measured, estimated or simulated."""

    component: str
    device: str
    source: str
    quality: str
    method: str


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape. ``sampled_at`` is Unix seconds; ``joules`` of the node and ``unowned`` are counters by component.

    ``unowned`` are joules that no workload owes: idle power of the node, and time for which no usage is known.
    """

    sampled_at: float
    interval_seconds: float
    demo: bool
    joules: dict[str, float] = field(default_factory=dict)
    unowned: dict[str, float] = field(default_factory=dict)
    devices: tuple[PowerSource, ...] = ()
    idle_watts: dict[str, float] = field(default_factory=dict)

    def quality(self, component: str) -> str:
        """Quality of a component's joules: the least of its devices; "" if it has none."""
        found = {device.quality for device in self.devices if device.component == component}
        return next((quality for quality in ("simulated", "estimated", "measured") if quality in found), "")


class LocalExporter:
    """Asks the exporter at ``url``. It must be of this machine, because its joules are divided by this one's use."""

    name = "exporter"

    def __init__(self, url: str, host: Host) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.url = url
        self._tls = parts.scheme == "https"
        self._address = parts.hostname or "127.0.0.1"
        self._port = parts.port or 9400
        self._path = parts.path.rstrip("/") or "/metrics"
        self._host = host
        self.page: Page | None = None

    def ask(self) -> Page:
        """Scrape it. Raises `Unavailable`."""
        text = self._get(self._path, "text/plain", keep=True).body.decode("utf-8", "replace")
        self.page = _parse(text, self.url)
        return self.page

    def factors(self) -> Factors | None:
        """Its carbon intensity and price, None if it knows neither. Raises `Unavailable`."""
        try:
            return exchange.load(json.loads(self._get(exchange.PATH, "application/json").body))
        except _StatusError as error:
            if error.status == 404:
                return None
            raise
        except ValueError as error:
            raise Unavailable("implausible", f"{self.url}{exchange.PATH}: {error}") from None

    def follow(self) -> None:
        """Wait for its next sample, about one interval. Raises `Unavailable` if none comes."""
        page = self.page or self.ask()
        before, interval = page.sampled_at, page.interval_seconds
        until = time.monotonic() + _MISSED_INTERVALS * interval + 1.0
        time.sleep(min(interval, max(0.0, before + interval + _SETTLE_SECONDS - self._host.wall())))
        while self.ask().sampled_at == before:
            if time.monotonic() > until:
                raise Unavailable("timeout", f"{self.url}: takes no samples any more")
            time.sleep(_RETRY_SECONDS)

    def read(self, now: float) -> Reading:
        """The joules of CPU and DRAM that workloads owe, of the last scrape. Raises `Unavailable`.

        Idle joules are left out as the exporter has them, so that both divide the same by the same.
        """
        page = self.page
        if page is None:
            raise Unavailable("not_found", f"{self.url}: was not read")
        at = now - max(0.0, self._host.wall() - page.sampled_at)
        return Reading(meters=tuple([self._reading(page, name, at) for name in _METERED if name in page.joules]))

    def close(self) -> None:
        """Nothing is kept open."""

    def _reading(self, page: Page, component: Component, at: float) -> EnergyReading:
        quality: Quality = "measured" if page.quality(component) == "measured" else "estimated"
        device = Device(
            f"exporter-{component}",
            component,
            self.name,
            quality,
            component,
            0.0,
            max_watts=_MOST_WATTS,
            idle_watts=0.0,
        )
        joules = page.joules[component] - page.unowned.get(component, 0.0)
        return EnergyReading(device, at, max(0.0, joules), None)

    def _get(self, path: str, accept: str, *, keep: bool = False) -> Answer:
        kept = _keep if keep else None
        request = Request(path, accept, _RESPONSE_SECONDS, _MOST_BYTES, kept, user_agent=_USER_AGENT)
        answer = http_get(self._address, self._port, request, tls=self._tls)
        if answer.status != 200:
            raise _StatusError(answer.status, f"{self.url}{path}: status {answer.status}")
        return answer


class _StatusError(Unavailable):
    def __init__(self, status: int, message: str) -> None:
        fix = "it wants a login, which run has no flag for" if status in (401, 403) else ""
        super().__init__("permission" if fix else "error", message, fix)
        self.status = status


def _keep(block: bytes) -> bytes:
    return b"".join([line + b"\n" for line in block.split(b"\n") if line.startswith(_WANTED)])


def _parse(text: str, url: str) -> Page:
    """Raises `Unavailable` for a page of something else."""
    values: dict[str, float] = {}
    joules: dict[str, float] = {}
    unowned: defaultdict[str, float] = defaultdict(float)
    devices: list[PowerSource] = []
    idle: dict[str, float] = {}
    demo = False
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError as error:
        raise Unavailable("implausible", f"{url}: {error}") from None
    for sample in samples:
        labels = sample.labels
        if sample.name == "energy_node_joules_total":
            joules[labels["component"]] = sample.value
        elif sample.name == "energy_unattributed_joules_total":
            if labels["reason"] in ("idle", "gap"):
                unowned[labels["component"]] += sample.value
        elif sample.name == "energy_power_source_info":
            devices.append(PowerSource(*(labels.get(name, "") for name in PowerSource._fields)))
        elif sample.name == "energy_device_idle_watts":
            idle[labels["device"]] = sample.value
        elif sample.name == "energy_exporter_build_info":
            demo = labels.get("demo") == "true"
        else:
            values[sample.name] = sample.value
    try:
        sampled_at, interval = values["energy_sample_timestamp_seconds"], values["energy_sample_interval_seconds"]
    except KeyError:
        raise Unavailable("implausible", f"{url}: is no page of this exporter") from None
    return Page(sampled_at, interval, demo, joules, dict(unowned), tuple(devices), idle)
