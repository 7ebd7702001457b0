"""Power of AWS Trainium and Inferentia devices: a ratio, as the driver reports it, and joules only if asked."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from ...host import Host, KeptFile, names_in
from ...records import Device, GpuState, GpuUse, PowerBounds, PowerReading, Problem, Reading, Unavailable
from ..drm.files import OpenFiles
from ..usage.pid_lookup import PidResolver

RESCAN_SECONDS = 60.0
"""How often to look for devices that were added, or files that were moved by another driver."""

STALE_SECONDS = 180.0
"""The driver has a new value every minute; one that is older than three of them is none."""

_ROOTS = ("devices/virtual/neuron_device", "class/neuron_device")
_DEVICE = re.compile(r"neuron(\d+)")
_FILE = "power/utilization"
_VALID = "POWER_STATUS_VALID"

_NO_DATA = "its firmware reports no power, or the device was idle for the whole minute"
_UPDATE = "update the driver and firmware of the instance (aws-neuronx-dkms 2.24 or newer)"


@dataclass(slots=True)
class _Neuron:
    """One device; ``stamp`` is the driver's time of the last value, ``at`` when it was first seen."""

    device: Device
    index: str
    model: str
    power: KeptFile | None
    stamp: str = ""
    at: float = 0.0


class NeuronSource:
    """Reads the mean power utilization of the last minute (aws-neuronx-dkms, neuron_power.c).

    It is a percentage of an unpublished maximum, with the power at rest already subtracted: without ``watts`` it is
    exposed as a ratio and there are no joules. With ``watts`` (at 0 %, at 100 %), as the operator knows them, power is
    modelled and marked as an estimate; it lags by a minute. Driver 2.31 moved nodes of this tree, so the file is
    searched for below the device. A device is held by the processes that have it open; the driver reports no use of
    each.
    """

    name = "neuron"

    def __init__(self, host: Host, watts: tuple[float, float] | None = None) -> None:
        self._host = host
        self._watts = watts
        self._files = OpenFiles(host, _node_of)
        self._resolver = PidResolver(host, "/dev/neuron")
        self._neurons: list[_Neuron] = []
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all devices. Raises `Unavailable` if there is none."""
        if now >= self._scan_at:
            self._scan(now)
        self._files.refresh(now)
        meters, bounds, states, uses = [], [], [], []
        problems: list[Problem] = []
        for neuron in self._neurons:
            ratio: float | None = None
            try:
                ratio = self._ratio(neuron)
            except Unavailable as error:
                problems.append(Problem(error.reason, error.message, error.fix))
            if ratio is not None and self._watts is not None:
                low, high = self._watts
                meters.append(PowerReading(neuron.device, self._host.clock(), low + ratio * (high - low)))
                bounds.append(PowerBounds(neuron.device.id, low, high))
            states.append(
                GpuState(neuron.device.id, neuron.index, gpu_model=neuron.model, power_utilization_ratio=ratio)
            )
            uses += self._uses(neuron, now)
        return Reading(tuple(meters), tuple(bounds), gpus=tuple(states), gpu_uses=tuple(uses), problems=tuple(problems))

    def close(self) -> None:
        """Close the files; the next read looks for devices again."""
        for neuron in self._neurons:
            if neuron.power is not None:
                neuron.power.close()
        self._neurons, self._scan_at = [], -math.inf

    def _ratio(self, neuron: _Neuron) -> float | None:
        """Mean of the last minute, None without one. Raises `Unavailable`."""
        if neuron.power is None:
            raise Unavailable("not_found", f"neuron{neuron.index}: the driver has no {_FILE} for it", _UPDATE)
        raw = neuron.power.read(256)
        text = raw.decode("ascii", "replace").strip("\n\0 ")
        status, *fields = [field.strip() for field in text.split(",")]
        if status != _VALID:
            raise Unavailable("driver", f"{neuron.power.path}: {status[:40] or 'empty'}: {_NO_DATA}", _UPDATE)
        try:
            stamp, _, _, mean = fields
            ratio = float(mean) / 100
        except ValueError:
            ratio, stamp = math.nan, ""
        if not 0 <= ratio <= 1:
            raise Unavailable("implausible", f"{neuron.power.path}: not status,time,min,max,mean: {text[:60]!r}")
        at = self._host.clock()
        if stamp != neuron.stamp:
            neuron.stamp, neuron.at = stamp, at
        elif at - neuron.at > STALE_SECONDS:
            text = f"{neuron.power.path}: no new value for {at - neuron.at:.0f} s, the driver has one each minute"
            raise Unavailable("driver", text, "look for the driver's messages in dmesg")
        return ratio

    def _uses(self, neuron: _Neuron, now: float) -> list[GpuUse]:
        pids = sorted(pid for pid, nodes in self._files.opened.items() if neuron.index in nodes.values())
        found = [identity for pid in pids if (identity := self._resolver.find(pid, now)) is not None]
        return [GpuUse(neuron.device.id, each.group, each.process, 0.0, reported=False) for each in found]

    # --- finding devices ----------------------------------------------------------------------------

    def _scan(self, now: float) -> None:
        """Find all devices again. Raises `Unavailable` if there is none."""
        before = {neuron.device.id: neuron for neuron in self._neurons}
        self.close()
        for root in map(self._host.sys, _ROOTS):
            names = sorted(filter(_DEVICE.fullmatch, names_in(root)), key=lambda name: int(name.removeprefix("neuron")))
            self._neurons = [self._found(f"{root}/{name}", name) for name in names]
            if self._neurons:
                break
        for neuron in self._neurons:
            if known := before.get(neuron.device.id):
                neuron.stamp, neuron.at = known.stamp, known.at
        if not self._neurons:
            raise Unavailable(
                "not_found",
                f"{self._host.sys(_ROOTS[0])}: no AWS Neuron device",
                "nothing to do on machines without Trainium or Inferentia; else install aws-neuronx-dkms",
            )
        self._resolver.expire(now)
        self._scan_at = now + RESCAN_SECONDS

    def _found(self, folder: str, name: str) -> _Neuron:
        index = name.removeprefix("neuron")
        serial = self._text(f"{folder}/info/serial_number")
        model = self._text(f"{folder}/info/architecture/device_name") or "AWS Neuron device"
        unique = serial if serial.strip("0x") else index
        device = Device(
            id=f"neuron-{unique}",
            component="gpu",
            source=self.name,
            quality="estimated",
            name=model,
            capacity=1.0,
            max_watts=max(1.0, self._watts[1] if self._watts else 0.0) * 2,
            idle_watts=self._watts[0] if self._watts else None,
            method="utilization_model",
        )
        power = None
        for path in _candidates(folder):
            try:
                power = self._host.keep(path)
                break
            except Unavailable:
                continue
        return _Neuron(device, index, model, power, at=self._host.clock())

    def _text(self, path: str) -> str:
        try:
            return self._host.text(path)
        except Unavailable:
            return ""


def _candidates(folder: str) -> list[str]:
    """Where the file may be: below ``stats``, as before driver 2.31, then in any folder, or folder of a folder."""
    found = [f"{folder}/stats/{_FILE}"]
    for name in names_in(folder):
        if os.path.isdir(f"{folder}/{name}") and not os.path.islink(f"{folder}/{name}"):
            found.append(f"{folder}/{name}/{_FILE}")
            found += [f"{folder}/{name}/{inner}/{_FILE}" for inner in names_in(f"{folder}/{name}")]
    return found


def _node_of(target: str) -> str | None:
    found = _DEVICE.fullmatch(target.removeprefix("/dev/")) if target.startswith("/dev/neuron") else None
    return None if found is None else found[1]
