"""Builds a scripted NVIDIA driver library and changes, while another process reads it, what it answers.

The library is real C behind the real bindings: a test writes one mapped file, the library reads it on every call.

    with FakeDriver(build(tmp_path)) as driver:
        gpu = driver.add_gpu(name="NVIDIA H100 80GB HBM3")
        gpu.process(4242, sm_util=70, memory_bytes=8 << 30)
        gpu.energy_joules += 350
        driver.delay("nvmlDeviceGetTotalEnergyConsumption", seconds=0.2)
        subprocess.run([sys.executable, ...], env=os.environ | driver.environment())
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import pytest

from tests.support.prerequisites import lacking

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"
"""The name that the bindings hand to the dynamic linker; they know no other and no setting for it."""
STATE_VARIABLE = "FAKE_NVML_STATE"

MAGIC: Final = 0x4C4D564E454B4146
MAX_GPUS: Final = 16
MAX_MIG: Final = 7
MAX_PROCESSES: Final = 32
MAX_SAMPLES: Final = 256
MAX_FIELD_SCRIPTS: Final = 16
MAX_FUNCTIONS: Final = 96
MAX_GPM: Final = 128
MAX_XIDS: Final = 16
SCOPES: Final = 4
UNSUPPORTED_32: Final = 0xFFFFFFFF
UNSUPPORTED_64: Final = 0xFFFFFFFFFFFFFFFF

Kind = Literal["compute", "graphics", "mps"]
KINDS: Final[tuple[Kind, ...]] = ("compute", "graphics", "mps")
"""In the order of the numbers in the state file, from 1."""
Reason = Literal["sw_power_cap", "sw_thermal", "hw_thermal", "hw_power_brake"]
REASONS: Final[dict[Reason, tuple[int, int]]] = {
    "sw_power_cap": (0x04, 74),
    "sw_thermal": (0x20, 269),
    "hw_thermal": (0x40, 270),
    "hw_power_brake": (0x80, 271),
}
"""Cause of lowered clocks → bit among the current causes, field with the nanoseconds spent for it."""

# Results, as in nvml.h.
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
NOT_FOUND: Final = 6
INSUFFICIENT_SIZE: Final = 7
DRIVER_NOT_LOADED: Final = 9
TIMEOUT: Final = 10
FUNCTION_NOT_FOUND: Final = 13
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
LIB_RM_VERSION_MISMATCH: Final = 18
UNKNOWN: Final = 999

# Generations, as in nvml.h.
VOLTA: Final = 5
AMPERE: Final = 7
HOPPER: Final = 9
BLACKWELL: Final = 10

# Which power a field tells, as in nvml.h.
SCOPE_GPU: Final = 0
SCOPE_MODULE: Final = 1
SCOPE_MEMORY: Final = 2

GPM_SM_UTIL: Final = 2
GPM_ANY_TENSOR_UTIL: Final = 5
GPM_DRAM_BW_UTIL: Final = 10

u32, u64, i32 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32


# --- the state file, as fake_nvml.c declares it; the compiler is told these sizes and refuses others ---------------


class ProcessState(ctypes.Structure):
    """One running process. Slots with pid 0 are free."""

    _fields_ = (("memory_bytes", u64), ("pid", u32), ("kind", u32), ("mig", i32), ("reserved", u32))


class SampleState(ctypes.Structure):
    """One use of a GPU by a process. Slots with time 0 are free."""

    _fields_ = (
        ("timestamp_us", u64),
        *((name, u32) for name in ("pid", "sm", "memory", "encoder", "decoder", "jpeg", "ofa", "reserved")),
    )


class FieldState(ctypes.Structure):
    """What one field answers instead of its value. Slots with field 0 are free; scope -1 means every scope."""

    _fields_ = (("field", u32), ("scope", i32), ("code", i32), ("value_type", i32))


class MigState(ctypes.Structure):
    """One slice of a GPU."""

    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        ("memory_total", u64),
        ("memory_used", u64),
        *(
            (name, u32)
            for name in ("present", "gpu_instance", "compute_instance", "sm_count", "gpu_slices", "compute_slices")
        ),
        ("gpm", ctypes.c_double * MAX_GPM),
    )


class GpuState(ctypes.Structure):
    """One GPU. A value of all ones is one that this GPU does not support."""

    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        *((name, u32) for name in ("present", "lost", "pci_domain", "pci_bus", "pci_device", "pci_device_id")),
        *((name, u32) for name in ("pci_subsystem_id", "architecture", "mig_mode", "mig_capable")),
        *((name, u32) for name in ("gpm_supported", "every_sample", "power_limit_mw", "util_gpu", "util_memory")),
        *((name, u32) for name in ("temperature", "performance_state", "samples_written")),
        ("clocks_mhz", u32 * 4),
        ("power_average_mw", u32 * SCOPES),
        ("power_instant_mw", u32 * SCOPES),
        ("energy_mj", u64 * SCOPES),
        ("throttle_ns", u64 * len(REASONS)),
        ("event_reasons", u64),
        ("stamp_us", u64),
        ("ecc", u64 * 2),
        ("xids", u64 * MAX_XIDS),
        ("xids_written", u64),
        ("repair_pending", u64),
        ("repair_failed", u64),
        ("memory_total", u64),
        ("memory_reserved", u64),
        ("memory_used", u64),
        ("gpm", ctypes.c_double * MAX_GPM),
        ("fields", FieldState * MAX_FIELD_SCRIPTS),
        ("processes", ProcessState * (MAX_PROCESSES * (MAX_MIG + 1))),
        ("samples", SampleState * MAX_SAMPLES),
        ("migs", MigState * MAX_MIG),
    )


class ScriptState(ctypes.Structure):
    """What a call does before its work. ``times`` counts down what is left of ``code``; 0 means always."""

    _fields_ = (("code", i32), ("times", u32), ("delay_us", u32), ("hang", u32))


class FunctionState(ctypes.Structure):
    """One function: first all GPUs together, then each of them."""

    _fields_ = (
        ("name", ctypes.c_char * 64),
        ("hanging", u32),
        ("reserved", u32),
        ("calls", u64 * (MAX_GPUS + 1)),
        ("scripts", ScriptState * (MAX_GPUS + 1)),
    )


class State(ctypes.Structure):
    """The whole file."""

    _fields_ = (
        ("magic", u64),
        ("bytes", u64),
        ("driver_version", ctypes.c_char * 80),
        ("nvml_version", ctypes.c_char * 80),
        ("cuda_version", u32),
        ("broken", i32),
        ("wide_processes", u32),
        ("release", u32),
        ("functions", FunctionState * MAX_FUNCTIONS),
        ("gpus", GpuState * MAX_GPUS),
    )


# --- the library ---------------------------------------------------------------------------------------------------


def build(folder: Path, without: Iterable[str] = ()) -> Path:
    """Compile ``libnvidia-ml.so.1`` into a folder, unless it is there already, and say where it is.

    ``without``: functions that the library shall not export, as in a driver older than the bindings. Each choice
    needs its own folder. Skips the calling test where the machine has no C compiler.
    """
    path = folder / LIBRARY
    if path.exists():
        return path
    if reason := lacking("cc", "/usr/include/stdio.h"):
        pytest.skip(reason)
    folder.mkdir(parents=True, exist_ok=True)
    exports = folder / "exports.map"
    hidden = "".join(f" {name};" for name in without)
    exports.write_text(f"{{ global: nvml*; local:{hidden} *; }};\n", encoding="ascii")
    partial = folder / f"{LIBRARY}.{os.getpid()}"
    flags = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread")
    sizes = [
        f"-D{name}={ctypes.sizeof(kind)}"
        for name, kind in {
            "STATE_BYTES": State,
            "GPU_BYTES": GpuState,
            "MIG_BYTES": MigState,
            "FUNCTION_BYTES": FunctionState,
        }.items()
    ]
    linking = (f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={exports}")
    command = [os.environ.get("CC", "cc"), *flags, *sizes, *linking, "-o", str(partial), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    partial.rename(path)
    return path


@dataclass(frozen=True, slots=True)
class Mig:
    """One slice to cut from a GPU; ``profile`` is like "1g.10gb": sevenths of the compute, memory in GiB."""

    profile: str = "1g.10gb"
    uuid: str | None = None
    gpu_instance: int | None = None
    """Default: the slice's place on its GPU plus 1."""
    compute_instance: int = 0
    sm_count: int | None = None
    """Default: 16 for each seventh."""


