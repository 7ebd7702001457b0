"""The pictures are there and small, and what draws them reads PNG, rules and units rightly."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path
from random import Random

import pytest
import yaml

from grafana.pictures import png, storage
from grafana.pictures.units import shown
from tests.support.boards import BOARDS
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

PICTURES = REPOSITORY / "docs" / "pictures"

Pixel = tuple[int, int, int]


@pytest.mark.parametrize("uid", BOARDS)
def test_each_dashboard_has_a_small_picture(uid: str) -> None:
    data = (PICTURES / f"{uid}.png").read_bytes()
    assert len(data) < 200_000
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1366
    assert 600 < height < 2000


def test_pictures_in_the_documents_exist() -> None:
    for document in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)]+\.png)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), link


# --- PNG --------------------------------------------------------------------------------------------------------------


def encoded(rows: list[list[Pixel]], filters: list[int]) -> bytes:
    """A picture of 8-bit RGB with a given filter on each line (PNG specification, section 9)."""
    width, body, above = len(rows[0]), b"", bytes(3 * len(rows[0]))
    for row, kind in zip(rows, filters, strict=True):
        line = bytes(channel for pixel in row for channel in pixel)
        made = bytearray()
        for at, value in enumerate(line):
            left, up, corner = line[at - 3] if at >= 3 else 0, above[at], above[at - 3] if at >= 3 else 0
            estimate = left + up - corner
            paeth = min((left, up, corner), key=lambda guess: abs(estimate - guess))
            made.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) & 0xFF)
        body, above = body + bytes([kind]) + bytes(made), line
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def decoded(data: bytes) -> list[list[Pixel]]:
    """Rows of a picture with a palette and no filters."""
    parts, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        parts[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + size]
        at += size + 12
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    raw, palette = zlib.decompress(parts[b"IDAT"]), parts[b"PLTE"]
    colours = [(palette[at], palette[at + 1], palette[at + 2]) for at in range(0, len(palette), 3)]
    return [[colours[index] for index in raw[y * (width + 1) + 1 : (y + 1) * (width + 1)]] for y in range(height)]


def test_a_picture_of_few_colours_stays_the_same_whatever_its_filters() -> None:
    random = Random(3)
    colours = [(17, 18, 23), (204, 204, 220), (76, 184, 214), (239, 180, 88), (62, 203, 151), (229, 103, 92)]
    rows = [[random.choice(colours) for _ in range(31)] for _ in range(25)]
    filters = [line % 5 for line in range(25)]
    assert decoded(png.reduced(encoded(rows, filters))) == rows


def test_a_rare_colour_is_kept_beside_thousands_of_shades() -> None:
    shades = [(40 + x % 64, 40 + y % 64, 40 + (x * y) % 64) for y in range(100) for x in range(100)]
    rows = [shades[y * 100 : (y + 1) * 100] for y in range(100)]
    rows[50][50] = (199, 125, 187)
    made = decoded(png.reduced(encoded(rows, [0] * 100)))
    assert made[50][50] == (199, 125, 187)
    worst = max(abs(a - b) for old, new in zip(rows, made, strict=True) for p, q in zip(old, new, strict=True)
                for a, b in zip(p, q, strict=True))  # fmt: skip
    assert worst <= 26


# --- history ----------------------------------------------------------------------------------------------------------


def test_rules_come_after_those_they_need() -> None:
    done: set[str] = set()
    for groups in storage.levels():
        level = [rule for group in groups for rule in group["rules"]]
        names = {rule["record"] for rule in level}
        for rule in level:
            words = set(re.findall(r"[\w:]+", rule["expr"]))
            assert not words & (names - {rule["record"]}), rule["record"]
        done |= names
    assert "model:energy_per_output_token_joules:rate1d" in done


@needs("promtool")
def test_alerts_can_be_recorded(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": storage.alerts()}), encoding="utf-8")
    command = ["promtool", "check", "rules", "--lint=none", str(rules)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "expected"),
    [
        (2967.3, "watt", None, "2.97 kW"),
        (70.4, "watt", 0, "70 W"),
        (0.0, "watt", None, "0 W"),
        (31_800.0, "kwatth", 0, "31.8 MWh"),
        (0.1562, "percentunit", 0, "16%"),
        (81.2, "celsius", None, "81.2°C"),
        (1.6e-14, "sci", 1, "1.6e-14"),
        (33_554_432.0, "bytes", 0, "32 MiB"),
        (0.001, "s", 1, "1.0 ms"),
        (578_880.0, "s", 1, "6.7 days"),
        (86_400.0, "s", 1, "1.0 day"),
        (7816.0, "none", 0, "7816"),
        (float("nan"), "watt", None, "–"),
    ],
)
def test_values_are_written_as_grafana_does(value: float, unit: str, decimals: int | None, expected: str) -> None:
    assert "".join(shown(value, unit, decimals)) == expected
