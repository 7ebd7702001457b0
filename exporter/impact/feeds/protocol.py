"""What a feed is: a service that publishes carbon intensity or prices by time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

Quantity = Literal["intensity", "price", "marginal"]
"""Average carbon intensity (for totals), price of electricity, marginal carbon intensity (only shown)."""

T_co = TypeVar("T_co", covariant=True)


class Slot(NamedTuple):
    """A value that holds from one Unix time to another, in grams of CO2e or units of the currency per kWh.

    ``estimated`` is whether it was modelled or forecast instead of measured.
    """

    start: float
    end: float
    value: float
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Values by time, in order of their start. The rest as in `Factors`; a price has neither."""

    slots: tuple[Slot, ...]
    zone: str = ""
    source: str = ""
    factor_type: str = ""


class Feed(Protocol[T_co]):
    """Answers of one server; used by one thread, except `interrupt`."""

    @property
    def name(self) -> str:
        """Its name in labels, log lines and ``doctor``."""

    @property
    def poll_seconds(self) -> float:
        """Time between two requests: as rarely as the values change, and no service is asked more than that."""

    def read(self, now: float) -> T_co:
        """Ask once; ``now`` is Unix seconds. Raises `Unavailable`."""

    def interrupt(self) -> None:
        """End the current request; called from another thread."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What the operator set for a feed: see docs/impact.md."""

    name: str
    quantity: Quantity
    zone: str
    url: str
    token_file: str = ""
    currency: str = ""


class FeedKind(NamedTuple):
    """A service: what it offers, and how its options are checked.

    ``zones`` matches the names of its zones; ``token`` says what its token file holds, "" if it needs none.
    """

    name: str
    url: str
    quantities: tuple[Quantity, ...]
    zones: re.Pattern[str]
    zone_example: str
    make: Callable[[FeedOptions], Feed[Series]]
    token: str = ""
    currencies: tuple[str, ...] = ()


Fixes = Mapping[int | str, str]
"""As of `HttpClient`."""
