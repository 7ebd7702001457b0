"""Reads the facts of a fleet from Prometheus: each kind once for all models, and puts them together by subject."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from .facts import Facts, Fleet, Grid, Steps, Subject, Zone
from .fleet_cards import Cards
from .fleet_factors import Factor, Factors
from .fleet_queries import CONTAINER, GAP_STEP_SECONDS, KV_USE, MODEL, NODE, RUNNING, WAITING, Queries
from .growth import Labels
from .prometheus import Prometheus, QueryError
from .steps import StepReader, Table
from .window import DAY_SECONDS, Window

HOUR_SECONDS = 3600.0
SHORT_STEP_SECONDS = 300.0
MOST = 1_000_000
"""Models times steps; a million take 150 MiB."""
_PARTS = 32
"""Few samples are looked at, far apart, to find the first: what is between them is not read."""
_LEAST_IDLE = 0.01
"""Models that did nothing for less have no gaps that matter."""
SPARSE_SECONDS = 3 * HOUR_SECONDS
STEPS = 35
"""How often ``advance`` is called by `read`, at most."""

Three = tuple[str, str, str]


def grid(prometheus: Prometheus, window: Window, matchers: str = "", most: int = MOST) -> Grid:
    """Steps of the part of a window for which there are samples: hours, five minutes where it is less than two days.

    Raises `QueryError` if there are none, or models times steps are more than ``most``.
    """
    since = _first(prometheus, window, f"energy_model_joules_total{{{matchers}}}")
    if since is None:
        raise QueryError(
            f"{prometheus.url}: no samples of energy_model_joules_total"
            f"{f' with {matchers}' if matchers else ''} in this window; is an exporter scraped, and a model running?"
        )
    step = HOUR_SECONDS if window.end - since >= 2 * DAY_SECONDS else SHORT_STEP_SECONDS
    length = int((window.end - since) / step)
    if length < 1:
        raise QueryError(f"{prometheus.url}: less than five minutes of samples in this window")
    counted = prometheus.instant(f"count({Queries(step, matchers).models()})", window.end)
    count = max([sample.value for sample in counted], default=0.0)
    if count * length > most:
        raise QueryError(
            f"{count:,.0f} models with {length} steps each are too many at once: shorten --since, or choose some of "
            "the series by --prometheus.matchers, such as 'cluster=\"a\"'"
        )
    return Grid(window.end - length * step, step, length)


def _first(prometheus: Prometheus, window: Window, selector: str) -> float | None:
    """When a selector first has a sample in a window, to a thousandth of it or a minute."""

    def times(start: float, end: float, step: float) -> list[float]:
        query = f"count(last_over_time({selector}[{step:.0f}s]))" if is_between else f"count({selector})"
        return prometheus.times(query, start, end, step)

    is_between, start, step = False, window.start, max(60.0, window.seconds / _PARTS)
    found = times(start, window.end, step)
    if not found:
        is_between = True  # what there is lies between the moments that were looked at
        found = times(start, window.end, step)
    while found and step > max(60.0, window.seconds / _PARTS**2):
        start, end = max(window.start, found[0] - step), found[0]
        step = max(60.0, (end - start) / _PARTS)
        found = times(start, end, step) or [end]
    return max(window.start, found[0] - step) if found else None


class _Models(NamedTuple):
    """What is read of models, by the labels of `MODEL` or the first three of them."""

    joules: Mapping[Labels, Mapping[tuple[str, str], Steps]]
    activities: Mapping[Labels, Mapping[str, Steps]]
    quiet: Table
    quiet_seconds: Table
    tokens: Mapping[tuple[Three, str], Steps]
    server: Mapping[tuple[Three, str], Steps]
    replicas: Table
    images: Mapping[Three, Sequence[str]]


def read(prometheus: Prometheus, asked: Grid, matchers: str = "", advance: Callable[[], None] = lambda: None) -> Fleet:
    """Everything that levers judge. Raises `QueryError`."""
    fine = StepReader(prometheus, asked, advance)
    days = max(1, int(asked.seconds / DAY_SECONDS)) if asked.step == HOUR_SECONDS else 1
    coarse = StepReader(prometheus, Grid(asked.start, asked.seconds / days, days), advance)
    recorded = [
        asked.step == HOUR_SECONDS and _is_recorded(prometheus, asked, matchers, *names)
        for names in (
            ("energy_model_joules_total", "model:energy_model_joules:rate5m"),
            ("energy_model_activity_joules_total", "model:energy_model_activity_joules:rate5m"),
        )
    ]
    queries = Queries(asked.step, matchers, *recorded)
    wide = Queries(coarse.grid.step, matchers)
    sparse = StepReader(prometheus, _sparse(asked), advance)
    with ThreadPoolExecutor(max_workers=2) as pool:  # a server answers two queries at once in little more than half
        reading = pool.submit(_models, fine, queries)
        cards = Cards.read(fine, coarse, sparse, queries, wide)
        factors = Factors.read(coarse, wide)
        others = [*_workloads(fine, queries, cards, factors, asked), *_nodes(fine, queries, factors, asked)]
        zones = _zones(fine, queries, cards)
        models = reading.result()
        seen = next(iter(fine.read(queries.seen(), ()).values()), ())
    subjects = [*(_model(key, models, cards, factors, asked) for key in models.joules), *others]
    subjects = [replace(facts, seen=seen) for facts in subjects]
    return Fleet(asked, subjects, cards.bare_watts(asked), zones, _missing(models, cards))


def _sparse(asked: Grid) -> Grid:
    """Steps of three hours where there are days of them: enough for the mean of a gauge."""
    step = min(SPARSE_SECONDS, asked.seconds) if asked.step == HOUR_SECONDS else asked.step
    length = int(asked.seconds / step)
    return Grid(asked.start + asked.seconds - length * step, step, length)


def _is_recorded(prometheus: Prometheus, asked: Grid, matchers: str, counter: str, rule: str) -> bool:
    """Whether a recording rule has samples for as long as its counter, looked at five times."""
    ends = (asked.start + asked.step, asked.start + asked.seconds)
    apart = float(int((ends[1] - ends[0]) / 4))
    counted, recorded = (prometheus.times(f"count({name}{{{matchers}}})", *ends, apart) for name in (counter, rule))
    return bool(counted) and set(counted) <= set(recorded)


def _models(reader: StepReader, queries: Queries) -> _Models:
    joules: defaultdict[Labels, dict[tuple[str, str], Steps]] = defaultdict(dict)
    for key, steps in reader.read(queries.joules(), (*MODEL, "component", "mode")).items():
        joules[key[:4]][key[4], key[5]] = steps
    activities: defaultdict[Labels, dict[str, Steps]] = defaultdict(dict)
    for key, steps in reader.read(queries.activities(), (*MODEL, "activity")).items():
        activities[key[:4]][key[4]] = steps
    served = _served(reader, queries)
    tokens: dict[tuple[Three, str], Steps] = {}
    for key, steps in reader.read(queries.tokens(), (*MODEL[:3], "kind")).items():
        tokens[_three(key), key[3]] = steps
    for kind in ("output", "prompt"):
        for key, steps in reader.read(queries.scraped_tokens(kind), MODEL[:3]).items():
            if (_three(key), "output" if kind == "output" else "cached_prompt") not in tokens:
                tokens.setdefault((_three(key), kind), steps)
    server: dict[tuple[Three, str], Steps] = {}
    for name, gauges, reduce in (("running", RUNNING, "sum"), ("waiting", WAITING, "sum"), ("kv_use", KV_USE, "avg")):
        for key, steps in reader.read(queries.server(gauges, reduce), MODEL[:3], math.nan).items():
            model = served.get(_three(key), _three(key))
            server.setdefault((model, name), steps)
    images: dict[Three, list[str]] = {}
    for key, steps in reader.read(queries.images(), (*MODEL[:3], "image")).items():
        row = images.setdefault(_three(key), [""] * reader.grid.length)
        for index, there in enumerate(steps):
            if there:
                row[index] = " ".join(sorted({*row[index].split(), key[3]}))
    return _Models(
        joules,
        activities,
        *_gaps(reader, queries.quiet(_resting(activities)), MODEL),
        tokens,
        server,
        reader.read(queries.replicas(), MODEL[:3], math.nan),
        images,
    )


def _resting(activities: Mapping[Labels, Mapping[str, Steps]]) -> list[str]:
    """Names of the models that did nothing for a share of their GPU joules; [""] without any, [] if none is known."""
    names = set()
    for key, by in activities.items():
        if math.fsum(by.get("idle", ())) >= _LEAST_IDLE * math.fsum(map(math.fsum, by.values())):
            names.add(key[2])
    return sorted(names) or ([""] if activities else [])


def _gaps(reader: StepReader, query: str, labels: Sequence[str]) -> tuple[Table, Table]:
    """Joules and seconds of gaps."""
    joules, counts = reader.read_often(query, labels, GAP_STEP_SECONDS)
    for row in counts.values():
        row[:] = array("d", [count * GAP_STEP_SECONDS for count in row])
    return joules, counts


def _served(reader: StepReader, queries: Queries) -> dict[Three, Three]:
    """The name under which a server serves a model → the exporter's name of it."""
    found: dict[Three, Three] = {}
    for query in queries.served():
        for cluster, namespace, served, model in reader.read(
            query, ("cluster", "namespace", "served_model", "model_name")
        ):
            found[cluster, namespace, served] = (cluster, namespace, model)
    return found


