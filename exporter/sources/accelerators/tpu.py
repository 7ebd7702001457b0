"""Google TPUs: duty cycle and memory from the runtime's metrics service; joules only as an estimate, if asked."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ...host import Host, names_in
from ...records import Device, GpuState, GpuUse, PowerBounds, PowerReading, Problem, Reading, Unavailable
from ..drm.files import OpenFiles
from ..usage.pid_lookup import PidResolver

if TYPE_CHECKING:
    from .tpu_metrics import TpuMetrics

RESCAN_SECONDS = 60.0
"""How often to look for chips that were added or removed."""

ADDRESS = "localhost:8431"
"""Where libtpu serves its metrics while a program uses the TPU (TPU_RUNTIME_METRICS_PORTS)."""

_GOOGLE = "0x1ae0"
_FRESH_SECONDS = 10.0
_START_SECONDS = 60.0
"""Between the start of a program and its first metrics libtpu compiles: no metric yet is no fault."""

_SERVE = (
    "use a libtpu that serves metrics, in the host's network namespace; older ones need "
    "TPU_RUNTIME_METRICS_PORTS=8431 in the program's environment"
)
_EXTRA = Problem("not_found", "the module h2 is not installed", "pip install h2")

_NODE = re.compile(r"/dev/(?:vfio/|accel)(\d+)")


TpuWatts = tuple[float, float] | Literal["published"] | None
"""Watts of a chip at rest and at full duty cycle, those that Google has published, or none."""


class _Model(NamedTuple):
    """``cores`` is how many devices the runtime counts per chip: memory is reported by core, duty cycle by chip.

    ``watts`` are the published ones.
    """

    name: str
    cores: int
    watts: tuple[float, float] | None = None


_V2, _V3 = _Model("TPU v2", 2), _Model("TPU v3", 2, (123.0, 262.0))

_MODELS = {
    "0x0027": _Model("TPU v2 or v3", 2),
    "0x005e": _Model("TPU v4", 1, (90.0, 192.0)),
    "0x0062": _Model("TPU v5p", 1),
    "0x0063": _Model("TPU v5e", 1),
    "0x006f": _Model("TPU v6e", 1),
    "0x0076": _Model("TPU7x", 2),
}
"""PCI device ids (tpu-info 0.14.2, device.py). Watts are the least and the most of "Measured min/mean/max power" on
https://cloud.google.com/tpu/docs/v3 and /v4, of a chip; of other models there were none in November 2026."""

_SUBSYSTEMS = {("0x0027", "0x004e"): _V2, ("0x0027", "0x004f"): _V3}
"""Two models have the same device id."""


@dataclass(frozen=True, slots=True)
class _Chip:
    device: Device
    index: int
    address: str
    node: str
    model: _Model
    watts: tuple[float, float] | None


