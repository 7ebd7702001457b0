"""Render a snapshot as Prometheus text 0.0.4 or OpenMetrics 1.0: cached prefixes, only values are formatted.

Values carry 14 significant digits, a microjoule in 27 kWh: CPython formats these twice as fast as ``repr``
does, and rounding never makes a counter fall.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping
from math import isfinite

from prometheus_client import CollectorRegistry

from ...impact.values import Impact, Rates
from ...records import Mode, Model, Workload
from ...snapshot import AccountRow, ImpactView, Snapshot
from .catalogue import CATALOGUE
from .families import LEVELS, AccountFamily, ContainerInfo, Family, Level, chosen_labels, container_identity
from .impact import ImpactFamily, is_known, money
from .labels import pairs
from .registry_text import RegistryText

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_EOF = b"# EOF\n"
_GZIP = 31  # window bits that make zlib write a gzip header

Lines = dict[str, list[bytes]]
"""Family name → its lines; one element may hold several lines."""


class Renderer:
    """Renders each snapshot once per format and shares the bytes among all scrapers. For one thread only.

    The metrics of ``own``, which are the exporter's about itself, follow the catalogue's; they are as of when the body
    is rendered.
    """

    def __init__(self, own: CollectorRegistry | None = None, catalogue: tuple[Family, ...] = CATALOGUE) -> None:
        self._families = [
            (family, family.header(openmetrics=False), family.header(openmetrics=True)) for family in catalogue
        ]
        self._levels = [_LevelRenderer(level, catalogue) for level in LEVELS]
        self._prefixes: dict[str, dict[tuple[str, ...], bytes]] = {}
        self._own = None if own is None else RegistryText(own)
        self._snapshot: Snapshot | None = None
        self._lines: Lines = {}
        self._bodies: dict[tuple[bool, bool], bytes] = {}

    def body(self, snapshot: Snapshot, *, openmetrics: bool = False, gzipped: bool = False) -> bytes:
        """Return the scrape body; the same object for every caller until the next snapshot."""
        if snapshot is not self._snapshot:
            self._bodies = {}
            self._lines = self._render(snapshot)
            self._snapshot = snapshot
        body = self._bodies.get((openmetrics, gzipped))
        if body is None:
            if gzipped:
                # Level 1 takes a quarter of the time of level 9 for a body a third larger.
                body = zlib.compress(self.body(snapshot, openmetrics=openmetrics), 1, _GZIP)
            else:
                body = self._join(openmetrics)
            self._bodies[openmetrics, gzipped] = body
        return body

    def _render(self, snapshot: Snapshot) -> Lines:
        lines: Lines = {}
        for level in self._levels:
            level.render(snapshot, lines)
        for family, _, _ in self._families:
            if family.name not in lines:
                lines[family.name] = self._family(family, snapshot)
        return lines

    def _family(self, family: Family, snapshot: Snapshot) -> list[bytes]:
        known = self._prefixes.get(family.name, {})
        prefixes: dict[tuple[str, ...], bytes] = {}  # only prefixes in use are kept, to bound memory
        lines = []
        for values, value in family.samples(snapshot):
            # A duplicate series would break the whole scrape: the first one is kept.
            if value is None or not isfinite(value) or values in prefixes:
                continue
            prefix = known.get(values)
            if prefix is None:
                labels = pairs(family.labels, values)
                prefix = f"{family.name}{{{labels}}} ".encode() if labels else f"{family.name} ".encode()
            prefixes[values] = prefix
            lines.append(b"%s%.14g\n" % (prefix, value))
        self._prefixes[family.name] = prefixes
        return lines

    def _join(self, openmetrics: bool) -> bytes:
        parts = []
        for family, text_header, openmetrics_header in self._families:
            lines = self._lines[family.name]
            if any(lines):  # a family without samples is omitted
                parts.append(openmetrics_header if openmetrics else text_header)
                parts += lines
        if self._own is not None:
            parts.append(self._own.body(openmetrics=openmetrics))
        if openmetrics:
            parts.append(_EOF)
        return b"".join(parts)


class _Account:
    """Cache of one account: its row, and per family a template and the lines rendered from it."""

    __slots__ = ("chunks", "impact_row", "impacts", "info", "labels", "model", "row", "templates")

    def __init__(self, row: AccountRow, labels: str, templates: tuple[bytes, bytes, bytes]) -> None:
        self.row = row
        self.labels = labels
        self.templates = templates
        self.chunks = _format(templates, row)
        self.model: Model | None = None
        self.info = b""
        self.impact_row: AccountRow | None = None
        self.impacts: tuple[bytes, ...] = ()


class _LevelRenderer:
    """The families of one level; an unchanged account costs one look-up."""

    def __init__(self, level: Level, catalogue: tuple[Family, ...]) -> None:
        own = {f.quantity: f.name for f in catalogue if isinstance(f, AccountFamily) and f.level is level}
        self._level = level
        self._joules, self._watts, self._ratios = own["joules"], own["watts"], own["ratios"]
        self._impacts = [f for f in catalogue if isinstance(f, ImpactFamily) and f.level is level]
        self._worth: tuple[Rates, str] | None = None  # of what the lines of impacts were made
        self._info = next((f for f in catalogue if isinstance(f, ContainerInfo) and f.level is level), None)
        self._accounts: dict[int, _Account] = {}
        self._owners: dict[str, int] = defaultdict(int)  # how many accounts have these labels

    def render(self, snapshot: Snapshot, lines: Lines) -> None:
        """Put the lines of every family of this level into ``lines``."""
        rows = self._level.rows(snapshot)
        cached = self._accounts
        accounts: list[_Account] = []
        show = accounts.append
        for row in rows:
            account = cached.get(row.serial)
            if account is None or account.row is not row:
                account = self._update(account, row)
            show(account)
        if len(cached) > len(rows):
            self._forget(rows)
        if len(self._owners) < len(accounts):
            # A reused pid, for example. A duplicate series would break the whole scrape: the newest is kept, and
            # Prometheus handles the decrease as a counter reset.
            newest = {a.labels: a for a in sorted(accounts, key=lambda account: account.row.serial)}
            accounts = list(newest.values())
        lines[self._joules] = [account.chunks[0] for account in accounts]
        lines[self._watts] = [account.chunks[1] for account in accounts]
        lines[self._ratios] = [account.chunks[2] for account in accounts]
        if self._impacts:
            self._render_impacts(accounts, snapshot.impact, lines)
        if self._info is not None:
            lines[self._info.name] = self._infos(self._info, accounts, snapshot.energy.container_models)

    def _render_impacts(self, accounts: list[_Account], view: ImpactView | None, lines: Lines) -> None:
        shown = [family for family in self._impacts if is_known(view, family.quantity)]
        lines.update({family.name: [] for family in self._impacts})
        if view is None or not shown:
            return
        worth = (view.rates, view.factors.currency)
        changed, self._worth = worth != self._worth, worth
        for account in accounts:
            if changed or account.impact_row is not account.row:
                impacts = account.row.impacts(view.rates)
                account.impacts = tuple([_impact_lines(family, account.labels, impacts, view) for family in shown])
                account.impact_row = account.row
        for position, family in enumerate(shown):
            lines[family.name] = [account.impacts[position] for account in accounts]

    def _update(self, account: _Account | None, row: AccountRow) -> _Account:
        if account is not None:
            old = account.row
            if (
                (row.owner is old.owner or row.owner == old.owner)
                and (row.cells is old.cells or row.cells == old.cells)
                and row.components == old.components
                and row.busy_components == old.busy_components
            ):
                account.row = row
                account.chunks = _format(account.templates, row)
                return account
            self._release(account)
        labels = pairs(self._level.labels, self._level.values(row.owner))
        account = self._accounts[row.serial] = _Account(row, labels, self._templates(labels, row))
        self._owners[labels] += 1
        return account

    def _templates(self, labels: str, row: AccountRow) -> tuple[bytes, bytes, bytes]:
        labels = labels.replace("%", "%%")
        joules, watts, ratios = self._joules, self._watts, self._ratios
        return (
            "".join([f'{joules}{{{labels},component="{c}",mode="{m}"}} %.14g\n' for c, m in row.cells]).encode(),
            "".join([f'{watts}{{{labels},component="{c}"}} %.14g\n' for c in row.components]).encode(),
            "".join([f'{ratios}{{{labels},component="{c}"}} %.14g\n' for c in row.busy_components]).encode(),
        )

    def _infos(self, family: Family, accounts: list[_Account], models: Mapping[int, Model]) -> list[bytes]:
        for account in accounts:
            model = models.get(account.row.serial)
            if not account.info or model != account.model:
                owner = account.row.owner
                assert isinstance(owner, Workload)
                chosen = chosen_labels(owner.labels)
                labels = pairs((*family.labels, *chosen), (*container_identity(owner, model), *chosen.values()))
                account.info = f"{family.name}{{{labels}}} 1\n".encode()
                account.model = model
        return [account.info for account in accounts]

    def _release(self, account: _Account) -> None:
        self._owners[account.labels] -= 1
        if not self._owners[account.labels]:
            del self._owners[account.labels]

    def _forget(self, rows: tuple[AccountRow, ...]) -> None:
        """Drop the cache of removed accounts, so that memory is bounded by the exposed series (fault 43)."""
        for serial in self._accounts.keys() - {row.serial for row in rows}:
            self._release(self._accounts.pop(serial))


def _impact_lines(family: ImpactFamily, labels: str, impacts: Mapping[Mode, Impact], view: ImpactView) -> bytes:
    currency = money(view, family.quantity)
    own = f",{pairs(('currency',), currency)}" if currency else ""
    values = {mode: getattr(impact, family.quantity) for mode, impact in impacts.items()}
    return "".join(
        [
            f'{family.name}{{{labels},mode="{mode}"{own}}} {value:.14g}\n'
            for mode, value in values.items()
            if isfinite(value)
        ]
    ).encode()


def _format(templates: tuple[bytes, bytes, bytes], row: AccountRow) -> tuple[bytes, bytes, bytes]:
    joules, watts, ratios = templates
    # One check for the whole row: a sum is finite only if all its terms are.
    if isfinite(sum(row.joules) + sum(row.watts) + sum(row.ratios)):
        return joules % row.joules, watts % row.watts, ratios % row.ratios
    return _finite(joules, row.joules), _finite(watts, row.watts), _finite(ratios, row.ratios)


def _finite(template: bytes, values: tuple[float, ...]) -> bytes:
    lines = template.splitlines(keepends=True)
    return b"".join([line % value for line, value in zip(lines, values, strict=True) if isfinite(value)])