def _three(key: Labels) -> Three:
    return (key[0], key[1], key[2])


def _model(key: Labels, models: _Models, cards: Cards, factors: Factors, asked: Grid) -> Facts:
    joules, three = models.joules[key], _three(key)
    held, labels = cards.of(
        container for container, (name, _) in cards.owners.items() if (*container[:2], name) == three
    )
    inference = key[3] != "training"  # tokens have no phase
    values: dict[str, Any] = {
        name: models.server.get((three, name), ()) if inference else () for name in ("running", "waiting", "kv_use")
    }
    for kind in ("output", "prompt", "cached_prompt"):
        name = "cached_tokens" if kind == "cached_prompt" else f"{kind}_tokens"
        values[name] = models.tokens.get((three, kind), ()) if inference else ()
    whole = sum(math.fsum(steps) for steps in joules.values())
    factor = Factor.of(whole, factors.grams.get(key), factors.money.get(key, {}))
    return Facts(
        Subject("model", *key),
        asked,
        active=joules.get(("gpu", "active"), ()),
        idle=joules.get(("gpu", "idle"), ()),
        cpu=_add(steps for (component, _), steps in joules.items() if component in ("cpu", "dram")),
        activities=models.activities.get(key, {}),
        quiet=models.quiet.get(key, ()),
        quiet_seconds=models.quiet_seconds.get(key, ()),
        replicas=models.replicas.get(three, ()) if inference else (),
        power_limit=cards.mean_of("power_limit", labels),
        clock=cards.mean_of("clock", labels),
        images=models.images.get(three, ()),
        cards=held,
        zone=cards.zone_of(labels),
        grams_per_joule=factor.grams,
        price_per_joule=factor.money,
        **values,
    )


