"""What is wrong with a rendered dashboard: pure functions from the facts that shoot.mjs reports to findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

Facts = Mapping[str, Any]
Boards = Mapping[str, Mapping[str, Any]]


class Finding(NamedTuple):
    """A fault of one panel (or of the page, where ``panel`` is empty)."""

    kind: str
    panel: str
    detail: str


def findings(facts: Facts, board: Mapping[str, Any], boards: Boards) -> list[Finding]:
    """All faults of a dashboard as it was rendered once."""
    found = [Finding("page", "", text) for text in [facts.get("failed"), *facts["messages"]] if text]
    found += [Finding("query", "", f"{each['error']}: {each['expr']}") for each in facts["queries"] if "error" in each]
    titles = {str(panel["id"]): panel["title"] for panel in _panels(board)}
    found += [Finding("page", title, "not drawn") for id_, title in titles.items() if id_ not in facts["panels"]]
    for panel in facts["panels"].values():
        for kind, check in CHECKS.items():
            found += [Finding(kind, panel["title"], detail) for detail in check(panel)]
        found += [Finding("link", panel["title"], detail) for detail in _broken_links(panel, boards)]
    return found


def _panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in board["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def _errors(panel: Facts) -> Iterator[str]:
    if panel["state"] != "Done":
        yield str(panel.get("error") or panel["state"])


def _empty_cells(panel: Facts) -> Iterator[str]:
    """Cells with the text that the whole panel has when it is empty."""
    for row in panel.get("rows", ()):
        for column, text in zip(panel["columns"], row, strict=True):
            if text and text == panel["empty"]:
                yield f"{column}: {text}"


def _cut(panel: Facts) -> Iterator[str]:
    yield from panel["cutTitles"]
    yield from (f"column {text}" for text in panel["cutHeaders"])


def _small(panel: Facts) -> Iterator[str]:
    yield from (f"{each['text']!r} has {each['size']:g} px" for each in panel["small"])


def _wide(panel: Facts) -> Iterator[str]:
    if panel["wide"]:
        yield "the table is wider than its panel"


def _same_colours(panel: Facts) -> Iterator[str]:
    series = [each for each in panel.get("series", ()) if each["points"]]
    count = Counter(each["color"] for each in series)
    for colour, times in count.items():
        if times > 1:
            yield f"{colour}: {', '.join(each['name'] for each in series if each['color'] == colour)}"


CHECKS: dict[str, Callable[[Facts], Iterator[str]]] = {
    "query": _errors,
    "cell": _empty_cells,
    "title": _cut,
    "small": _small,
    "wide": _wide,
    "colour": _same_colours,
}


def _broken_links(panel: Facts, boards: Boards) -> Iterator[str]:
    """Links with a variable that Grafana did not know, or that their target does not have."""
    for address in sorted({link["href"] for link in [*panel.get("links", ()), *panel["panelLinks"]]}):
        if re.search(r"\$\{|\$__(?!all\b)|%24%7B|undefined", address):
            yield f"unresolved: {address}"
            continue
        parts = urlsplit(address)
        if not parts.path.startswith("/d/"):
            continue
        target = boards.get(parts.path.removeprefix("/d/"))
        if target is None:
            yield f"no such dashboard: {address}"
            continue
        known = {f"var-{variable['name']}" for variable in target["templating"]["list"]}
        unknown = {
            name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name.startswith("var-")
        } - known
        if unknown:
            yield f"{', '.join(sorted(unknown))} is unknown to the target: {address}"
