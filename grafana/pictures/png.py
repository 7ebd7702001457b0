"""Makes a picture small: 256 colours instead of 16 million, which a dashboard does not miss."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_COLOURS = 256
_COARSE = 0xF8
"""Colours that differ in less are taken for one while they are counted."""

_FAR = 26**2
"""Squared distance from which on two colours are different ones."""

Colour = tuple[int, ...]


def reduced(data: bytes) -> bytes:
    """The same picture with a palette. Takes what chromium writes: 8 bits, RGB or RGBA, not interlaced."""
    chunks = dict(_chunks(data))
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks["IHDR"])
    channels = {2: 3, 6: 4}[kind]
    if depth != 8:
        raise ValueError(f"a picture of {depth} bits")
    lines = _unfiltered(zlib.decompress(chunks["IDAT"]), width * channels, channels, height)
    pixels = [tuple(line[at : at + 3]) for line in lines for at in range(0, len(line), channels)]
    palette, places = _palette(Counter(pixels))
    indexed = bytes([places[pixel] for pixel in pixels])
    body = b"".join([b"\0" + indexed[at : at + width] for at in range(0, len(indexed), width)])
    return _SIGNATURE + b"".join(
        [
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", b"".join([bytes(colour) for colour in palette])),
            _chunk(b"IDAT", zlib.compress(body, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Chunks by name; those of the pixels joined."""
    at, pixels = len(_SIGNATURE), b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8].decode(), data[at + 8 : at + 8 + size]
        if name == "IDAT":
            pixels += content
        else:
            yield name, content
        at += size + 12
    yield "IDAT", pixels


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _unfiltered(raw: bytes, length: int, step: int, height: int) -> Iterator[bytearray]:
    """Lines of bytes as they were before PNG's five filters (PNG specification, section 9)."""
    above = bytearray(length)
    for number in range(height):
        start = number * (length + 1)
        kind, line = raw[start], bytearray(raw[start + 1 : start + 1 + length])
        if kind:
            _unfilter(kind, line, above, step)
        yield line
        above = line


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    for at, value in enumerate(line):
        left = line[at - step] if at >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[at]
        elif kind == 3:
            guess = (left + above[at]) // 2
        else:
            guess = _paeth(left, above[at], above[at - step] if at >= step else 0)
        line[at] = (value + guess) & 0xFF


def _paeth(left: int, up: int, corner: int) -> int:
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


def _palette(counts: Counter[Colour]) -> tuple[list[Colour], dict[Colour, int]]:
    """Colours that are far apart first, so that a thin line keeps its own, then those that cover most; and where every
    colour of the picture is in them."""
    kinds: dict[Colour, Colour] = {}
    covered: Counter[Colour] = Counter()
    for colour, count in counts.most_common():
        kind = tuple([channel & _COARSE for channel in colour])
        kinds.setdefault(kind, colour)
        covered[kind] += count
    common = [kinds[kind] for kind, _ in covered.most_common()]
    palette: list[Colour] = []
    for colour in common:
        if not palette or _apart(colour, palette[_nearest(colour, palette)]) > _FAR:
            palette.append(colour)
    palette = palette[:_MOST_COLOURS]
    palette += [colour for colour in common if colour not in palette][: _MOST_COLOURS - len(palette)]
    return palette, {colour: _nearest(colour, palette) for colour in counts}


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    apart = [_apart(colour, known) for known in palette]
    return apart.index(min(apart))


def _apart(one: Colour, other: Colour) -> int:
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 + (one[2] - other[2]) ** 2