class _Scaled:
    """A number of the state file in SI units. Set None: this GPU does not support it; reading it then is an error."""

    def __init__(self, name: str, scale: float, index: int | None = None) -> None:
        self.name, self.scale, self.index = name, scale, index

    def __get__(self, owner: Gpu | MigInstance, kind: type[object] | None = None) -> float:
        raw = getattr(owner.state, self.name)
        raw = raw if self.index is None else raw[self.index]
        if raw in {UNSUPPORTED_32, UNSUPPORTED_64}:
            raise ValueError(f"{self.name} is scripted as unsupported")
        return float(raw) / self.scale

    def __set__(self, owner: Gpu | MigInstance, value: float | None) -> None:
        # All ones, cut by ctypes to the width of the place.
        raw = UNSUPPORTED_64 if value is None else round(value * self.scale)
        if self.index is None:
            setattr(owner.state, self.name, raw)
        else:
            getattr(owner.state, self.name)[self.index] = raw


class MigInstance:
    """One slice of a scripted GPU; the next read of the library sees what is set here."""

    memory_used_bytes = _Scaled("memory_used", 1)
    memory_total_bytes = _Scaled("memory_total", 1)

    def __init__(self, gpu: Gpu, place: int) -> None:
        self.gpu, self.place = gpu, place
        self.state: MigState = gpu.state.migs[place]

    @property
    def uuid(self) -> str:
        """Like ``MIG-…``, as container runtimes write it."""
        return bytes(self.state.uuid).decode()

    @property
    def gpu_instance(self) -> int:
        """Id of the GPU instance that this slice lies in; several slices may share one."""
        return int(self.state.gpu_instance)

    def process(self, pid: int, *, memory_bytes: int | None = 0, kind: Kind = "compute") -> None:
        """Let a process run in this slice. There are no ``sm_util`` samples on MIG; see :meth:`gpm`."""
        self.gpu._place_process(pid, memory_bytes, kind, self.place)

    def gpm(self, metric: int, percent: float | None) -> None:
        """Set a performance metric (0 to 100), e.g. GPM_SM_UTIL; None: not supported."""
        self.state.gpm[metric] = -1.0 if percent is None else percent

    def remove(self) -> None:
        """Destroy the slice: its handles fail, its processes are gone."""
        for slot in self.gpu.state.processes:
            if slot.mig == self.place:
                slot.pid = 0
        self.state.present = 0


