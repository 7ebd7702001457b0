"""Reads a file of budgets and reports every error in it as one message with the line and the key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from ..config.node_reader import NodeReader
from ..config.value_types import choice, did_you_mean, number, quoted
from . import selector
from .budget import SEVERITIES, UNITS, WINDOWS, Budget, Unit

KEYS = ("name", "selector", *UNITS, "currency", "window", "owner", "severity")
SEVERITY = "warning"
"""That of a budget that names none."""

MOST = 1e9

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OWNER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.@-]{0,62}[A-Za-z0-9])?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_HINTS = {"monthly": "; take month, or 30d", "hourly": "; take hour", "daily": "; take day"}
_REQUIRED = ("name", "selector", "window", "owner")
_NULL = "tag:yaml.org,2002:null"


def read(path: str) -> tuple[Budget, ...]:
    """Every budget of the file, in its order. Raises `ConfigError`."""
    return _Reader(path).read()


class _Reader(NodeReader[tuple[Budget, ...]]):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._names: dict[str, int] = {}
        self._selected: dict[tuple[tuple[tuple[str, str], ...], str, str], str] = {}

    def document(self, root: yaml.Node | None) -> tuple[Budget, ...]:
        if root is None or not isinstance(root, yaml.MappingNode):
            self._report(root, "the file must be a mapping with the key budgets")
            return ()
        found, misspelled = None, ""
        for key, node in self._pairs(root, ""):
            if key.value == "budgets":
                found = node
            else:
                misspelled += (hint := did_you_mean(key.value, ["budgets"]))
                self._report(key, f"no such key: {quoted(key.value)}{hint}")
        if found is None:
            if not misspelled:  # the misspelled key is reported already
                self._report(root, "the key budgets is missing")
        elif not isinstance(found, yaml.SequenceNode) or not found.value:
            self._report(found, "budgets must be a list with at least one budget")
        else:
            return tuple(budget for item in found.value if (budget := self._budget(item)) is not None)
        return ()

    def _budget(self, node: yaml.Node) -> Budget | None:
        if not isinstance(node, yaml.MappingNode):
            self._report(node, f"a budget must be a mapping of {', '.join(KEYS)}")
            return None
        before = len(self.problems)
        nodes: dict[str, yaml.Node] = {}
        misspelled: set[str] = set()
        for key, value in self._pairs(node, "budgets: "):
            if key.value in KEYS:
                nodes[key.value] = value
            else:
                hint = did_you_mean(key.value, KEYS)
                misspelled |= {name for name in KEYS if hint.endswith(f" {name}?")}
                self._report(key, f"budgets: no such key: {quoted(key.value)}{hint}")
        for name in _REQUIRED:
            if name not in nodes and name not in misspelled:
                self._report(node, f"budgets: the key {name} is missing")
        texts = {key: text for key, value in nodes.items() if key != "selector" for text in self._text(key, value)}
        unit = self._unit(node, nodes, misspelled)
        amount = self._amount(nodes[unit.key], unit, texts[unit.key]) if unit.key in texts else 0.0
        currency = self._currency(node, nodes, unit, texts)
        self._one_of("window", nodes, texts, tuple(WINDOWS))
        self._one_of("severity", nodes, texts, SEVERITIES)
        self._like("name", nodes, texts, _NAME, "lower-case letters, digits and dashes")
        self._like("owner", nodes, texts, _OWNER, "letters, digits and . _ @ -")
        chosen = self._selector(nodes["selector"]) if "selector" in nodes else ()
        if unit.key != "kwh" and "component" in dict(chosen):
            self._report(nodes["selector"], f"selector.component: {unit.key} are counted for all components together")
        if len(self.problems) > before:
            return None
        severity = texts.get("severity", SEVERITY)
        window = WINDOWS[texts["window"]]
        budget = Budget(texts["name"], chosen, amount * unit.scale, window, texts["owner"], severity, unit, currency)
        self._unique(budget, nodes)
        return budget

    def _selector(self, node: yaml.Node) -> tuple[tuple[str, str], ...]:
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self._report(node, "selector: must be a mapping of labels, such as {namespace: team-a}")
            return ()
        chosen: dict[str, str] = {}
        for key, value in self._pairs(node, "selector: "):
            for text in self._text(f"selector.{key.value}", value):
                try:
                    label, pattern = selector.check(key.value, text)
                except ValueError as error:
                    self._report(key, f"selector.{key.value}: {error}")
                    continue
                if label in chosen:
                    self._report(key, f"selector.{key.value}: {label} is selected twice")
                chosen[label] = pattern
        if (reason := selector.contradiction(chosen)) is not None:
            self._report(node, f"selector: {reason}")
        return tuple(sorted(chosen.items()))

    def _unique(self, budget: Budget, nodes: dict[str, yaml.Node]) -> None:
        line = nodes["name"].start_mark.line + 1
        if (first := self._names.setdefault(budget.name, line)) != line:
            self._report(nodes["name"], f"name: {quoted(budget.name)} is taken by the budget in line {first}")
        other = self._selected.setdefault((budget.selector, budget.window.name, budget.unit.key), budget.name)
        if other != budget.name:
            self._report(nodes["selector"], f"selector: {quoted(other)} has the same selector and window")

    def _pairs(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(key, f"{prefix}a key must be text")
            elif key.value in seen:
                self._report(key, f"{prefix}{key.value} is set twice, first in line {seen[key.value]}")
            else:
                seen[key.value] = key.start_mark.line + 1
                yield key, value

    def _text(self, key: str, node: yaml.Node) -> Iterator[str]:
        """The text of a node, nothing if it is not a scalar with a value."""
        if not isinstance(node, yaml.ScalarNode):
            self._report(
                node, f"{key}: must be one value, not a {'list' if isinstance(node, yaml.SequenceNode) else 'mapping'}"
            )
        elif node.tag == _NULL or not node.value.strip():
            self._report(node, f"{key}: has no value")
        else:
            yield node.value

    def _unit(self, node: yaml.Node, nodes: dict[str, yaml.Node], misspelled: set[str]) -> Unit:
        """What the budget is an amount of: the one key of `UNITS` that it has."""
        given = [unit for key, unit in UNITS.items() if key in nodes]
        if not given and not misspelled & UNITS.keys():
            self._report(node, f"budgets: one of the keys {', '.join(UNITS)} is missing")
        for unit in given[1:]:
            self._report(nodes[unit.key], f"{unit.key}: a budget is an amount of one thing, and has {given[0].key}")
        return given[0] if given else UNITS["kwh"]

    def _amount(self, node: yaml.Node, unit: Unit, text: str) -> float:
        value = 0.0
        try:
            value = number(unit.key.upper(), 0.0, MOST).parse(text)
            if value <= 0:
                raise ValueError("must be above 0")
        except ValueError as error:
            self._report(node, f"{unit.key}: {error}")
        return value

    def _currency(self, node: yaml.Node, nodes: dict[str, yaml.Node], unit: Unit, texts: dict[str, str]) -> str:
        word = texts.get("currency", "")
        if unit.key != "cost":
            if "currency" in nodes:
                self._report(nodes["currency"], "currency: only a budget of cost has one")
        elif "currency" not in nodes:
            self._report(node, "budgets: the key currency is missing: the label of energy_node_cost_total, such as EUR")
        elif word and not _CURRENCY.fullmatch(word):
            self._report(nodes["currency"], f"currency: {quoted(word)} is not a code such as EUR")
        return word

    def _one_of(self, key: str, nodes: dict[str, yaml.Node], texts: dict[str, str], words: tuple[str, ...]) -> None:
        if key in texts:
            try:
                choice(*words).parse(texts[key])
            except ValueError as error:
                self._report(nodes[key], f"{key}: {error}{_HINTS.get(texts[key], '')}")

    def _like(
        self, key: str, nodes: dict[str, yaml.Node], texts: dict[str, str], pattern: re.Pattern[str], allowed: str
    ) -> None:
        if key in texts and not pattern.fullmatch(texts[key]):
            self._report(nodes[key], f"{key}: {quoted(texts[key])} is not 1 to 63 of {allowed}")
