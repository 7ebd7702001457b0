"""The simulated node's GPU boards: their holders, load, temperature and throttling."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from random import Random

from ...records import Allocation, Component, GpuState, GpuUse, GroupKey, Process, Workload
from .hardware import CARDS, DRIVER_VERSION, GPU_MODEL, RESERVED_BYTES, Card
from .scenario import GpuLoad

_CAPPED_RATIO = 0.985
_HOT_CELSIUS = 83.0
_CELSIUS_PER_WATT = 0.075
_COOLING_SECONDS = 25.0
_BOOST_HERTZ = 1.98e9
_CAPPED_HERTZ = 1.59e9
_IDLE_HERTZ = 3.45e8
_MEMORY_HERTZ = 2.619e9
_SM_ACTIVE_RATIO = 0.93
"""Share of the multiprocessors that work while a kernel runs."""


_XID_EVERY_SECONDS = 600.0
_XID_AGE_SECONDS = 590.0
"""The first Xid comes ten seconds after the start."""
_ROW_REMAPPED_XID = 63.0
_CORRECTED_EVERY_SECONDS = 9.0
_CORRECTED_BEFORE = 1204.0


def allocation(card: int, instance: str, owner: Workload) -> Allocation:
    """A card, or an instance of it, allocated to a container."""
    return Allocation(
        CARDS[card].uuid, owner.namespace, owner.pod, owner.container, gpu_instance=instance, gpu=CARDS[card].index
    )


class Holder:
    """A process on a card: ``seconds`` busy since last taken; ``joules`` are the true joules of its group."""

    __slots__ = ("group", "hold", "joules", "load", "process", "seconds")

    def __init__(self, load: GpuLoad, group: GroupKey, process: Process, joules: dict[Component, float]) -> None:
        self.load = load
        self.group = group
        self.process = process
        self.joules = joules
        self.hold = next((part.fraction for part in CARDS[load.card].instances if part.id == load.instance), 1.0)
        self.seconds = 0.0

    def take(self) -> GpuUse:
        """Use since it was last taken; 0 seconds for a process that only holds the card."""
        seconds, self.seconds = self.seconds, 0.0
        card, instance = CARDS[self.load.card].uuid, self.load.instance
        return GpuUse(card, self.group, self.process, seconds, self.hold, gpu_instance=instance)


class Board:
    """One GPU: its holders, load and temperature, and its throttling times in seconds."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.holders: list[Holder] = []
        self._celsius = card.inlet_celsius + card.idle_watts * _CELSIUS_PER_WATT
        self._capped = False
        self._throttle = dict.fromkeys(
            ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake"), 0.0
        )
        self._seconds = self._window_seconds = 0.0
        self._worked = self._nothing()

    def step(self, start: float, seconds: float, random: Random) -> float:
        """Run all holders for ``seconds``, charge each with its active joules, and return their sum.

        Processes of a card share its time; those of different instances do not affect one another.
        """
        wanted = [min(1.0, holder.load.busy(start) * random.uniform(0.97, 1.03)) for holder in self.holders]
        crowd = 1.0 if self.card.instances else max(1.0, sum(wanted))
        watts_per_busy = self.card.limit_watts - self.card.idle_watts
        active = 0.0
        for holder, ratio in zip(self.holders, wanted, strict=True):
            worked = seconds * ratio / crowd
            holder.seconds += worked * holder.hold
            holder.joules["gpu"] += worked * holder.hold * watts_per_busy
            active += worked * holder.hold * watts_per_busy
            for part, share in {"": holder.hold, holder.load.instance: 1.0}.items():
                self._worked[part].add(worked * share, holder.load)
        self._seconds += seconds
        self._window_seconds += seconds
        self._warm(self.card.idle_watts + active / seconds, seconds)
        return active

    def _warm(self, watts: float, seconds: float) -> None:
        settled = self.card.inlet_celsius + watts * _CELSIUS_PER_WATT
        self._celsius += (settled - self._celsius) * (1 - exp(-seconds / _COOLING_SECONDS))
        self._capped = watts >= _CAPPED_RATIO * self.card.limit_watts
        if self._capped:
            self._throttle["sw_power_cap"] += seconds
        if self._celsius >= _HOT_CELSIUS:
            # NVML reports the general reason together with the specific one.
            self._throttle["hw_slowdown"] += seconds
            self._throttle["hw_thermal_slowdown"] += seconds

    def take_states(self) -> list[GpuState]:
        """The card, then its MIG instances, which have no power, temperature or clock of their own.

        Ratios are means since they were last taken.
        """
        seconds, self._window_seconds = self._window_seconds, 0.0
        worked, self._worked = self._worked, self._nothing()
        sm_hertz = _IDLE_HERTZ if not self.holders else _CAPPED_HERTZ if self._capped else _BOOST_HERTZ
        xids = (self._seconds + _XID_AGE_SECONDS) // _XID_EVERY_SECONDS if self.card.worn else 0.0
        corrected = _CORRECTED_BEFORE + self._seconds // _CORRECTED_EVERY_SECONDS if self.card.worn else 0.0
        card = GpuState(
            self.card.uuid,
            self.card.index,
            gpu_model=GPU_MODEL,
            driver_version=DRIVER_VERSION,
            pci_bus_id=self.card.pci_bus_id,
            power_limit_watts=self.card.limit_watts,
            memory_used_bytes=sum(holder.load.memory_bytes for holder in self.holders) + RESERVED_BYTES,
            memory_total_bytes=self.card.memory_bytes,
            temperature_celsius=self._celsius,
            clock_hertz=(("graphics", sm_hertz), ("sm", sm_hertz), ("memory", _MEMORY_HERTZ)),
            throttle_seconds=tuple(self._throttle.items()),
            ecc_errors=(("corrected", corrected), ("uncorrected", xids)),
            memory_repair=(("pending", float(self.card.worn)), ("failed", 0.0)),
            xid_errors=xids,
            last_xid=_ROW_REMAPPED_XID if xids else None,
        )
        parts = [
            GpuState(
                self.card.uuid,
                self.card.index,
                part.id,
                slice_ratio=part.fraction,
                gpu_model=f"{GPU_MODEL} MIG {part.profile}",
                driver_version=DRIVER_VERSION,
                pci_bus_id=self.card.pci_bus_id,
                memory_used_bytes=sum(
                    holder.load.memory_bytes for holder in self.holders if holder.load.instance == part.id
                ),
                memory_total_bytes=part.memory_bytes,
            )
            for part in self.card.instances
        ]
        return [worked[state.gpu_instance].shown_on(state, seconds) for state in (card, *parts)]

    def _nothing(self) -> dict[str, _Work]:
        return {part: _Work() for part in ("", *(instance.id for instance in self.card.instances))}


class _Work:
    """Seconds that a card or instance, its tensor cores and its memory were busy."""

    __slots__ = ("busy", "dram", "tensor")

    def __init__(self) -> None:
        self.busy = self.tensor = self.dram = 0.0

    def add(self, seconds: float, load: GpuLoad) -> None:
        self.busy += seconds
        self.tensor += seconds * load.tensor
        self.dram += seconds * load.dram

    def shown_on(self, state: GpuState, seconds: float) -> GpuState:
        """The state with the mean ratios of a window of ``seconds``; unknown if that is 0."""
        if not seconds:
            return state
        busy = min(1.0, self.busy / seconds)
        return replace(
            state,
            utilization_ratio=busy,
            sm_active_ratio=busy * _SM_ACTIVE_RATIO,
            tensor_active_ratio=self.tensor / seconds,
            dram_active_ratio=self.dram / seconds,
        )
