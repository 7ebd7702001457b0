"""What a PromQL expression names: metrics with the labels of their matchers, and the labels it groups by."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\d[\w.]*|[a-zA-Z_:][\w:]*|[{}()\[\],=!~]|[^\s\w]')
_NAME = re.compile(r"[a-zA-Z_:][\w:]*")
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "e", "inf", "nan"}
_CONTINUED = re.compile(r"(?:[-+*/]|\b(?:and|or|unless)|\bon \([\w, ]*\))$")
_COUNTED = re.compile(r'count_values\s*\(\s*"(\w+)"')
_COPIED = re.compile(r'"(\w+)",\s*"\$1",\s*"(\w+)",')
_SET = re.compile(r'"(\w+)",\s*"\w+",\s*"(\w*)",')
_JOINED = re.compile(r'"(\w+)",\s*":",((?:\s*"\w+",?)+)')


class Names(NamedTuple):
    """``metrics`` are pairs of a name and the labels of its matchers; ``made`` are labels that
    label_replace or count_values writes."""

    metrics: list[tuple[str, set[str]]]
    labels: set[str]
    made: set[str]


def queries(block: str) -> list[str]:
    """The queries of a block of a document: each begins at the left margin, and its other lines are indented or close
    or continue a bracket."""
    found: list[list[str]] = []
    depth = 0
    for line in re.sub(r"^\s*#.*\n", "", block, flags=re.MULTILINE).splitlines():
        if found and (depth or line.startswith((" ", ")")) or (found and _CONTINUED.search(found[-1][-1]))):
            found[-1].append(line)
        elif line:
            found.append([line])
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        depth += sum(bare.count(sign) for sign in "([{") - sum(bare.count(sign) for sign in ")]}")
    return ["\n".join(lines) for lines in found]


def names(expression: str) -> Names:
    """Everything that an expression names."""
    text = re.sub(r"^\s*#.*$", "", expression, flags=re.MULTILINE)
    copied = [*_COPIED.findall(text), *_SET.findall(text)]
    joined = _JOINED.findall(text)
    made = {target for target, _ in (*copied, *joined)} | set(_COUNTED.findall(text))
    sources = {source for _, source in copied} | {one for _, parts in joined for one in re.findall(r"\w+", parts)}
    labels = sources - made - {""}
    tokens = _TOKEN.findall(text)
    metrics: list[tuple[str, set[str]]] = []
    position = 0
    while position < len(tokens):
        token, follower = tokens[position], tokens[position + 1] if position + 1 < len(tokens) else ""
        position += 1
        if token == "[":
            position = tokens.index("]", position) + 1
        elif token == "offset":
            position += 1
        elif token == "{":  # a selector without a name, as of several metrics
            position = tokens.index("}", position) + 1
        elif token in _LISTS and follower == "(":
            end = tokens.index(")", position)
            labels |= {one for one in tokens[position:end] if _NAME.fullmatch(one)}
            position = end + 1
        elif not _NAME.fullmatch(token) or token in _WORDS | _LISTS or follower == "(":
            continue
        elif follower in _LISTS:
            continue  # an aggregation, such as `sum by (x) (y)`
        elif follower == "{":
            end = tokens.index("}", position)
            inside = tokens[position + 1 : end]
            matched = {a for a, b in itertools.pairwise(inside) if _NAME.fullmatch(a) and b in "=!"}
            metrics.append((token, matched))
            position = end + 1
        else:
            metrics.append((token, set()))
    return Names(metrics, labels, made)
