"""The time that one tick covers, and what its busy seconds cost: made once, used by every account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records import Component, Mode
from .attribution import Rate

_CPU_ONLY: tuple[Component, ...] = ("cpu",)
_CPU_LIKE: tuple[Component, ...] = ("cpu", "dram")
"""Components that are divided by CPU seconds, and so concern every workload."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time one tick covers, and what a busy CPU second of weight 1 costs in it: made once, used by every account.

    It ends at boot time ``now``, and is ``gpu_seconds`` long for GPUs. ``tariff`` is joules per busy CPU second of
    each cell. ``components`` are the CPU-like ones that have a meter, ``watts`` what a busy CPU second adds to the mean
    power of each; ``cpu_ratio`` and ``gpu_ratio`` the same for utilisation. What is unknown is left out or None, not 0.
    With ``born_at_zero``, new counters are published at 0 until every regular scraper has seen them.
    """

    now: float
    gpu_seconds: float
    tariff: tuple[tuple[tuple[Component, Mode], float], ...]
    components: tuple[Component, ...]
    watts: tuple[float, ...]
    cpu_known: tuple[Component, ...]
    cpu_ratio: float
    gpu_metered: bool
    gpu_ratio: float | None
    born_at_zero: bool = False

    @classmethod
    def of(
        cls,
        now: float,
        window_seconds: float,
        metered: frozenset[Component],
        capacity: Mapping[Component, float],
        rates: Sequence[Rate],
        gpu_window_seconds: float | None = None,
        *,
        born_at_zero: bool = False,
    ) -> Period:
        """A period of ``window_seconds`` (> 0); ``gpu_window_seconds`` is that of the GPUs where they were read late.

        ``capacity`` is busy seconds per second by component.
        """
        gpu_window = gpu_window_seconds or window_seconds
        tariff: list[tuple[tuple[Component, Mode], float]] = []
        price: dict[Component, float] = {}
        for component, active, idle in rates:
            tariff.append(((component, "active"), active))
            if idle:
                tariff.append(((component, "idle"), idle))
            price[component] = (active + idle) / window_seconds
        components = tuple([component for component in _CPU_LIKE if component in metered])
        watts = tuple([price.get(component, 0.0) for component in components])
        windows: dict[Component, float] = {"gpu": gpu_window}
        ratios = {key: 1 / windows.get(key, window_seconds) / most for key, most in capacity.items()}
        return cls(
            now,
            gpu_window,
            tuple(tariff),
            components,
            watts,
            _CPU_ONLY if "cpu" in ratios else (),
            ratios.get("cpu", 0.0),
            "gpu" in metered,
            ratios.get("gpu"),
            born_at_zero,
        )

    @property
    def known(self) -> tuple[object, ...]:
        """What is known in this period; the rows' shape depends on it."""
        return (self.components, self.cpu_known, self.gpu_metered, self.gpu_ratio is None)
