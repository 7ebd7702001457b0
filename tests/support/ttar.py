"""Folder trees as readable text, in the ttar format that prometheus/procfs and node_exporter keep their fixtures in.

An archive is a list of entries: ``Path:`` with ``Lines:`` and as many lines of content, ``Path:`` with ``SymlinkTo:``,
or ``Directory:``. In a file's content ``NULLBYTE`` stands for a NUL and ``EOF`` at the very end for a missing last
newline; a backslash precedes both words where the file itself contains them. As an extension ``\\xHH`` is any
other byte that is neither printable ASCII, tab nor newline, and a backslash that would otherwise start an escape.

File modes are not kept: ``Mode:``, which the original tool (https://github.com/ideaship/ttar) writes, is skipped. The
original extracts what `pack` writes, but for the extension.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

HEADER = b"# Archive created by tests/support/ttar.py\n"
DIVIDER = b"# ttar" + b" -" * 36 + b"\n"

ENCODED = re.compile(rb"\\(?=\x00|\Z|x[0-9a-f]{2})|NULLBYTE|EOF|[^\t\n -~]")
DECODED = re.compile(rb"\\x(?P<hex>[0-9a-f]{2})|\\(?P<word>NULLBYTE|EOF)|(?P<nul>NULLBYTE)|EOF(?P<end>\n\Z)?")


class Symlink(NamedTuple):
    """A symbolic link; its target is not interpreted and may lead anywhere."""

    target: str


Entry = bytes | Symlink | None
"""Content of a file, a symbolic link, or None for a directory."""

Tree = Mapping[str, Entry]
"""Entries by their relative path. A directory that is not empty may be left out."""


def pack(tree: Tree) -> bytes:
    """The archive of a tree, sorted by path, with all directories. Raises ValueError for what `parse` would refuse."""
    _check(tree)
    folders: dict[str, Entry] = {str(parent): None for path in tree for parent in PurePosixPath(path).parents[:-1]}
    archive = [HEADER]
    for path, entry in sorted((folders | dict(tree)).items(), key=lambda item: item[0].split("/")):
        archive += _lines(path, entry)
        archive.append(DIVIDER)
    return b"".join(archive)


def parse(archive: bytes) -> dict[str, Entry]:
    """The tree of an archive. Raises ValueError if it is malformed, or if a path could lead out of its folder."""
    tree: dict[str, Entry] = {}
    lines = iter(io.BytesIO(archive))
    for line in lines:
        keyword, value = _field(line)
        if line.startswith(b"#") or keyword == b"Mode":
            continue
        if keyword not in {b"Path", b"Directory"}:
            raise ValueError(f"not the start of an entry: {line!r}")
        path = os.fsdecode(value)
        if path in tree:
            raise ValueError(f"{path!r} is listed twice")
        tree[path] = _entry(path, lines) if keyword == b"Path" else None
    _check(tree)
    return tree


def unpack(archive: bytes, folder: Path) -> None:
    """Write the tree of an archive below ``folder``, which is created if missing.

    Raises ValueError as `parse` does, before anything is written, and FileExistsError for a path that exists already.
    """
    tree = parse(archive)
    folders = {"", *map(os.path.dirname, tree), *(path for path, entry in tree.items() if entry is None)}
    for path in sorted(folders):
        os.makedirs(folder / path, exist_ok=True)
    for path, entry in tree.items():
        if isinstance(entry, Symlink):
            os.symlink(entry.target, folder / path)
        elif entry is not None:
            with open(folder / path, "xb") as file:
                file.write(entry)


def _check(tree: Tree) -> None:
    for path, entry in tree.items():
        if any(part in {"", ".", ".."} for part in path.split("/")):
            raise ValueError(f"{path!r} is not a plain relative path")
        for name in (path, entry.target) if isinstance(entry, Symlink) else (path,):
            if not name or "\n" in name or "\0" in name:
                raise ValueError(f"{name!r} is no name of a file")
        for parent in PurePosixPath(path).parents[:-1]:
            if tree.get(str(parent)) is not None:
                raise ValueError(f"{path!r} lies below {str(parent)!r}, which is not a directory")


def _lines(path: str, entry: Entry) -> Iterator[bytes]:
    if entry is None:
        yield _header(b"Directory", path)
        return
    yield _header(b"Path", path)
    if isinstance(entry, Symlink):
        yield _header(b"SymlinkTo", entry.target)
        return
    content = ENCODED.sub(_encode, entry)
    if content and not content.endswith(b"\n"):
        content += b"EOF\n"
    yield b"Lines: %d\n" % content.count(b"\n")
    yield content


def _header(keyword: bytes, value: str) -> bytes:
    return b"%s: %s\n" % (keyword, os.fsencode(value))


def _field(line: bytes) -> tuple[bytes, bytes]:
    keyword, _, value = line.removesuffix(b"\n").partition(b": ")
    return keyword, value


def _entry(path: str, lines: Iterator[bytes]) -> Entry:
    """The file or link after its ``Path:`` line; consumes its lines."""
    keyword, value = _field(next(lines, b""))
    if keyword == b"SymlinkTo":
        return Symlink(os.fsdecode(value))
    if keyword != b"Lines" or not value.isdigit():
        raise ValueError(f"{path!r} has neither Lines: nor SymlinkTo:")
    content = list(islice(lines, int(value)))
    if len(content) < int(value):
        raise ValueError(f"the archive ends within {path!r}")
    return DECODED.sub(_decode, b"".join(content))


def _encode(match: re.Match[bytes]) -> bytes:
    found = match[0]
    if found == b"\0":
        return b"NULLBYTE"
    return b"\\x%02x" % ord(found) if len(found) == 1 else b"\\" + found


def _decode(match: re.Match[bytes]) -> bytes:
    if match["hex"]:
        return bytes.fromhex(match["hex"].decode("ascii"))
    if match["word"]:
        return match["word"]
    if match["nul"]:
        return b"\0"
    if match["end"] is None:
        raise ValueError("EOF within a file needs a backslash")
    return b""
