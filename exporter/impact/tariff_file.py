"""Reads the file of ``--impact.file``: intensity and price, by hour and weekday or live; errors name line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from ..config.node_reader import NodeReader
from ..config.value_types import did_you_mean, keeps_secrets, quoted, server_url
from . import units
from .feeds.protocol import FeedKind, FeedOptions, Quantity
from .schedule import Span, Timetable
from .values import MOST_GRAMS_PER_KWH

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CURRENCY = re.compile(r"[A-Z]{3}")

_SECTIONS: dict[Quantity, tuple[str, ...]] = {
    "intensity": ("feed", "unit", "timezone", "periods"),
    "price": ("feed", "unit", "currency", "timezone", "adders", "periods"),
    "marginal": ("feed",),
}
_UNITS = {"intensity": units.INTENSITY, "price": units.PRICE}
_FEED = ("name", "zone", "token-file", "url")
_PERIOD = ("value", "weekdays", "from", "to")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_MOST = {"intensity": MOST_GRAMS_PER_KWH, "price": 1e6}


class Tariff(NamedTuple):
    """What the file says; None or "" is what it leaves open. Prices of timetables include the ``adder``."""

    intensity: Timetable | None = None
    price: Timetable | None = None
    currency: str = ""
    adder: float = 0.0
    feeds: tuple[FeedOptions, ...] = ()


def read(path: str) -> Tariff:
    """The tariff of a file. Raises `ConfigError` with all errors."""
    return _Reader(path).read()


class _Reader(NodeReader[Tariff]):
    def document(self, root: yaml.Node | None) -> Tariff:
        sections = dict(self._mapping(root, tuple(_SECTIONS), ""))
        if not sections and not self.problems:
            self._report(root, "has neither intensity nor price")
        found: dict[Quantity, Timetable | None] = {}
        feeds: list[FeedOptions] = []
        currency, adder = "", 0.0
        for name, keys in _SECTIONS.items():
            if (node := sections.get(name)) is None:
                continue
            values = dict(self._mapping(node, keys, f"{name}: "))
            added = self._adders(values["adders"]) if "adders" in values else 0.0
            if name == "price":
                currency, adder = self._currency(node, values.get("currency")), added
            if "feed" in values:
                feeds += self._feed(values["feed"], name, currency)
            if name != "marginal" and ("periods" in values or "feed" not in values):
                found[name] = self._timetable(node, values, name, added)
            elif name == "marginal" and "feed" not in values:
                self._report(node, "marginal: the key feed is missing")
        return Tariff(found.get("intensity"), found.get("price"), currency, adder, tuple(feeds))

    def _timetable(self, section: yaml.Node, values: dict[str, yaml.Node], name: str, added: float) -> Timetable | None:
        node, timezone = values.get("periods"), self._timezone(values.get("timezone"), name)
        scale = self._unit(values.get("unit"), name)
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._report(node or section, f"{name}: periods must be a list with at least one value")
            return None
        before = len(self.problems)
        spans = [self._span(item, name, scale, added) for item in node.value]
        if len(self.problems) > before:
            return None
        timetable = Timetable(tuple(spans), timezone or UTC)
        if timezone is None and any(span != Span(span.value) for span in spans):
            self._report(section, f"{name}: the key timezone is missing, such as Europe/Berlin")
        if (gap := timetable.gap) is not None:
            weekday, minute = gap
            at = f"{WEEKDAYS[weekday]} {minute // 60:02}:{minute % 60:02}"
            self._report(
                node, f"{name}: no period covers {at}; a last one without weekdays, from and to covers the rest"
            )
        return timetable

    def _span(self, node: yaml.Node, name: str, scale: float, added: float) -> Span:
        values = dict(self._mapping(node, _PERIOD, f"{name}: "))
        if "value" not in values:
            self._report(node, f"{name}: the key value is missing")
            return Span(0.0)
        lowest = 0.0 if name == "intensity" else -_MOST[name]
        value = scale * self._number(values["value"], f"{name}: value", lowest / scale, _MOST[name] / scale)
        weekdays = self._weekdays(values["weekdays"], name) if "weekdays" in values else frozenset(range(7))
        if ("from" in values) != ("to" in values):
            self._report(node, f"{name}: from and to must be given together")
        start, end = (self._minutes(values[key], f"{name}: {key}") if key in values else 0 for key in ("from", "to"))
        return Span(round(value + added, 9), weekdays, start, end)

    def _weekdays(self, node: yaml.Node, name: str) -> frozenset[int]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._report(node, f"{name}: weekdays must be a list such as [mon, tue]")
            return frozenset()
        words = [self._text(item).lower()[:3] for item in node.value]
        for word, item in zip(words, node.value, strict=True):
            if word not in WEEKDAYS:
                self._report(item, f"{name}: weekdays: {quoted(self._text(item))} is not one of {', '.join(WEEKDAYS)}")
        return frozenset(WEEKDAYS.index(word) for word in words if word in WEEKDAYS)

    def _unit(self, node: yaml.Node | None, name: str) -> float:
        """How many grams per kWh, or how much of the price of a kWh, one of the section's values is."""
        known = _UNITS[name]
        word = next(iter(known)) if node is None else self._text(node)
        if word not in known:
            self._report(node, f"{name}: unit: {quoted(word)} is not one of {', '.join(known)}")
        return known.get(word, 1.0)

    def _feed(self, node: yaml.Node, quantity: Quantity, currency: str) -> Iterator[FeedOptions]:
        from .feeds.registry import FEEDS  # noqa: PLC0415 - loads HTTP and TLS, only for a feed

        where = f"{quantity}: feed: "
        before = len(self.problems)
        nodes = dict(self._mapping(node, _FEED, where))
        texts = {key: self._text(value) for key, value in nodes.items()}
        if "name" not in nodes:
            self._report(node, f"{where}the key name is missing: {', '.join(FEEDS)}")
        elif (kind := FEEDS.get(texts["name"])) is None:
            self._report(nodes["name"], f"{where}name: {quoted(texts['name'])} is not one of {', '.join(FEEDS)}")
        elif quantity not in kind.quantities:
            self._report(nodes["name"], f"{where}{kind.name} has no {quantity}, only {' and '.join(kind.quantities)}")
        else:
            url = self._check_feed(node, nodes, texts, kind, where)
            if kind.currencies and quantity == "price" and currency and currency not in kind.currencies:
                self._report(node, f"{where}{kind.name} has prices in {' and '.join(kind.currencies)} only")
            if len(self.problems) == before:
                yield FeedOptions(kind.name, quantity, texts["zone"], url, texts.get("token-file", ""), currency)

    def _check_feed(
        self, node: yaml.Node, nodes: dict[str, yaml.Node], texts: dict[str, str], kind: FeedKind, where: str
    ) -> str:
        """Report what is wrong with zone, token file and address of a feed. Returns its address."""
        if not kind.zones.fullmatch(texts.get("zone", "")):
            got = f"zone: {quoted(texts['zone'])} is not" if "zone" in texts else "the key zone is missing,"
            self._report(nodes.get("zone", node), f"{where}{got} a zone such as {kind.zone_example}")
        if kind.token and not texts.get("token-file"):
            self._report(node, f"{where}the key token-file is missing: a file with {kind.token}")
        if not kind.token and "token-file" in texts:
            self._report(nodes["token-file"], f"{where}{kind.name} needs no token-file")
        try:
            url = str(server_url().parse(texts.get("url", kind.url)))
        except ValueError as error:
            self._report(nodes["url"], f"{where}url: {error}")
            return ""
        if kind.token and not keeps_secrets(url):
            self._report(nodes["url"], f"{where}url: a token is sent over https only")
        return url

    def _adders(self, node: yaml.Node) -> float:
        if not isinstance(node, yaml.MappingNode):
            self._report(node, "price: adders must be a mapping of names and prices per kWh, such as {grid: 0.08}")
            return 0.0
        return sum(
            self._number(value, f"price: adders: {self._text(key)}", -_MOST["price"], _MOST["price"])
            for key, value in node.value
        )

    def _currency(self, section: yaml.Node, node: yaml.Node | None) -> str:
        word = self._text(node) if node is not None else ""
        if not CURRENCY.fullmatch(word):
            message = "the key currency is missing" if node is None else f"currency: {quoted(word)} is not a code"
            self._report(node or section, f"price: {message}, such as EUR")
        return word

    def _timezone(self, node: yaml.Node | None, name: str) -> tzinfo | None:
        if node is None:
            return None
        word = self._text(node)
        try:
            return ZoneInfo(word)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._report(
                node,
                f"{name}: timezone: {quoted(word)} is not known here; the package tzdata has the names of all zones",
            )
        return UTC

    def _minutes(self, node: yaml.Node, key: str) -> int:
        word = self._text(node)
        if not _TIME.fullmatch(word):
            self._report(node, f"{key}: {quoted(word)} is not a time such as 06:30; quote it, or YAML reads a number")
            return 0
        hours, _, minutes = word.partition(":")
        return (int(hours) * 60 + int(minutes)) % 1440

    def _number(self, node: yaml.Node, key: str, low: float, high: float) -> float:
        word = self._text(node)
        if not _NUMBER.fullmatch(word) or not low <= float(word) <= high:
            self._report(node, f"{key}: {quoted(word)} is not a number from {low:g} to {high:g}")
            return 0.0
        return float(word)

    def _mapping(self, node: yaml.Node | None, keys: Sequence[str], where: str) -> Iterator[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._report(node, f"{where}must be a mapping of {', '.join(keys)}")
            return
        seen = set()
        for key, value in node.value:
            name = self._text(key)
            if name not in keys:
                self._report(key, f"{where}no such key: {quoted(name)}{did_you_mean(name, keys)}")
            elif name in seen:
                self._report(key, f"{where}{name} is given twice")
            else:
                seen.add(name)
                yield name, value

    def _text(self, node: yaml.Node) -> str:
        return str(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