class TpuSource:
    """Reads the chips of this machine; no TPU reports power or energy (tpu-info 0.14.2 knows no such metric).

    Without ``watts`` there are no joules. With them power is modelled by the duty cycle, marked as an estimate with
    these bounds. A chip is held by the process that has it open; the runtime serves
    metrics only while there is one. ``start`` is called with the client at the first read.
    """

    name = "tpu"

    def __init__(
        self,
        host: Host,
        watts: TpuWatts = None,
        address: str = ADDRESS,
        start: Callable[[TpuMetrics], None] = lambda metrics: metrics.start(),
    ) -> None:
        self._host = host
        self._watts = watts
        self._address = address
        self._start = start
        self._files = OpenFiles(host, _node_of)
        self._resolver = PidResolver(host, ("/dev/vfio/", "/dev/accel"))
        self._chips: list[_Chip] = []
        self._metrics: TpuMetrics | None = None
        self._held_since: float | None = None
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all chips. Raises `Unavailable` if there is none."""
        if now >= self._scan_at:
            self._scan(now)
        problem = None if self._open() else _EXTRA
        self._files.refresh(now)
        answer = self._metrics.answer if self._metrics is not None else None
        fresh = answer if answer is not None and now - answer.at <= _FRESH_SECONDS else None
        uses = [use for chip in self._chips for use in self._uses(chip, now)]
        self._held_since = (self._held_since if self._held_since is not None else now) if uses else None
        meters, bounds, states = [], [], []
        for chip in self._chips:
            state = self._state(chip, fresh.values if fresh is not None else {})
            states.append(state)
            ratio = state.utilization_ratio
            if ratio is None and not uses and not self._files.denied:
                ratio = 0.0  # nothing holds a chip
            if chip.watts is not None and ratio is not None:
                low, high = chip.watts
                meters.append(PowerReading(chip.device, self._host.clock(), low + ratio * (high - low)))
                bounds.append(PowerBounds(chip.device.id, low, high))
        if fresh is None and problem is None and self._held_since is not None and self._metrics is not None:
            failed = self._metrics.problem
            if failed is not None and now - self._held_since >= _START_SECONDS:
                problem = Problem(failed.reason, f"a program holds a TPU, and {failed.message}", failed.fix or _SERVE)
        problems = tuple([each for each in (problem, self._unpublished()) if each is not None])
        return Reading(tuple(meters), tuple(bounds), gpus=tuple(states), gpu_uses=tuple(uses), problems=problems)

    def close(self) -> None:
        """End the thread; the next read starts another."""
        if self._metrics is not None:
            self._metrics.stop()
        self._metrics, self._chips, self._scan_at = None, [], -math.inf

    def _open(self) -> bool:
        """Start the client; False without its library."""
        if self._metrics is None:
            try:
                client = importlib.import_module(".tpu_metrics", __package__)
            except ModuleNotFoundError:
                return False
            self._metrics = client.TpuMetrics(self._host, self._address)
            self._start(self._metrics)
        return True

    def _unpublished(self) -> Problem | None:
        """The published watts are wanted, and there are none."""
        without = sorted({chip.model.name for chip in self._chips if chip.watts is None})
        if self._watts != "published" or not without:
            return None
        what = f"{', '.join(without)}: its power is not published, so it has no joules"
        return Problem("not_found", what, "give watts that you know: --tpu.watts LOW-HIGH")

    def _state(self, chip: _Chip, values: object) -> GpuState:
        metrics = values if isinstance(values, dict) else {}
        total, used, duty = (
            metrics.get(f"tpu.runtime.{name}", {})
            for name in ("hbm.memory.total.bytes", "hbm.memory.usage.bytes", "tensorcore.dutycycle.percent")
        )
        cores = [chip.index * chip.model.cores + core for core in range(chip.model.cores)]
        percent = duty.get(chip.index)
        return GpuState(
            chip.device.id,
            str(chip.index),
            gpu_model=chip.model.name,
            pci_bus_id=chip.address,
            memory_used_bytes=sum(used[core] for core in cores) if all(core in used for core in cores) else None,
            memory_total_bytes=sum(total[core] for core in cores) if all(core in total for core in cores) else None,
            utilization_ratio=None if percent is None else min(1.0, max(0.0, percent / 100)),
        )

    def _uses(self, chip: _Chip, now: float) -> list[GpuUse]:
        pids = sorted(pid for pid, nodes in self._files.opened.items() if chip.node in nodes.values())
        found = [identity for pid in pids if (identity := self._resolver.find(pid, now)) is not None]
        return [GpuUse(chip.device.id, each.group, each.process, 0.0, reported=False) for each in found]

    # --- finding chips ------------------------------------------------------------------------------

    def _scan(self, now: float) -> None:
        """Find all chips again. Raises `Unavailable` if there is none."""
        found: dict[str, tuple[str, _Model, str]] = {}
        root = self._host.sys("bus/pci/devices")
        for address in names_in(root):
            folder = f"{root}/{address}"
            if self._text(f"{folder}/vendor") != _GOOGLE:
                continue
            device = self._text(f"{folder}/device")
            model = _SUBSYSTEMS.get((device, self._text(f"{folder}/subsystem_device")), _MODELS.get(device))
            chip = address.partition(".")[0]  # two cores of a chip are two functions
            if model is not None and chip not in found:
                group = os.path.basename(os.path.realpath(f"{folder}/iommu_group"))
                found[chip] = (address, model, group if group.isdigit() else "")
        if not found:
            self.close()
            raise Unavailable(
                "not_found",
                f"{root}: no Google TPU",
                "nothing to do on machines without a TPU",
            )
        in_order = sorted(found.values(), key=lambda each: (int(each[2] or 0), each[0]))
        self._chips = [
            self._chip(index, address, model, group) for index, (address, model, group) in enumerate(in_order)
        ]
        self._resolver.expire(now)
        self._scan_at = now + RESCAN_SECONDS

    def _chip(self, index: int, address: str, model: _Model, group: str) -> _Chip:
        watts = model.watts if self._watts == "published" else self._watts
        device = Device(
            id=f"tpu-{address}",
            component="gpu",
            source=self.name,
            quality="estimated",
            name=model.name,
            capacity=1.0,
            max_watts=max(1.0, watts[1] if watts else 0.0) * 2,
            idle_watts=watts[0] if watts else None,
            method="utilization_model",
        )
        return _Chip(device, index, address, group or str(index), model, watts)

    def _text(self, path: str) -> str:
        try:
            return self._host.text(path).lower()
        except Unavailable:
            return ""


def _node_of(target: str) -> str | None:
    found = _NODE.fullmatch(target)
    return None if found is None else found[1]
