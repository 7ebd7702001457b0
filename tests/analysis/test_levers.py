"""Each lever: what makes it speak, what makes it silent, and that no joule is promised twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.analysis.advice import advise
from exporter.analysis.facts import Card, Facts, Fleet, Grid, Subject, Zone
from exporter.analysis.levers.lever import Finding
from exporter.analysis.levers.registry import LEVERS
from exporter.analysis.lines import JOULES_PER_KWH

DAYS = 14
GRID = Grid(1_790_640_000, 3600.0, DAYS * 24)
HOURS = range(GRID.length)
JUDGE: dict[str, Callable[[Facts, Fleet], Finding]] = {lever.name: lever.judge for lever in LEVERS}
H100 = "NVIDIA H100 80GB HBM3"


def flat(value: float) -> list[float]:
    """The same in every step."""
    return [value] * GRID.length


def model(phase: str = "inference", **facts: Any) -> Facts:
    """A model of 300 W active and 100 W idle, whose load is well divided."""
    usual: dict[str, Any] = {
        "active": [3600 * (300 + hour % 5) for hour in HOURS],
        "idle": [3600 * (100 + hour % 3) for hour in HOURS],
        "cpu": flat(3600 * 10),
        "activities": {"compute_bound": flat(3600 * 200), "mixed": flat(3600 * 200)},
        "cards": (card(),),
    }
    return Facts(Subject("model", "", "ai", "m", phase), GRID, **(usual | facts))


def card(**facts: Any) -> Card:
    """A card that is used well."""
    usual: dict[str, Any] = {
        "uuid": "GPU-1",
        "gpu_model": H100,
        "active_joules": 1e6,
        "sm_active": 0.7,
        "tensor_active": 0.4,
        "dram_active": 0.4,
        "utilization": 0.9,
        "memory_used": 0.8,
        "power_watts": 400.0,
        "limit_watts": 700.0,
        "throttled": 0.0,
    }
    return Card(**(usual | facts))


def judge(lever: str, facts: Facts, **fleet: Any) -> Finding:
    """What one lever says."""
    return JUDGE[lever](facts, Fleet(GRID, [facts, *fleet.pop("others", ())], **fleet))


NIGHT = [3600.0 if hour % 24 < 8 else 0.0 for hour in HOURS]
RUN_AT_NIGHT = [3600 * 500.0 if hour % 24 < 6 else 0.0 for hour in HOURS]
DIRTY_NIGHTS = Zone("DE", [500.0 if hour % 24 < 6 else 300.0 for hour in HOURS], frozenset({H100}))
CLEAN = Zone("SE", flat(40.0), frozenset({H100}))
SERVED: dict[str, Any] = {"output_tokens": flat(1e6), "prompt_tokens": flat(2e6)}


@pytest.mark.parametrize(
    ("lever", "level", "facts", "fleet"),
    [
        ("stop_idle", "bound", model(quiet=[100 * s for s in NIGHT], quiet_seconds=NIGHT), {}),
        (
            "stop_idle",
            "observed",
            model(quiet=[100 * s for s in NIGHT], quiet_seconds=NIGHT),
            {"bare_watts": {H100: 70.0}},
        ),
        ("free_gpus", "bound", Facts(Subject("node", name="n1"), GRID, idle=flat(3600 * 70)), {}),
        ("batch_limit", "hint", model(running=flat(32), waiting=flat(4)), {}),
        ("power_cap", "hint", model(cards=(card(power_watts=650.0),)), {}),
        ("power_cap", "hint", model(cards=(card(throttled=0.3),)), {}),
        ("clock_lock", "hint", model(activities={"memory_bound": flat(6.0), "mixed": flat(4.0)}), {}),
        ("precision", "hint", model(running=flat(128), activities={"compute_bound": flat(1.0)}), {}),
        (
            "tensor_parallel",
            "hint",
            model(kv_use=flat(0.1), running=flat(2), replicas=flat(1), cards=(card(), card(uuid="GPU-2"))),
            {},
        ),
        ("tensor_parallel", "hint", model(kv_use=flat(0.95), running=flat(50), waiting=flat(9), replicas=flat(1)), {}),
        ("prefix_cache", "hint", model(output_tokens=flat(10), prompt_tokens=flat(1000)), {}),
        (
            "right_size",
            "hint",
            model(cards=(card(power_watts=100.0, memory_used=0.2),), activities={"underused": flat(1.0)}),
            {},
        ),
        (
            "host_cpu",
            "bound",
            model(**(SERVED | {"output_tokens": [1e6 + hour for hour in HOURS]}), cpu=flat(3600 * 200)),
            {},
        ),
        ("data_loader", "bound", model("training", activities={"host_bound": flat(3.0), "mixed": flat(7.0)}), {}),
        ("checkpoint", "bound", model("training", activities={"idle": flat(3600 * 50), "mixed": flat(3600 * 350)}), {}),
        (
            "straggler",
            "bound",
            model("training", cards=(card(tensor_active=0.6), card(uuid="GPU-2", tensor_active=0.4))),
            {},
        ),
        ("mixed_precision", "hint", model("training", cards=(card(tensor_active=0.0),)), {}),
        ("move_in_time", "bound", model("training", active=RUN_AT_NIGHT, zone="DE"), {"zones": (DIRTY_NIGHTS,)}),
        ("move_in_region", "bound", model(zone="DE"), {"zones": (DIRTY_NIGHTS, CLEAN)}),
    ],
)
def test_a_lever_speaks(lever: str, level: str, facts: Facts, fleet: dict[str, Any]) -> None:
    finding = judge(lever, facts, **fleet)
    assert finding.level == level, finding.because
    if level == "hint":
        assert (finding.joules, finding.grams, finding.floor) == (None, None, 0.0)
    else:
        saved = finding.joules or finding.grams
        assert saved is not None
        assert 0 <= saved.low <= saved.middle <= saved.high
        assert saved.high > 0


@pytest.mark.parametrize(
    ("lever", "facts", "fleet", "reason"),
    [
        ("stop_idle", model(), {}, "without gaps of more than ten minutes"),
        (
            "stop_idle",
            model(quiet=[100 * s for s in NIGHT], quiet_seconds=NIGHT, running=flat(3.0)),
            {},
            "requests were running",
        ),
        ("stop_idle", model(active=(), idle=()), {}, "it holds no GPU"),
        ("free_gpus", Facts(Subject("node"), GRID, idle=flat(0.0)), {}, "0% of the time"),
        ("consolidate", model(), {}, "tokens are not counted"),
        ("consolidate", model(**SERVED, replicas=flat(1)), {}, "one replica"),
        ("consolidate", model(**SERVED, replicas=flat(4), waiting=flat(3)), {}, "requests wait"),
        ("consolidate", model(**SERVED, replicas=flat(4)), {}, "no replica ever had the load"),
        ("batch_limit", model(), {}, "no server metrics"),
        ("batch_limit", model(running=flat(32), waiting=flat(4), kv_use=flat(0.97)), {}, "memory is the limit"),
        ("batch_limit", model(running=flat(32), waiting=flat(4), cards=(card(power_watts=690.0),)), {}, "80 %"),
        ("power_cap", model(), {}, "a cap would not be reached"),
        ("power_cap", model(cards=()), {}, "not known"),
        ("clock_lock", model(activities={}), {}, "no activities"),
        ("clock_lock", model(), {}, "0% of its GPU joules are memory-bound"),
        ("precision", model(running=flat(8), activities={"compute_bound": flat(1.0)}), {}, "costs energy"),
        ("precision", model(running=flat(99), cards=(card(gpu_model="Tesla T4"),)), {}, "have no FP8"),
        ("tensor_parallel", model(), {}, "no server metrics"),
        ("tensor_parallel", model(kv_use=flat(0.1), running=flat(2), replicas=flat(1)), {}, "has one GPU"),
        ("prefix_cache", model(**SERVED), {}, "2.0 prompt tokens for each output token"),
        (
            "prefix_cache",
            model(output_tokens=flat(10), prompt_tokens=flat(1000), cached_tokens=flat(900)),
            {},
            "come from a cache already",
        ),
        ("mig", model(), {}, "busy 90% of the time"),
        ("mig", model(cards=(card(utilization=0.1, memory_used=0.2),)), {}, "no other small model"),
        ("right_size", model(), {}, "57% of the power"),
        ("right_size", model(activities={"idle": flat(9.0), "underused": flat(1.0)}), {}, "stop_idle comes first"),
        ("host_cpu", model(), {}, "CPU joules are"),
        (
            "host_cpu",
            model(
                output_tokens=[float(1 + hour % 24) for hour in HOURS], cpu=[9e5 * (1 + hour % 24) for hour in HOURS]
            ),
            {},
            "follow the load",
        ),
        ("data_loader", model(), {}, "no training run"),
        ("data_loader", model("training"), {}, "0% of its GPU joules are host-bound"),
        ("checkpoint", model("training"), {}, "no activities"),
        ("straggler", model("training"), {}, "it has one GPU"),
        (
            "straggler",
            model("training", cards=(card(tensor_active=None, dram_active=None), card(tensor_active=None))),
            {},
            "no tensor or DRAM activity",
        ),
        ("straggler", model("training", cards=(card(), card(uuid="GPU-2", tensor_active=0.38))), {}, "differ by 5%"),
        ("mixed_precision", model("training"), {}, "tensor cores are active 40%"),
        ("move_in_time", model(zone="DE"), {"zones": (DIRTY_NIGHTS,)}, "not known to be deferrable"),
        ("move_in_time", model("training", zone="DE"), {"zones": (DIRTY_NIGHTS,)}, "no other time"),
        ("move_in_time", model("training", active=RUN_AT_NIGHT), {"zones": (DIRTY_NIGHTS,)}, "not known"),
        ("move_in_time", model("training", active=RUN_AT_NIGHT, zone="SE"), {"zones": (CLEAN,)}, "no other hour"),
        ("move_in_region", model(zone="SE"), {"zones": (DIRTY_NIGHTS, CLEAN)}, "lower by a tenth"),
        ("move_in_region", model(zone="DE"), {"zones": (DIRTY_NIGHTS,)}, "no other zone"),
    ],
)
def test_a_lever_is_silent_with_a_reason(lever: str, facts: Facts, fleet: dict[str, Any], reason: str) -> None:
    finding = judge(lever, facts, **fleet)
    assert finding.level == "silent"
    assert reason in finding.because


def test_small_models_on_one_card_spare_the_others() -> None:
    small = card(utilization=0.1, memory_used=0.3)
    one = model(cards=(small,))
    other = replace(one, subject=one.subject._replace(name="n"))
    large = replace(one, subject=one.subject._replace(name="z"), cards=(replace(small, memory_used=0.7),))
    finding = judge("mig", one, others=(other, large))
    assert finding.joules is not None
    assert finding.joules.high == pytest.approx(sum(one.idle) / 2, rel=0.01)
    assert "room for n as well" in finding.because


def test_savings_above_an_empty_card_are_what_a_stop_spares() -> None:
    facts = model(quiet=[100 * seconds for seconds in NIGHT], quiet_seconds=NIGHT)
    finding = judge("stop_idle", facts, bare_watts={H100: 70.0})
    assert finding.joules is not None
    assert finding.joules.middle == pytest.approx(30.0 * sum(NIGHT))


def test_a_limit_that_was_tried_is_measured_at_equal_load() -> None:
    loads = [1e6 * (1 + 0.5 * math.sin(hour / 4)) for hour in HOURS]
    tried = [hour // 24 in range(2, 8) for hour in HOURS]
    active = [
        (0.5 * load + 4e5) * (0.8 if low else 1.0) * (1 + (hour // 24 % 5) / 1000)
        for hour, (load, low) in enumerate(zip(loads, tried, strict=True))
    ]
    limit = [300.0 if low else 400.0 for low in tried]
    facts = model(active=active, idle=flat(0.0), output_tokens=loads, power_limit=limit)
    finding = judge("power_cap", facts)
    assert finding.level == "measured"
    assert "300 W instead of 400 W" in finding.because
    assert finding.joules is not None
    now = sum(joules for joules, low in zip(active, tried, strict=True) if not low) * 14 / 8
    assert finding.joules.middle == pytest.approx(0.2 * now, rel=0.02)


def test_too_little_data_is_said_with_how_much_is_missing() -> None:
    short = Grid(GRID.start, 300.0, 4)
    facts = Facts(Subject("node"), short, idle=[1.0] * 4)
    assert judge("free_gpus", facts).because == "not enough data: 2 more blocks of 0.0833 h"


def test_what_has_ended_is_not_advised() -> None:
    ended = model(active=[1e6] * 100 + [0.0] * (GRID.length - 100), idle=flat(0.0), cpu=flat(0.0))
    advised = advise(Fleet(GRID, [ended]))
    assert advised.recommended == []
    assert {one.finding.because for one in advised.checked} == {
        "it used nothing in the last quarter of the window: it has ended"
    }


def test_every_lever_is_judged_and_says_something() -> None:
    advised = advise(Fleet(GRID, [model()]))
    assert {one.lever.name for one in (*advised.recommended, *advised.checked)} == {
        lever.name for lever in LEVERS if "model" in lever.about
    }
    assert all(one.finding.because for one in advised.checked)


def test_levers_are_whole() -> None:
    for lever in LEVERS:
        texts = (lever.title, lever.applies, lever.evidence, lever.counter_evidence, lever.would_change)
        assert all((*texts, lever.risk, lever.undo, lever.published)), lever.name
    assert len({lever.name for lever in LEVERS}) == len(LEVERS)


watts = st.floats(0.0, 700.0)


@settings(max_examples=25, deadline=None)
@given(
    days=st.lists(st.tuples(watts, watts, watts, st.floats(0.0, 1.0)), min_size=DAYS, max_size=DAYS),
    phase=st.sampled_from(["inference", "training"]),
    work=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    bare=st.one_of(st.none(), st.floats(0.0, 100.0)),
)
def test_savings_of_a_model_never_exceed_its_joules(
    days: list[tuple[float, float, float, float]], phase: str, work: tuple[float, float], bare: float | None
) -> None:
    active, idle, cpu, quiet = ([3600.0 * days[hour // 24][index] for hour in HOURS] for index in range(4))
    gaps = [share / 3600 * joules for share, joules in zip(quiet, idle, strict=True)]
    cards = tuple(card(uuid=f"GPU-{number}", tensor_active=share, utilization=0.1) for number, share in enumerate(work))
    facts = model(
        phase,
        active=active,
        idle=idle,
        cpu=cpu,
        quiet=gaps,
        quiet_seconds=quiet,
        activities={"host_bound": active, "idle": idle},
        cards=cards,
        zone="DE",
    )
    fleet = Fleet(GRID, [facts], {} if bare is None else {H100: bare}, (DIRTY_NIGHTS, CLEAN))
    advised = advise(fleet)
    month = 30 / DAYS
    saved = [one for one in advised.recommended if one.kwh]
    whole = facts.joules * month / JOULES_PER_KWH * DAYS * 86400 / max(facts.watched_seconds, 1)
    assert sum(one.kwh.high for one in saved if one.kwh) <= whole * (1 + 1e-9)
    of_idle = [one.kwh.high for one in saved if one.kwh and one.lever.pools == ("idle",)]
    assert sum(of_idle) <= whole * sum(idle) / max(facts.joules, 1e-9) * (1 + 1e-9)
    pools = [pool for one in advised.recommended if one.kwh or one.grams for pool in one.lever.pools]
    assert len(pools) == len(set(pools))


def test_a_clock_that_boosts_as_heat_allows_is_no_setting() -> None:
    loads = [1e6 * (1 + 0.5 * math.sin(hour / 4)) for hour in HOURS]
    hot = [hour % 3 == 0 for hour in HOURS]
    facts = model(
        active=[(0.5 * load + 4e5) * (0.8 if low else 1.0) for load, low in zip(loads, hot, strict=True)],
        output_tokens=loads,
        clock=[1.7e9 if low else 1.98e9 for low in hot],
    )
    assert judge("clock_lock", facts).level == "silent"


def test_a_clock_that_is_locked_counts_only_while_it_works() -> None:
    night = [hour % 24 < 8 for hour in HOURS]
    tried = [hour // 24 in range(2, 8) for hour in HOURS]
    loads = [0.0 if idle else 1e6 * (1 + 0.5 * math.sin(hour / 4)) for hour, idle in enumerate(night)]
    active = [
        (0.5 * load + 4e5) * (0.8 if low else 1.0) * (1 + (hour // 24 % 5) / 1000) if load else 0.0
        for hour, (load, low) in enumerate(zip(loads, tried, strict=True))
    ]
    clock = [2.1e8 if idle else 1.2e9 if low else 1.98e9 for idle, low in zip(night, tried, strict=True)]
    finding = judge("clock_lock", model(active=active, idle=flat(0.0), output_tokens=loads, clock=clock))
    assert finding.level == "measured"
    assert finding.joules is not None
    now = sum(joules for joules, low in zip(active, tried, strict=True) if not low) * 14 / 8
    assert finding.joules.middle == pytest.approx(0.2 * now, rel=0.02)


def test_a_limit_that_was_tried_for_too_few_days_says_how_many_are_missing() -> None:
    loads = [1e6 * (1 + 0.5 * math.sin(hour / 4)) for hour in HOURS]
    limit = [300.0 if hour // 24 in (2, 3) else 400.0 for hour in HOURS]
    finding = judge("power_cap", model(output_tokens=loads, power_limit=limit))
    assert finding.level == "silent"
    assert finding.because.endswith(
        "; a power limit of 300 W was tried for 2 blocks of 24 h, 4 more are needed to judge it"
    )
