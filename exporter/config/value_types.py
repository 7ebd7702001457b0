"""Value types of settings: parsing, checks and formatting; an invalid value raises a ValueError of one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LOGIN = re.compile(r"//.*@", re.DOTALL)
_QUERY = re.compile(r"\?.*", re.DOTALL)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class ValueType:
    """``parse`` takes text, a list of texts or a mapping of texts, depending on ``shape``; raises ValueError.

    ``placeholder`` stands for the value in help; ``format`` is the inverse of ``parse``. The shape "records" is a list
    of mappings, to which the YAML file adds the line of each.
    """

    placeholder: str
    parse: Callable[[Any], Any]
    format: Callable[[Any], str] = str
    shape: Literal["one", "flag", "list", "mapping", "records"] = "one"


class NestedValueError(ValueError):
    """Several errors in one value: ``problems`` are pairs of ``file:line`` ("" if unknown) and message."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = tuple(problems)


class Address(NamedTuple):
    """An address to listen on; an empty ``host`` is every interface, port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def text(placeholder: str) -> ValueType:
    """Any text without control characters, such as a path."""

    def parse(value: object) -> str:
        word = _word(value)
        if not word.isprintable():
            raise ValueError(f"{quoted(word)} has characters that cannot be printed")
        return word

    return ValueType(placeholder, parse)


def choice(*words: str) -> ValueType:
    """One of these words."""

    def parse(value: object) -> str:
        word = _word(value)
        if word not in words:
            raise ValueError(f"{quoted(word)} is not one of {', '.join(words)}")
        return word

    return ValueType("|".join(words), parse)


def flag() -> ValueType:
    """True or false."""

    def parse(value: object) -> bool:
        if isinstance(value, bool):
            return value
        word = _word(value)
        if word.lower() not in _WORDS:
            raise ValueError(f"{quoted(word)} is neither true nor false")
        return _WORDS[word.lower()]

    return ValueType("", parse, lambda value: str(value).lower(), "flag")


def count(low: int, high: int) -> ValueType:
    """A whole number from ``low`` to ``high``."""

    def parse(value: object) -> int:
        word = _word(value)
        if not re.fullmatch(r"\d{1,18}", word, re.ASCII):
            raise ValueError(f"{quoted(word)} is not a whole number")
        if not low <= int(word) <= high:
            raise ValueError(f"{word} is not between {low} and {high}")
        return int(word)

    return ValueType("N", parse)


def number(placeholder: str, low: float, high: float) -> ValueType:
    """A number from ``low`` to ``high``; no exponent, infinity or NaN."""

    def parse(value: object) -> float:
        word = _word(value)
        if not _NUMBER.fullmatch(word):
            raise ValueError(f"{quoted(word)} is not a number from {low:g} to {high:g}")
        if not low <= float(word) <= high:
            raise ValueError(f"{word[:60]} is not between {low:g} and {high:g}")
        return float(word)

    return ValueType(placeholder, parse, lambda value: f"{value:g}")


def number_range(placeholder: str, low: float, high: float) -> ValueType:
    """Two numbers from ``low`` to ``high``, the smaller one first: ``4.7-37.5``."""
    one = number(placeholder, low, high)

    def parse(value: object) -> tuple[float, float]:
        word = _word(value)
        first, dash, second = word.partition("-")
        if not (first and dash and second):
            raise ValueError(f"{quoted(word)} is not a range such as 4.7-37.5")
        found = one.parse(first), one.parse(second)
        if found[0] > found[1]:
            raise ValueError(f"{quoted(word)}: the smaller number comes first")
        return found

    return ValueType(placeholder, parse, lambda value: "-".join(map(one.format, value)))


def word_or(word: str, other: ValueType) -> ValueType:
    """One word, or what ``other`` accepts."""

    def parse(value: object) -> object:
        try:
            return word if value == word else other.parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, nor {word}") from None

    return ValueType(f"{other.placeholder}|{word}", parse, lambda value: word if value == word else other.format(value))


def duration(low: float, high: float) -> ValueType:
    """Seconds from ``low`` to ``high``, written with units: ``500ms``, ``1s``, ``1h30m``."""

    def parse(value: object) -> float:
        word = _word(value)
        if not _DURATION.fullmatch(word):
            raise ValueError(f"{quoted(word)} is not a duration such as 500ms, 1s, 5m or 1h30m")
        seconds = math.fsum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(word))
        if not low <= seconds <= high:
            raise ValueError(f"{word[:60]} is not between {show_duration(low)} and {show_duration(high)}")
        return seconds

    return ValueType("DURATION", parse, show_duration)


def show_duration(seconds: float) -> str:
    """Format seconds as a duration setting: largest unit first, exact to the millisecond."""
    left = round(seconds * 1000)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        amount, left = divmod(left, round(_UNITS[unit] * 1000))
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"


def url_path() -> ValueType:
    """An absolute URL path below the root, of unreserved characters; not a health path."""

    def parse(value: object) -> str:
        word = _word(value)
        if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", word):
            raise ValueError(f"{quoted(word)} is not a path such as /metrics")
        if word.startswith("/-/") or word in ("/healthz", "/readyz"):
            raise ValueError(f"{quoted(word)} is reserved for health checks")
        return word

    return ValueType("PATH", parse)


def server_url(*, per_node: bool = False) -> ValueType:
    """The base URL of a server: scheme http or https, host and optional port.

    With ``per_node`` the host may contain ``{node}``, the name of the node.
    """

    def parse(value: object) -> str:
        word = _word(value).rstrip("/")
        host = r"(?:[A-Za-z0-9_.-]|\{node\})+" if per_node else r"[A-Za-z0-9_.-]+"
        match = re.fullmatch(rf"https?://(?:\[[0-9A-Fa-f:.]+\]|{host})(?::(\d{{1,5}}))?", word, re.ASCII)
        if not match or int(match[1] or 1) not in range(1, 65_536):
            apart = "; a login stands in a file of its own" if "@" in word else ""
            raise ValueError(f"{quoted(word)} is not a URL such as https://10.96.0.1:443{apart}")
        return word

    return ValueType("URL", parse)


def fingerprint() -> ValueType:
    """The SHA-256 of a certificate: 64 hexadecimal digits, with or without colons and ``sha256:`` before them."""

    def parse(value: object) -> str:
        word = _word(value)
        digits = re.sub(r"^(?:sha256[:=]|sha256 fingerprint=)", "", word.lower()).replace(":", "")
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError(f"{quoted(word)} is not the SHA-256 of a certificate: 64 hexadecimal digits")
        return digits

    return ValueType("SHA256", parse)


def keeps_secrets(url: str) -> bool:
    """Whether a password may be sent to a URL of `server_url`: over TLS, or without leaving this machine."""
    parts = urlsplit(url)
    try:
        return parts.scheme == "https" or parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def address() -> ValueType:
    """An `Address`: HOST:PORT, [IPV6]:PORT or :PORT."""

    def parse(value: object) -> Address:
        word = _word(value)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9_.-]*)):(\d{1,5})", word, re.ASCII)
        if not match or int(match[3]) > 65_535:
            raise ValueError(f"{quoted(word)} is not HOST:PORT or [IPV6]:PORT with a port up to 65535")
        return Address(match[1] or match[2], int(match[3]))

    return ValueType("ADDRESS", parse)


def listing(item: ValueType) -> ValueType:
    """One or more values: a YAML list, text separated by commas, or a repeated flag."""

    def parse(value: object) -> tuple[Any, ...]:
        texts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        words = [word.strip() for given in texts for word in _word(given).split(",")]
        if not all(words) or not words:
            raise ValueError("has an empty item" if words else "has no item")
        parsed = tuple(item.parse(word) for word in words)
        if len(set(parsed)) != len(parsed):
            raise ValueError("lists the same value twice")
        return parsed

    return ValueType(item.placeholder, parse, lambda value: ",".join(item.format(one) for one in value), "list")


def mapping(placeholder: str, item: ValueType) -> ValueType:
    """Names to values: a YAML mapping, ``name=value`` separated by commas, or a repeated flag."""

    def parse(value: object) -> dict[str, Any]:
        if isinstance(value, Mapping):
            pairs = [(str(name), given) for name, given in value.items()]
        else:
            texts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            pairs = [_pair(word, placeholder) for given in texts for word in _word(given).split(",")]
        parsed: dict[str, Any] = {}
        for name, given in pairs:
            if name in parsed:
                raise ValueError(f"{quoted(name)} is set twice")
            try:
                parsed[name] = item.parse(given)
            except ValueError as error:
                raise ValueError(f"{quoted(name)}: {error}") from None
        return parsed

    def format_pairs(value: Mapping[str, Any]) -> str:
        return ",".join(f"{name}={item.format(one)}" for name, one in value.items())

    return ValueType(placeholder, parse, format_pairs, "mapping")


def quoted(value: str) -> str:
    """Quote text for a message: on one line, at most 60 characters, without a login or a query in a URL."""
    if "//" in value:
        value = _QUERY.sub("?...", _LOGIN.sub("//...@", value))
    return repr(value if len(value) <= 60 else value[:57] + "...")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" with the closest existing name, or ""."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _pair(word: str, placeholder: str) -> tuple[str, str]:
    name, equals, value = word.strip().partition("=")
    if not (name and equals and value):
        raise ValueError(f"{quoted(word)} is not {placeholder}")
    return name.strip(), value.strip()


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("has several values where one is expected")
    if not value:
        raise ValueError("is empty")
    return value
