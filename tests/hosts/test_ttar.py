"""Trees survive their archive to the byte, and no archive writes outside the folder it is unpacked into."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import machine as machines
from tests.support import ttar
from tests.support.repository import HOSTS
from tests.support.ttar import Symlink, Tree

TREE: Tree = {
    "proc/1/cmdline": b"/sbin/init\0--user\0",
    "proc/1/comm": b"",
    "proc/1/fd/3": Symlink("/dev/kfd"),
    "proc/1/stat": b"1 (init)\n2\n",
    "proc/2": None,
}

TEXT = """\
Directory: proc
Directory: proc/1
Path: proc/1/cmdline
Lines: 1
/sbin/initNULLBYTE--userNULLBYTEEOF
Path: proc/1/comm
Lines: 0
Directory: proc/1/fd
Path: proc/1/fd/3
SymlinkTo: /dev/kfd
Path: proc/1/stat
Lines: 2
1 (init)
2
Directory: proc/2
"""

FRAGMENTS = st.sampled_from(
    [b"\\", b"\0", b"\n", b"\r", b"x", b"00", b"EOF", b"NULLBYTE", b"Path: a", b"# ", b"\xff", b"O"]
)
CONTENT = st.lists(FRAGMENTS | st.binary(max_size=4), max_size=12).map(b"".join)
NAMES = st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."}
)
ENTRIES = CONTENT | NAMES.map(Symlink) | st.none()


def _found(root: Path) -> dict[str, ttar.Entry]:
    """Everything below a folder."""
    return {
        str(path.relative_to(root)): (
            Symlink(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in root.rglob("*")
    }


def test_an_archive_is_text_to_read() -> None:
    """What a review of a recorded machine shows: its files as they are, sorted by path."""
    lines = ttar.pack(TREE).decode("ascii").splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("#")) == TEXT
    assert max(map(len, lines)) < 80


def test_what_the_original_writes_is_read() -> None:
    """Its archives have modes, and the name of the tool in a comment."""
    archive = TEXT.replace("Path: proc/1/comm", "Mode: 444\n# ttar - - -\nPath: proc/1/comm")
    assert ttar.parse(b"# Archive created by ttar -c -f it proc\n" + archive.encode()) == ttar.parse(ttar.pack(TREE))


@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), ENTRIES, max_size=6))
@example({})
@example({"a": b"\\\0"})
@example({"a": b"\\"})
@example({"\udcff": b"", "a\\x2db.slice/c": b""})
@example({"a": b"\\x00EOF\\EOF"})
@example({"a": b"NULLBYTE\\NULLBYTE\0OF\0"})
@example({"a": b"EOF\n", "a b/c": b"\n\n", "a-b": Symlink("..")})
def test_a_tree_is_unpacked_as_it_was_packed(wanted: Tree) -> None:
    files = {path for path, entry in wanted.items() if entry is not None}
    tree = {path: entry for path, entry in wanted.items() if not files.intersection(_parents(path))}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        ttar.unpack(ttar.pack(tree), root)
        assert root.is_dir()
        found = _found(root)
    assert found == {parent: None for path in tree for parent in _parents(path)} | tree


def _parents(path: str) -> set[str]:
    parts = path.split("/")
    return {"/".join(parts[:end]) for end in range(1, len(parts))}


@given(CONTENT)
def test_an_archive_is_printable(content: bytes) -> None:
    archive = ttar.pack({"a": content}).decode("ascii")
    assert archive.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "..", ".", "", "a//b", "a/", "./a"])
@pytest.mark.parametrize("entry", ["Path: {}\nLines: 1\nx\n", "Path: {}\nSymlinkTo: x\n", "Directory: {}\n"])
def test_a_path_that_leads_out_of_the_folder_is_refused(entry: str, path: str, tmp_path: Path) -> None:
    """And nothing is written, not even what stands before it."""
    archive = "Path: before\nLines: 0\n" + entry.format(path)
    with pytest.raises(ValueError, match="not a plain relative path"):
        ttar.unpack(archive.encode(), tmp_path / "root")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("middle", ["", "/middle"])
def test_a_path_through_a_link_is_refused(order: int, middle: str, tmp_path: Path) -> None:
    entries = [f"Path: a\nSymlinkTo: {tmp_path}\n", f"Path: a{middle}/b\nLines: 1\nx\n"]
    with pytest.raises(ValueError, match="below 'a', which is not a directory"):
        ttar.unpack("".join(entries[::order]).encode(), tmp_path / "root")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "tree",
    [{"../a": b""}, {"a": b"", "a/b": b""}, {"a\nb": None}, {"a": Symlink("b\nc")}, {"\0": b""}, {"a": Symlink("")}],
)
def test_a_tree_that_could_not_be_read_back_is_not_packed(tree: Tree) -> None:
    with pytest.raises(ValueError, match=r"not a plain relative path|not a directory|no name of a file"):
        ttar.pack(tree)


@pytest.mark.parametrize(
    ("archive", "fault"),
    [
        ("Path: a\nLines: 2\n1\n", "ends within 'a'"),
        ("Path: a\nLines: -1\n", "neither Lines: nor SymlinkTo:"),
        ("Path: a\n", "neither Lines: nor SymlinkTo:"),
        ("Path: a\nLines: 1\n1\n2\n", "not the start of an entry: b'2"),
        ("Path: a\nLines: 0\nDirectory: a\n", "'a' is listed twice"),
        ("Path: a\nLines: 2\n1EOF\n2\n", "EOF within a file"),
    ],
)
def test_a_malformed_archive_is_refused(archive: str, fault: str) -> None:
    """An edit by hand that forgot to count its lines, most likely."""
    with pytest.raises(ValueError, match=fault):
        ttar.parse(archive.encode())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    ttar.unpack(ttar.pack(TREE), tmp_path)
    with pytest.raises(FileExistsError):
        ttar.unpack(ttar.pack({"proc/1/comm": b"new\n"}), tmp_path)
    assert (tmp_path / "proc/1/comm").read_bytes() == b""


@pytest.mark.parametrize("name", machines.names())
def test_recorded_archives_are_in_the_form_that_is_written(name: str) -> None:
    """So the difference between two recordings is the difference between the machines."""
    archive = (HOSTS / name / machines.ARCHIVE).read_bytes()
    assert ttar.pack(ttar.parse(archive)) == archive
