"""CPU joules modelled from utilisation, for machines without a CPU meter, such as most cloud VMs."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

from ...host import Host, KeptFile
from ...records import Device, EnergyReading, PowerBounds, Reading, Unavailable
from .cpu_times import CpuTimes, parse_cpu_times, psutil_cpu_times
from .processor import fields_of, first_processor, idle_share


class Coefficients(NamedTuple):
    """Watts per vCPU (hardware thread) when idle and at full use."""

    name: str
    min_watts: float
    max_watts: float


_DEFAULT = Coefficients("average AWS processor", 0.74, 3.5)
"""MIN_WATTS_AVG and MAX_WATTS_AVG of cloud-carbon-footprint packages/aws AwsFootprintEstimationConstants.ts
(Google Cloud: 0.71 and 4.26, Azure: 0.78 and 3.76)."""

_PUBLISHED = {
    "epyc1": Coefficients("AMD EPYC 1st Gen", 0.85, 2.60),
    "epyc2": Coefficients("AMD EPYC 2nd Gen", 0.47, 1.69),
    "epyc3": Coefficients("AMD EPYC 3rd Gen", 0.46, 1.96),
    "epyc4": Coefficients("AMD EPYC 4th Gen", 0.74, 2.28),
    "sandybridge": Coefficients("Intel Sandy Bridge", 2.21, 8.63),
    "ivybridge": Coefficients("Intel Ivy Bridge", 1.71, 5.56),
    "haswell": Coefficients("Intel Haswell", 1.86, 5.60),
    "broadwell": Coefficients("Intel Broadwell", 0.71, 3.69),
    "skylake": Coefficients("Intel Skylake", 0.61, 4.10),
    "cascadelake": Coefficients("Intel Cascade Lake", 0.69, 4.06),
    "coffeelake": Coefficients("Intel Coffee Lake", 1.14, 5.42),
    "icelake": Coefficients("Intel Ice Lake", 0.77, 3.76),
    "sapphirerapids": Coefficients("Intel Sapphire Rapids", 1.04, 4.16),
    "emeraldrapids": Coefficients("Intel Emerald Rapids", 0.81, 4.48),
    "graniterapids": Coefficients("Intel Granite Rapids", 0.58, 2.53),
    "graviton": Coefficients("AWS Graviton 2-4", 0.47, 1.69),
}
"""cloud-carbon-footprint/ccf-coefficients, output/coefficients-aws-use.csv (SPECpower_ssj2008 of 2026-03-09,
rounded to 0.01 W): power of whole servers at the wall, idle and at 100 %, per thread. Its Graviton rows repeat EPYC
2nd Gen, since no Graviton was ever submitted. Its row for EPYC 5th Gen (3.68 and 8.96 W) is left out, because a server
of 512 threads would idle at 1.9 kW; the 4th generation is used instead."""

_CURRENT = (
    *("epyc2", "epyc3", "epyc4", "graviton"),
    *("skylake", "cascadelake", "icelake", "sapphirerapids", "emeraldrapids", "graniterapids"),
)
"""Servers that clouds still offer widely: the spread between them is the uncertainty about an unknown host."""

_INTEL = {
    45: "sandybridge",
    62: "ivybridge",
    63: "haswell",
    79: "broadwell",
    86: "broadwell",
    85: "skylake",
    106: "icelake",
    108: "icelake",
    143: "sapphirerapids",
    158: "coffeelake",
    173: "graniterapids",
    174: "graniterapids",
    207: "emeraldrapids",
}
"""Family 6 model numbers (arch/x86/include/asm/intel-family.h)."""

_AMD = {
    (23, 0): "epyc1",
    (23, 3): "epyc2",
    (25, 0): "epyc3",
    (25, 1): "epyc4",
    (25, 10): "epyc4",
    (26, 0): "epyc4",
    (26, 1): "epyc4",
}
"""(family, model // 16) of server parts: Naples, Rome, Milan, Genoa, Bergamo, Turin."""

_ARM_NEOVERSE = {"0xd0c": "graviton", "0xd40": "graviton", "0xd4f": "graviton"}
"""Arm's part numbers of Neoverse N1, V1 and V2 (arch/arm64/include/asm/cputype.h)."""

_GAP_SECONDS = 30.0
_RECOUNT_SECONDS = 60.0


class EstimateSource:
    """Models the CPU as ``n × (min + (max − min) × utilisation)`` watts (Cloud Carbon Footprint, "Methodology").

    The joules are the exact integral: ``min × CPU-seconds + (max − min) × busy seconds``, from 0 at the first
    read, so the result does not depend on how often it is read. Busy time is defined in `cpu_times`.

    The bounds are the lowest and highest watts of any current server in the published table at this utilisation. They
    are the spread of the table, not a guarantee: frequency, instruction mix and the load of other VMs on the host are
    not observed. SPECpower measures at the wall, so memory, fans and the power supply are included: a separate DRAM
    estimate would count them twice (and the 0.392 W per GB published for memory could not be bounded).

    ``watts_per_cpu`` overrides the table with (idle, full) watts per hardware thread.
    """

    name = "estimate"

    def __init__(self, host: Host, watts_per_cpu: tuple[float, float] | None = None) -> None:
        self._host = host
        self._configured = Coefficients("configured", *watts_per_cpu) if watts_per_cpu else None
        self._file: KeptFile | None = None
        self._device: Device | None = None
        self._coefficients = _DEFAULT
        self._recount_at = -math.inf
        self._last: CpuTimes | None = None
        self._last_at = 0.0
        self._cpu_seconds = 0.0
        self._busy_seconds = 0.0

    def read(self, now: float) -> Reading:
        """Integrate up to now. Raises `Unavailable` where CPU times cannot be read."""
        times, at = self._times(), self._host.clock()
        if self._device is None or now >= self._recount_at:
            self._device = self._describe()
            self._recount_at = now + _RECOUNT_SECONDS
        device, (_, low, high) = self._device, self._coefficients
        bounds: tuple[PowerBounds, ...] = ()
        if self._last is not None:
            elapsed = max(0.0, at - self._last_at)
            if elapsed > _GAP_SECONDS:  # suspended or stopped: count only the CPU time that passed
                elapsed = min(elapsed, max(0.0, times.total - self._last.total) / device.capacity)
            cpu_seconds = device.capacity * elapsed
            before = min(self._busy_seconds, self._cpu_seconds)
            # a counter that decreases (lxcfs, an unplugged CPU) adds no busy time in this interval
            self._busy_seconds += max(0.0, times.busy - self._last.busy)
            self._cpu_seconds += cpu_seconds
            if cpu_seconds > 0:
                # of the same busy time as the joules, so that the estimate lies within its own bounds
                utilization = (min(self._busy_seconds, self._cpu_seconds) - before) / cpu_seconds
                bounds = (self._bounds(device, utilization),)
        self._last, self._last_at = times, at
        # /proc/stat counts in ticks of 10 ms, so over a short interval busy time can exceed elapsed time
        busy = min(self._busy_seconds, self._cpu_seconds)
        joules = low * self._cpu_seconds + (high - low) * busy
        return Reading(meters=(EnergyReading(device, at, joules, None),), bounds=bounds)

    def close(self) -> None:
        """Close the file; the integral continues with the next read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _bounds(self, device: Device, utilization: float) -> PowerBounds:
        candidates = [*(_PUBLISHED[key] for key in _CURRENT), self._coefficients]
        watts = [c.min_watts + (c.max_watts - c.min_watts) * utilization for c in candidates]
        return PowerBounds(device.id, device.capacity * min(watts), device.capacity * max(watts))

    def _describe(self) -> Device:
        self._coefficients = self._configured or coefficients_of(first_processor(self._host))
        count = self._host.cpu_count()
        return Device(
            id="cpu-estimate",
            component="cpu",
            source=self.name,
            quality="estimated",
            name=self._coefficients.name,
            capacity=float(count),
            max_watts=max(500.0, 4.0 * count * self._coefficients.max_watts),
            idle_watts=count * self._coefficients.min_watts,
            method="utilization_model",
        )

    def _times(self) -> CpuTimes:
        if not os.path.isdir(self._host.procfs):
            return psutil_cpu_times()
        if self._file is None:
            self._file = self._host.keep(self._host.proc("stat"))
        try:
            head = self._file.read(512)
        except Unavailable:
            self.close()
            raise
        line, _, rest = head.partition(b"\n")
        if rest.startswith(b"cpu "):  # lxcfs may put a line of zeros before the true one (lxc/lxcfs#406)
            line += b"\n" + rest.partition(b"\n")[0]
        return parse_cpu_times(line, os.sysconf("SC_CLK_TCK"))


def coefficients_of(cpuinfo: str) -> Coefficients:
    """Published coefficients for the first processor of ``/proc/cpuinfo``; the average AWS processor if unknown.

    By family and model number, since a VM's ``model name`` is often only "AMD EPYC".
    """
    fields = fields_of(cpuinfo)

    def number(field: str) -> int:
        text = fields.get(field, "")
        return int(text) if text.isdigit() else -1

    family, model = number("cpu family"), number("model")
    key = None
    match fields.get("vendor_id"):
        case "GenuineIntel" if family == 6:
            key = _INTEL.get(model)
            if key == "skylake" and number("stepping") >= 5:  # one model number, three steppings of server
                key = "cascadelake"
        case "AuthenticAMD":
            key = _AMD.get((family, model // 16))
        case None if fields.get("CPU implementer") == "0x41":
            key = _ARM_NEOVERSE.get(fields.get("CPU part", ""))
    return _PUBLISHED.get(key or "", _DEFAULT)


def assumed_idle_share(host: Host) -> tuple[float, float, float]:
    """The idle share of this machine's processor, from the published table."""
    found = coefficients_of(first_processor(host))
    return idle_share(None if found is _DEFAULT else found.min_watts / found.max_watts)