def _workloads(reader: StepReader, queries: Queries, cards: Cards, factors: Factors, asked: Grid) -> list[Facts]:
    """Containers that hold GPUs and belong to no model, by owner."""
    members: defaultdict[Labels, list[Labels]] = defaultdict(list)
    rows = reader.read(queries.held_containers(), (*CONTAINER, "mode"))
    for container in {key[:4] for key in rows}:
        _, owner = cards.owners.get(container, ("", ""))
        cluster, namespace, pod, name = container
        members[cluster, namespace, owner or pod or name].append(container)
    if not members:
        return []
    quiet, seconds = _gaps(reader, queries.quiet_containers(), CONTAINER)
    found = []
    for (cluster, namespace, name), containers in members.items():
        held, labels = cards.of(containers)
        factor = factors.on(card[:2] for card in labels)
        found.append(
            Facts(
                Subject("workload", cluster, namespace, name),
                asked,
                active=_add(rows.get((*each, "active"), ()) for each in containers),
                idle=_add(rows.get((*each, "idle"), ()) for each in containers),
                quiet=_add(quiet.get(each, ()) for each in containers),
                quiet_seconds=_add(seconds.get(each, ()) for each in containers),
                cards=held,
                containers=sorted((pod, container) for _, _, pod, container in containers),
                zone=cards.zone_of(labels),
                grams_per_joule=factor.grams,
                price_per_joule=factor.money,
            )
        )
    return found


def _nodes(reader: StepReader, queries: Queries, factors: Factors, asked: Grid) -> list[Facts]:
    """Nodes with GPUs that nothing holds."""
    found = []
    for (cluster, instance), steps in reader.read(queries.free(), NODE).items():
        factor = factors.on([(cluster, instance)])
        subject = Subject("node", cluster, "", instance)
        found.append(Facts(subject, asked, idle=steps, grams_per_joule=factor.grams, price_per_joule=factor.money))
    return found


def _zones(reader: StepReader, queries: Queries, cards: Cards) -> list[Zone]:
    there: defaultdict[str, set[str]] = defaultdict(set)
    for (cluster, instance, _), name in ((card, name) for card, name in cards.models.items()):
        there[cards.zones.get((cluster, instance), "")].add(name)
    found = reader.read(queries.intensity(), ("cluster", "zone"), math.nan)
    return [Zone(zone, steps, frozenset(there.get(zone, ())), cluster) for (cluster, zone), steps in found.items()]


def _missing(models: _Models, cards: Cards) -> dict[str, str]:
    """Kinds of facts that no series has, with the reason."""
    reasons = {
        "activities": (models.activities, "the exporters are older than energy_model_activity_joules_total"),
        "tokens": (models.tokens, "no model server is read by an exporter or scraped"),
        "server metrics": (
            models.server,
            "running and waiting requests and KV caches of model servers are not scraped",
        ),
        "cards": (cards.links, "energy_container_gpu_joules_total has no series: which card a model uses is not known"),
        "GPM": (
            cards.state["tensor_active"],
            "no card reports tensor activity: GPM is of Hopper and newer, with driver 520 and newer",
        ),
        "carbon intensity": (cards.zones, "the exporters have no zone (--impact.zone)"),
    }
    return {name: reason for name, (found, reason) in reasons.items() if not found}


def _add(rows: Iterable[Steps]) -> Steps:
    known = [row for row in rows if row]
    if len(known) < 2:
        return known[0] if known else ()
    return array("d", [math.fsum(values) for values in zip(*known, strict=True)])
