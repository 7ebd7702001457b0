"""Reads a YAML file of settings into dotted names, with the line of each for error messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import yaml

from .value_types import did_you_mean, quoted

SIZE_LIMIT = 1 << 20
"""Bytes; a larger file is not a file of settings."""

_NULL = "tag:yaml.org,2002:null"


class Entry(NamedTuple):
    """One mapping of a list of mappings: its ``file:line``, and key → (``file:line``, text, list or nested mapping)."""

    where: str
    values: dict[str, tuple[str, str | list[str] | dict[str, tuple[str, str]]]]


Value = str | list[str] | dict[str, str] | list[Entry]
Layer = dict[str, tuple[str, Value]]


def read(
    path: str, names: Collection[str], mappings: Collection[str], records: Collection[str] = ()
) -> tuple[Layer, list[str]]:
    """Return name → (``file:line``, value) for every setting in the file, and one line per error.

    Keys may be nested (``web: {max-requests: 9}``) or dotted (``web.max-requests: 9``). ``mappings`` are the names
    whose value is a mapping, ``records`` those whose value is a list of mappings, or one mapping. Scalars are kept as
    text. Never raises.
    """
    try:
        root = compose(path)
    except ValueError as error:
        return {}, [f"{path}:{error}"]
    if root is None or root.tag == _NULL:
        return {}, []
    walk = _Walk(path, names, mappings, records)
    walk.section("", root)
    return walk.layer, walk.problems


def entries(text: str) -> list[Entry]:
    """Parse a list of mappings, or one mapping, from text (``{a: 1, b: {c: 2}}``). Raises ValueError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        raise ValueError(f"not YAML: {problem or 'nested too deeply'}") from None
    if root is None:
        raise ValueError("is empty")
    return _entries(root.value if isinstance(root, yaml.SequenceNode) else [root], lambda _: "")


def file_entries(path: str) -> list[Entry]:
    """The list of mappings, or one mapping, that a file is. Raises ValueError."""
    root = compose(path)
    if root is None:
        raise ValueError("is empty")
    nodes = root.value if isinstance(root, yaml.SequenceNode) else [root]
    return _entries(nodes, lambda node: f"{path}:{node.start_mark.line + 1}")


def compose(path: str) -> yaml.Node | None:
    """Return the root of the file's only document, None if empty. Raises ValueError: ``4: not YAML: ...``."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f" {error.strerror}") from None
    if len(data) > SIZE_LIMIT:
        raise ValueError(f" larger than {SIZE_LIMIT} bytes; this is not a file of settings")
    try:
        text = data.decode("utf-8-sig")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line, reason = data[: error.start].count(b"\n") + 1, "not UTF-8 text"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = f"not YAML: {error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        line, reason = text[: error.position].count("\n") + 1, f"control character U+{error.character:04X}"
    except RecursionError:
        line, reason = 1, "nested too deeply"
    raise ValueError(f"{line}: {reason}")


class _Walk:
    def __init__(
        self, path: str, names: Collection[str], mappings: Collection[str], records: Collection[str] = ()
    ) -> None:
        self.layer: Layer = {}
        self.problems: list[str] = []
        self._path = path
        self._names = names
        self._mappings = mappings
        self._records = records
        self._sections = {
            ".".join(parts[:depth]) for parts in (n.split(".") for n in names) for depth in range(1, len(parts))
        }

    def section(self, prefix: str, node: yaml.Node) -> None:
        """Add the settings of one mapping, whose names start with ``prefix``."""
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"{prefix.rstrip('.') or 'the file'} must be a mapping of settings")
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, "a key must be text")
                continue
            name = prefix + key.value
            if name in seen:
                self._wrong(key, f"{name} is set twice, first on line {seen[name]}")
                continue
            seen[name] = key.start_mark.line + 1
            self._entry(name, key, value)

    def _entry(self, name: str, key: yaml.Node, value: yaml.Node) -> None:
        if name in self._sections and (name not in self._names or isinstance(value, yaml.MappingNode)):
            self.section(f"{name}.", value)
        elif name not in self._names:
            self._wrong(key, f"unknown setting: {quoted(name)}{did_you_mean(name, [*self._names, *self._sections])}")
        elif name in self.layer:
            self._wrong(key, f"{name} is set twice, first at {self.layer[name][0]}")
        else:
            try:
                self.layer[name] = (self._where(key), self._value(name, value))
            except ValueError as error:
                self._wrong(value, f"{name} {error}")

    def _value(self, name: str, node: yaml.Node) -> Value:
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if name in self._records:
            return _entries(node.value if isinstance(node, yaml.SequenceNode) else [node], self._where)
        if isinstance(node, yaml.SequenceNode):
            return [_scalar(item) for item in node.value]
        if name not in self._mappings:
            raise ValueError("must not be a mapping")
        return dict(_pairs(node))

    def _where(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"

    def _wrong(self, node: yaml.Node, message: str) -> None:
        self.problems.append(f"{self._where(node)}: {message}")


def _entries(nodes: list[yaml.Node], where: Callable[[yaml.Node], str]) -> list[Entry]:
    found = []
    for node in nodes:
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("must be a list of mappings")
        values: dict[str, tuple[str, str | list[str] | dict[str, tuple[str, str]]]] = {}
        for key, value in node.value:
            name = _scalar(key)
            if name in values:
                raise ValueError(f"has {quoted(name)} twice on line {key.start_mark.line + 1}")
            if isinstance(value, yaml.MappingNode):
                lines = {_scalar(one): where(one) for one, _ in value.value}
                values[name] = (where(key), {one: (lines[one], given) for one, given in _pairs(value)})
            elif isinstance(value, yaml.SequenceNode):
                values[name] = (where(key), [_scalar(item) for item in value.value])
            else:
                values[name] = (where(key), _scalar(value))
        found.append(Entry(where(node), values))
    return found


def _pairs(node: yaml.Node) -> Iterator[tuple[str, str]]:
    seen = set()
    for key, value in node.value:
        name = _scalar(key)
        if name in seen:
            raise ValueError(f"has {quoted(name)} twice")
        seen.add(name)
        yield name, _scalar(value)


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("is nested too deeply")
    if node.tag == _NULL:
        raise ValueError("has no value")
    return str(node.value)
