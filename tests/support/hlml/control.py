"""Builds a scripted libhlml and changes what it answers, while another process may read it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.prerequisites import lacking

SOURCE = Path(__file__).with_name("fake_hlml.c")
LIBRARY = "libhlml.so"
STATE_VARIABLE = "FAKE_HLML_STATE"

NOT_SUPPORTED: Final = 3
DRIVER_NOT_LOADED: Final = 9
TIMEOUT: Final = 10
CARD_IS_LOST: Final = 15
CRASH: Final = -1

GIBIBYTE = 1 << 30


def build(folder: Path) -> Path:
    """Compile the library; skips the test where there is no C compiler."""
    if reason := lacking("cc", "/usr/include/stdio.h"):
        pytest.skip(reason)
    target = folder / LIBRARY
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(target), str(SOURCE)]
    subprocess.run(command, check=True)
    return target


@dataclass
class Card:
    """One card in SI units; None is a value that it does not support."""

    uuid: str
    minor: int
    bus_id: str
    name: str = "HL-325L"
    energy_joules: float | None = 1000.0
    power_watts: float | None = 240.0
    utilization_percent: float | None = 0.0
    memory_used_bytes: float = 672 << 20
    memory_total_bytes: float | None = 128 * GIBIBYTE
    temperature_celsius: float | None = 32.0
    power_limit_watts: float | None = 900.0
    throttle_bits: int | None = 0

    def line(self) -> str:
        """The card as the library reads it."""
        numbers = [
            _scaled(self.energy_joules, 1000),
            _scaled(self.power_watts, 1000),
            _scaled(self.utilization_percent, 1),
            _scaled(self.memory_used_bytes, 1),
            _scaled(self.memory_total_bytes, 1),
            _scaled(self.temperature_celsius, 1),
            _scaled(self.power_limit_watts, 1000),
            _scaled(self.throttle_bits, 1),
        ]
        return f"card {self.uuid} {self.minor} {self.bus_id} {self.name} {' '.join(map(str, numbers))}"


class FakeHlml:
    """Cards and what functions do instead of answering; `write` makes a change visible."""

    def __init__(self, library: Path, folder: Path, cards: Sequence[Card] = ()) -> None:
        self.library = library
        self.path = folder / "hlml.state"
        self.driver = "1.24.2-481"
        self.cards = list(cards)
        self.scripts: dict[str, tuple[int, float]] = {}
        self.write()

    def environment(self) -> dict[str, str]:
        """Variables with which another process loads this library."""
        folders = [str(self.library.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": ":".join(folders), STATE_VARIABLE: str(self.path)}

    def script(self, function: str, code: int = 0, seconds: float = 0.0) -> None:
        """Let a function fail with a code, take that long, or crash."""
        self.scripts[function] = (code, seconds)
        self.write()

    def write(self) -> None:
        """Show the present state."""
        lines = [f"driver {self.driver}", *(card.line() for card in self.cards)]
        lines += [f"script {function} {code} {seconds}" for function, (code, seconds) in self.scripts.items()]
        partial = self.path.with_suffix(".new")
        partial.write_text("".join(f"{line}\n" for line in lines))
        partial.replace(self.path)

    def show(self, instant: Sequence[Mapping[str, Any]]) -> None:
        """Set the fields of each card, in order."""
        for card, fields in zip(self.cards, instant, strict=True):
            for name, value in fields.items():
                setattr(card, name, value)
        self.write()


def _scaled(value: float | None, factor: int) -> int:
    return -1 if value is None else round(value * factor)
