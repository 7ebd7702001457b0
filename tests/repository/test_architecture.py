"""The house rules that a reader relies on, held by the syntax tree and not by review."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

PACKAGE = REPOSITORY / "exporter"

ROOMS: dict[str, set[str]] = {
    "records": set(),
    "snapshot": {"records", "impact.values"},
    "impact.values": set(),
    "impact.protocol": {"records", "impact.values"},
    "impact": {"impact.values", "impact.protocol", "records", "host", "config", "availability", "network"},
    "host": {"records"},
    "config": set(),
    "availability": {"records"},
    "network": {"records", "host"},
    "sources": {"records", "host", "network", "sources.protocol", "workloads.protocol", "availability"},
    "sources.protocol": {"records"},
    "workloads.protocol": {"records"},
    "workloads": {"records", "host", "config", "availability", "network", "workloads.protocol"},
    "accounting": {"records", "snapshot", "impact.values", "workloads.protocol"},
    "exposition": set(),
    "exposition.metrics": {"records", "snapshot", "impact.values"},
    "exposition.status": {"records", "snapshot", "exposition.metrics"},
    "exposition.web": {"config"},
    "budgets": {"config"},
    "regions": set(),
    "analysis": {"config", "history.schema"},
    "history": {"records", "snapshot", "history.schema"},
    "history.schema": set(),
    "sampling": {
        "records",
        "snapshot",
        "host",
        "accounting",
        "availability",
        "impact.values",
        "impact.protocol",
        "sources.protocol",
        "workloads.protocol",
    },
    "runs": {
        "records",
        "snapshot",
        "host",
        "network",
        "sources",
        "sources.protocol",
        "workloads.protocol",
        "sampling",
        "impact",
        "impact.values",
    },
    "service": {
        "workloads.protocol",
        "sources.protocol",
        "records",
        "snapshot",
        "host",
        "config",
        "history",
        "impact",
        "impact.protocol",
        "impact.values",
        "sources",
        "workloads",
        "sampling",
        "exposition.metrics",
        "exposition.status",
        "exposition.web",
    },
    "commands": {
        "analysis",
        "records",
        "runs",
        "sampling",
        "impact",
        "impact.values",
        "impact.protocol",
        "host",
        "config",
        "sources",
        "workloads",
        "service",
        "exposition.metrics",
        "sources.protocol",
        "workloads.protocol",
    },
    "cli": {"config", "budgets", "service", "commands", "exposition.web", "impact"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Room or module → what it may import of the others. What imports nothing here is at the bottom of the house."""

MAX_LINES = 400

ONE_FILE = {PACKAGE / "regions/client.py": 630}
"""Copied into images as it is, so it cannot be split."""


FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The room that a file is in: the first folder or module below the package, or a room of its own within it."""
    return _room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))


def _room_of(name: str) -> str:
    """The room of a dotted name below the package."""
    first, _, rest = name.partition(".")
    nested = f"{first}.{rest.partition('.')[0]}"
    return nested if nested in ROOMS else first


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports."""
    package = ("exporter", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def executed_on_import(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """Every expression that runs when a module is imported: no function bodies, but class bodies and decorators."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d))
        elif isinstance(node, ast.ClassDef):
            yield from node.decorator_list
            yield from executed_on_import(node.body)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            continue
        else:
            yield from (child for child in ast.walk(node) if isinstance(child, ast.expr))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestEveryFile:
    def test_imports_go_one_way(self, path: Path) -> None:
        here = room(path)
        assert here in ROOMS, f"{here} is new: say in ROOMS what it may import"
        wrong = []
        for line, name in imports(path):
            top, _, rest = name.partition(".")
            there = _room_of(rest)
            if top == "exporter" and there not in ROOMS[here] | {here, "__version__"}:
                wrong.append(f"line {line}: {here} must not import {name}")
        assert wrong == []

    def test_imports_inside_the_package_are_relative(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        absolute = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "exporter")
            or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "exporter" for alias in node.names))
        ]
        assert absolute == []

    def test_no_import_of_the_folders_that_operators_install(self, path: Path) -> None:
        """The folders prometheus/ and grafana/ would import as empty packages from the repository's root."""
        assert [name for _, name in imports(path) if name.split(".")[0] in {"prometheus", "grafana", "deploy"}] == []

    def test_the_module_says_in_one_sentence_what_it_is(self, path: Path) -> None:
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        assert summary.endswith("."), "no docstring that ends its first sentence"

    def test_import_has_no_effects(self, path: Path) -> None:
        modules = {
            "os",
            "time",
            "socket",
            "subprocess",
            "threading",
            "logging",
            "resource",
            "signal",
            "random",
            "select",
        }
        harmless = {"logging.getLogger"}
        found = []
        for node in executed_on_import(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "open" or (called.split(".")[0] in modules and called not in harmless):
                    found.append(f"line {node.lineno}: {called}()")
        assert found == []

    def test_the_file_is_small(self, path: Path) -> None:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= ONE_FILE.get(path, MAX_LINES)

    def test_the_name_is_not_one_of_the_standard_library(self, path: Path) -> None:
        """``python exporter/x.py`` puts its folder first on the path, where such a name shadows the real module."""
        assert (
            path.parent != PACKAGE or path.stem in {"__init__", "__main__"} or path.stem not in sys.stdlib_module_names
        )


def test_no_rule_is_for_a_room_that_is_gone() -> None:
    assert set(ROOMS) - {room(path) for path in FILES} == set()


def test_the_reader_of_imports_sees_through_relative_ones() -> None:
    settings = [name for _, name in imports(PACKAGE / "config/reading_settings.py")]
    assert "exporter.config.value_types.ValueType" in settings
    assert "exporter.host.Host" in [name for _, name in imports(PACKAGE / "sources/cpu/rapl.py")]
    assert "exporter.sources.cpu.topology.Topology" in [name for _, name in imports(PACKAGE / "sources/cpu/rapl.py")]


def test_the_rules_have_no_circle() -> None:
    order: list[str] = []
    left = dict(ROOMS)
    while ready := [name for name, needs in left.items() if needs <= set(order)]:
        order += ready
        for name in ready:
            del left[name]
    assert left == {}


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("x = open('a')", 1),
        ("def f(): open('a')", 0),
        ("def f(x=open('a')): pass", 1),
        ("class A:\n  x = open('a')\n  def f(self): open('b')", 1),
        ("if __name__ == '__main__':\n  open('a')", 0),
        ("if True:\n  open('a')", 1),
    ],
)
def test_the_finder_of_effects_finds_them(source: str, calls: int) -> None:
    found = [node for node in executed_on_import(ast.parse(source).body) if isinstance(node, ast.Call)]
    assert len(found) == calls