class Gpu:
    """One scripted GPU; the next read of the library sees what is set here.

    Numbers are in SI units, utilisations in percent as NVML has them. Setting None makes it NOT_SUPPORTED.
    """

    energy_joules = _Scaled("energy_mj", 1000, SCOPE_GPU)
    """Total since the driver was loaded, also fields 83 and 191. Set it lower to play a reset."""
    power_average_watts = _Scaled("power_average_mw", 1000, SCOPE_GPU)
    """``nvmlDeviceGetPowerUsage`` and field 185."""
    power_instant_watts = _Scaled("power_instant_mw", 1000, SCOPE_GPU)
    """Field 186."""
    power_limit_watts = _Scaled("power_limit_mw", 1000)
    memory_used_bytes = _Scaled("memory_used", 1)
    memory_total_bytes = _Scaled("memory_total", 1)
    util_percent = _Scaled("util_gpu", 1)
    """NOT_SUPPORTED whatever it is while MIG is on, as on real cards."""
    memory_util_percent = _Scaled("util_memory", 1)
    temperature_celsius = _Scaled("temperature", 1)
    sm_clock_hertz = _Scaled("clocks_mhz", 1e-6, 1)
    memory_clock_hertz = _Scaled("clocks_mhz", 1e-6, 2)
    performance_state = _Scaled("performance_state", 1)
    """0 (fastest) to 15."""

    def __init__(self, driver: FakeDriver, slot: int) -> None:
        self.driver, self.slot = driver, slot
        self.state: GpuState = driver.state.gpus[slot]

    @property
    def uuid(self) -> str:
        """Like ``GPU-…``."""
        return bytes(self.state.uuid).decode()

    @property
    def name(self) -> str:
        """The product's name."""
        return bytes(self.state.name).decode()

    @property
    def pci(self) -> str:
        """Address as NVML writes it: ``00000000:01:00.0``."""
        return f"{self.state.pci_domain:08X}:{self.state.pci_bus:02X}:{self.state.pci_device:02X}.0"

    @property
    def mig(self) -> list[MigInstance]:
        """The slices that are there, in NVML's order."""
        return [MigInstance(self, place) for place in range(MAX_MIG) if self.state.migs[place].present]

    @property
    def power_watts(self) -> float:
        """Average power; setting it sets the instant power as well."""
        return self.power_average_watts

    @power_watts.setter
    def power_watts(self, value: float | None) -> None:
        self.power_average_watts = value
        self.power_instant_watts = value

    def scope(self, scope: int, *, power_watts: float | None = None, energy_joules: float | None = None) -> None:
        """Set what fields 83, 185, 186 and 191 report for another scope, e.g. SCOPE_MODULE. None: not supported."""
        power = UNSUPPORTED_32 if power_watts is None else round(power_watts * 1000)
        self.state.power_average_mw[scope] = self.state.power_instant_mw[scope] = power
        self.state.energy_mj[scope] = UNSUPPORTED_64 if energy_joules is None else round(energy_joules * 1000)

    def process(
        self, pid: int, *, sm_util: int | None = None, memory_bytes: int | None = 0, kind: Kind = "compute"
    ) -> None:
        """Let a process run, or change it. ``sm_util`` (percent) also pushes one sample, stamped now.

        ``memory_bytes`` None: the driver does not know, which the bindings show as None.
        """
        self._place_process(pid, memory_bytes, kind, -1)
        if sm_util is not None:
            self.sample(pid, sm_util)

    def end(self, pid: int) -> None:
        """Let a process exit. Its samples stay in the driver's buffer, as they do in reality."""
        for slot in self.state.processes:
            if slot.pid == pid:
                slot.pid = 0

    def sample(
        self,
        pid: int,
        sm_util: int,
        *,
        memory_util: int = 0,
        encoder_util: int = 0,
        decoder_util: int = 0,
        timestamp_us: int | None = None,
    ) -> int:
        """Push one sample of use (percent; any 32-bit number is taken, to play garbage) and return its time.

        Default time: now in µs of the wall clock, and always later than the sample before. A reader gets one sample
        for each process: the mean of those newer than the time it hands in, stamped as the newest of them.
        """
        place = self.state.samples_written % MAX_SAMPLES
        if timestamp_us is None:
            newest = max((slot.timestamp_us for slot in self.state.samples), default=0)
            timestamp_us = max(time.time_ns() // 1000, newest + 1)
        slot = self.state.samples[place]
        slot.timestamp_us = 0
        slot.pid, slot.sm, slot.memory = pid, sm_util, memory_util
        slot.encoder, slot.decoder, slot.jpeg, slot.ofa = encoder_util, decoder_util, 0, 0
        slot.timestamp_us = timestamp_us
        self.state.samples_written += 1
        return timestamp_us

    def clear_samples(self) -> None:
        """Empty the driver's buffer: the GPU is idle, readers get NOT_FOUND."""
        for slot in self.state.samples:
            slot.timestamp_us = 0

    def every_sample(self, on: bool = True) -> None:
        """Hand out all samples instead of one for each process, as some drivers do (a hundred for two zombies)."""
        self.state.every_sample = on

    def throttle(self, reasons: Sequence[Reason] = (), **seconds: float) -> None:
        """Set the current causes of lowered clocks; add seconds to counters: ``throttle(sw_power_cap=1.5)``."""
        self.state.event_reasons = sum(REASONS[reason][0] for reason in reasons)
        for place, reason in enumerate(REASONS):
            self.state.throttle_ns[place] += round(seconds.pop(reason, 0.0) * 1e9)
        if seconds:
            raise ValueError(f"unknown reasons: {sorted(seconds)}")

    def ecc(self, *, corrected: int | None = 0, uncorrected: int | None = 0) -> None:
        """Set the aggregate error counts; None: no ECC."""
        for place, count in enumerate((corrected, uncorrected)):
            self.state.ecc[place] = UNSUPPORTED_64 if count is None else count

    def repair(self, *, pending: bool | None = False, failed: bool | None = False) -> None:
        """Set whether a row waits to be remapped, and whether one could not be; None: not supported."""
        self.state.repair_pending = UNSUPPORTED_64 if pending is None else pending
        self.state.repair_failed = UNSUPPORTED_64 if failed is None else failed

    def xid(self, number: int) -> None:
        """Let an Xid error happen: queues registered before receive it."""
        self.state.xids[self.state.xids_written % MAX_XIDS] = number
        self.state.xids_written += 1

    def repeat(self, on: bool = True) -> None:
        """Stamp all fields with one and the same time, as a driver does that hands out old values; False: with now."""
        self.state.stamp_us = time.time_ns() // 1000 if on else 0

    def gpm(self, metric: int, percent: float | None) -> None:
        """Set a performance metric (0 to 100), e.g. GPM_SM_UTIL; None: not supported."""
        self.state.gpm[metric] = -1.0 if percent is None else percent

    def field(self, field: int, *, code: int = 0, value_type: int | None = None, scope: int | None = None) -> None:
        """Script one field's own result and type (0 double, 1 uint, 3 ulonglong, 4 longlong, …).

        Of several scripts for one field the first that names its scope or none holds. No arguments: as before.
        """
        wanted = -1 if scope is None else scope
        slots = list(self.state.fields)
        place = next((s for s in slots if s.field == field and s.scope == wanted), None)
        place = place or next(s for s in slots if not s.field)
        place.scope, place.code, place.value_type = wanted, code, -1 if value_type is None else value_type
        place.field = field if code or value_type is not None else 0

    def lose(self, lost: bool = True) -> None:
        """Let the card fall off the bus: every call about it gives GPU_IS_LOST; False brings it back."""
        self.state.lost = lost

    def remove(self) -> None:
        """Unplug the card: the driver counts one less, and the indices of the ones behind it fall by one."""
        self.state.present = 0

    def set_mig(self, migs: Sequence[Mig | str]) -> list[MigInstance]:
        """Change the GPU's slices (none: MIG off)."""
        if len(migs) > MAX_MIG:
            raise ValueError(f"a GPU has at most {MAX_MIG} slices")
        for old in self.mig:
            old.remove()
        for place, spec in enumerate(migs):
            self._cut(place, spec if isinstance(spec, Mig) else Mig(spec))
        self.state.mig_mode = bool(migs)
        self.state.mig_capable = self.state.mig_capable or bool(migs)
        return self.mig

    def _cut(self, place: int, spec: Mig) -> None:
        matched = re.match(r"(?:\dc\.)?(\d)g\.(\d+)gb", spec.profile)
        if matched is None:
            raise ValueError(f"{spec.profile!r} is no profile like 1g.10gb")
        slices, gib = map(int, matched.groups())
        state = self.state.migs[place]
        state.name = f"{self.name} MIG {spec.profile}".encode()
        state.uuid = (spec.uuid or f"MIG-{self.slot:08x}-{place:04x}-5000-8000-000000000000").encode()
        state.gpu_instance = place + 1 if spec.gpu_instance is None else spec.gpu_instance
        state.compute_instance = spec.compute_instance
        state.sm_count = 16 * slices if spec.sm_count is None else spec.sm_count
        state.gpu_slices = state.compute_slices = slices
        state.memory_total, state.memory_used = gib << 30, 0
        state.gpm[:] = [0.0] * MAX_GPM
        state.present = 1

    def _place_process(self, pid: int, memory_bytes: int | None, kind: Kind, mig: int) -> None:
        wanted = KINDS.index(kind) + 1
        slots = list(self.state.processes)
        known = next((s for s in slots if (s.pid, s.mig, s.kind) == (pid, mig, wanted)), None)
        slot = known or next((s for s in slots if not s.pid), None)
        if slot is None or (known is None and sum(s.pid != 0 and s.mig == mig for s in slots) >= MAX_PROCESSES):
            raise ValueError(f"at most {MAX_PROCESSES} processes")
        slot.memory_bytes = UNSUPPORTED_64 if memory_bytes is None else memory_bytes
        slot.kind, slot.mig = wanted, mig
        slot.pid = pid


class FakeDriver:
    """A driver with no GPU at first. As a context manager it releases what hangs and removes its file at the end.

    ``library``: from :func:`build`. ``folder``: where the state file goes, default a temporary one. Function names are
    those of the C symbols, e.g. ``nvmlDeviceGetTotalEnergyConsumption`` or
    ``nvmlDeviceGetComputeRunningProcesses_v3``; one that the library does not have raises KeyError.
    """

    def __init__(self, library: Path, folder: Path | None = None) -> None:
        self.library = library
        descriptor, name = tempfile.mkstemp(prefix="fake-nvml-", dir=folder)
        self.path = Path(name)
        with open(descriptor, "r+b") as file:
            file.truncate(ctypes.sizeof(State))
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(State))
        self.state = State.from_buffer(self._map)
        self.state.bytes = ctypes.sizeof(State)
        self.state.magic = MAGIC
        self.driver_version, self.nvml_version = "580.95.05", "13.580.95.05"
        self.state.cuda_version = 13000
        self._functions = self._register()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let every hanging call go and remove the file; processes that mapped it keep reading its last state."""
        self.release()
        self.path.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, before it starts, to load the fake instead of a real driver."""
        others = os.environ.get("LD_LIBRARY_PATH")
        folder = str(self.library.parent)
        return {
            "LD_LIBRARY_PATH": f"{folder}{os.pathsep}{others}" if others else folder,
            STATE_VARIABLE: str(self.path),
        }

    def load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the bindings of this very process use the fake until the end of the test.

        For readers that are no process of their own. ``nvmlInit`` looks which driver was loaded last and begins anew.
        """
        bindings = importlib.import_module("pynvml")
        monkeypatch.setenv(STATE_VARIABLE, str(self.path))
        monkeypatch.setattr(bindings, "nvmlLib", ctypes.CDLL(str(self.library)))
        monkeypatch.setattr(bindings, "_nvmlGetFunctionPointer_cache", {})

    # --- what is there -------------------------------------------------------------------------------------------

    def add_gpu(
        self,
        name: str = "NVIDIA H100 80GB HBM3",
        uuid: str | None = None,
        *,
        architecture: int = HOPPER,
        memory_bytes: int = 80 << 30,
        pci_bus: int | None = None,
        mig: Sequence[Mig | str] = (),
    ) -> Gpu:
        """Plug in a GPU: idle at 60 W of at most 700 W, energy counter at 0, no process, a performance monitor from
        Hopper on, no scope but the GPU's. ``mig``: its slices, like "1g.10gb" or :class:`Mig`."""
        slot = next((n for n in range(MAX_GPUS) if not self.state.gpus[n].uuid), None)
        if slot is None:
            raise ValueError(f"at most {MAX_GPUS} GPUs")
        gpu = Gpu(self, slot)
        state = gpu.state
        state.name = name.encode()
        state.uuid = (uuid or f"GPU-{slot:08x}-0000-4000-8000-000000000000").encode()
        state.pci_bus = slot + 1 if pci_bus is None else pci_bus
        state.pci_device_id, state.pci_subsystem_id = 0x233010DE, 0x16C110DE
        state.architecture = architecture
        state.gpm_supported = architecture >= HOPPER
        state.mig_capable = architecture >= AMPERE
        gpu.memory_total_bytes, state.memory_reserved = memory_bytes, 512 << 20
        gpu.power_limit_watts, gpu.power_watts = 700, 60
        for scope in range(1, SCOPES):
            gpu.scope(scope)
        gpu.temperature_celsius = 35
        state.clocks_mhz[:] = (345, 345, 2619, 1200)
        gpu.set_mig(mig)
        state.present = 1
        return gpu

    @property
    def gpus(self) -> list[Gpu]:
        """Those plugged in, in NVML's order."""
        return [Gpu(self, slot) for slot in range(MAX_GPUS) if self.state.gpus[slot].present]

    @property
    def driver_version(self) -> str:
        """Of the kernel module."""
        return bytes(self.state.driver_version).decode()

    @driver_version.setter
    def driver_version(self, value: str) -> None:
        self.state.driver_version = value.encode()

    @property
    def nvml_version(self) -> str:
        """Of the library."""
        return bytes(self.state.nvml_version).decode()

    @nvml_version.setter
    def nvml_version(self, value: str) -> None:
        self.state.nvml_version = value.encode()

    def wide_processes(self, on: bool = True) -> None:
        """Answer ``…RunningProcesses_v3`` with the larger entries of early R535 drivers, which scramble the PIDs."""
        self.state.wide_processes = on

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def break_all(self, code: int = UNKNOWN) -> None:
        """Make every function but ErrorString and Shutdown fail, also Init: UNKNOWN as in a container that lost its
        devices, LIB_RM_VERSION_MISMATCH after an upgrade, DRIVER_NOT_LOADED. 0 mends it."""
        self.state.broken = code

    def upgrade(self, version: str) -> None:
        """Install and load another driver. A process that has loaded this library gets LIB_RM_VERSION_MISMATCH from
        now on, whatever it does; one that loads it anew does not."""
        self.driver_version, self.nvml_version = version, f"13.{version}"
        self.state.release += 1

    def fail(self, name: str, *, code: int, gpu: Gpu | None = None, times: int = 0) -> None:
        """Make a function give ``code`` (for one GPU or any), ``times`` calls long or, with 0, until :meth:`mend`."""
        script = self._script(name, gpu)
        script.times = times
        script.code = code

    def mend(self, name: str, gpu: Gpu | None = None) -> None:
        """Undo :meth:`fail`, :meth:`delay`, :meth:`hang` and :meth:`crash` with the same ``gpu``."""
        script = self._script(name, gpu)
        script.code = script.times = script.delay_us = script.hang = 0

    def delay(self, name: str, *, seconds: float, gpu: Gpu | None = None) -> None:
        """Make every call of a function take that much longer; 0 undoes it."""
        self._script(name, gpu).delay_us = round(seconds * 1e6)

    def hang(self, name: str, gpu: Gpu | None = None) -> None:
        """Let calls of a function not return until :meth:`release` or the end of this driver."""
        self._script(name, gpu).hang = 1

    def crash(self, name: str, gpu: Gpu | None = None) -> None:
        """Let the next call of a function end its process with SIGSEGV."""
        self._script(name, gpu).hang = 2

    def release(self, name: str | None = None) -> None:
        """Let the hanging calls of a function, or of all, go on."""
        for function in [self._functions[name]] if name else self._functions.values():
            for script in function.scripts:
                script.hang = 0

    def hanging(self, name: str) -> int:
        """How many calls of a function hang now, in all processes; one that was killed meanwhile still counts."""
        return int(self._functions[name].hanging)

    def calls(self, name: str, gpu: Gpu | None = None) -> int:
        """How often a function was called since the start or :meth:`reset_calls`, failed calls included.

        The bindings call twice what is sized first and filled then.
        """
        return int(self._functions[name].calls[self._place(gpu)])

    def all_calls(self) -> dict[str, int]:
        """Function → calls, of those called at all."""
        return {name: int(function.calls[0]) for name, function in self._functions.items() if function.calls[0]}

    def reset_calls(self) -> None:
        """Count from 0 again."""
        for function in self._functions.values():
            function.calls[:] = [0] * (MAX_GPUS + 1)

    def _register(self) -> dict[str, Any]:
        names = re.findall(r"^NVML\w*\((nvml\w+)", SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
        if len(names) > MAX_FUNCTIONS:
            raise ValueError("more functions than the state file has room for")
        for place, name in enumerate(names):
            self.state.functions[place].name = name.encode()
        return {name: self.state.functions[place] for place, name in enumerate(names)}

    def _script(self, name: str, gpu: Gpu | None) -> Any:
        return self._functions[name].scripts[self._place(gpu)]

    @staticmethod
    def _place(gpu: Gpu | None) -> int:
        return 0 if gpu is None else gpu.slot + 1
