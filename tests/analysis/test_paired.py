"""A comparison is seldom wrong, on servers of which the effect is known. All of it: `python -m benchmarks compare`."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.comparisons import BLOCK_SECONDS, SCENES, Traffic, blocks, outcomes
from exporter.analysis.paired import Block, compare, solve

SEEDS = range(5)
ENOUGH = (
    "canary, a day",
    "before and after, two days each",
    "before and after, drift of -3 % a day",
    "Simpson: A by night, B by day",
    "Simpson: A short prompts, B long ones",
)


@pytest.mark.parametrize("name", ENOUGH)
def test_it_finds_what_was_planted_and_nothing_else(name: str) -> None:
    """Of 5 seeds one at most is wrong where nothing was planted, and each tenth of the energy is found."""
    nothing = [found.verdict for found in outcomes(SCENES[name], 0.0, SEEDS)]
    assert nothing.count("saves") <= 1
    assert nothing.count("no difference seen") >= 4
    planted = outcomes(SCENES[name], 0.1, SEEDS)
    assert {found.verdict for found in planted} == {"saves"}
    assert sum(found.saving is not None and found.saving.covers(0.1) for found in planted) >= 4


def test_the_raw_figures_of_simpsons_trap_are_wrong() -> None:
    """Or the scenes would show nothing: by their sums alone, B seems to save a fifth."""
    for name in ("Simpson: A by night, B by day",):
        a, b = SCENES[name](Random(1), 0.0)
        per_token = [sum(block.joules for block in arm) / sum(block.work for block in arm) for arm in (a, b)]
        assert per_token[1] < 0.8 * per_token[0]


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_below_the_minimum_there_is_no_verdict(count: int) -> None:
    """Whatever the difference; and how many more blocks are needed is said."""
    random = Random(count)
    a, b = blocks(random, 0, count, Traffic()), blocks(random, 0, count, Traffic(), 0.5)
    found = compare(a, b, BLOCK_SECONDS)
    assert (found.verdict, found.saving) == ("not enough data", None)
    assert found.more_blocks >= 6 - count


def test_loads_without_partners() -> None:
    """Two arms that never had the same load cannot be compared, and more of the same would not help."""
    a, b = blocks(Random(1), 0, 200, Traffic(load=30)), blocks(Random(2), 0, 200, Traffic(load=3000))
    found = compare(a, b, BLOCK_SECONDS)
    assert (found.verdict, found.reason) == ("not enough data", "the arms ran at different loads or mixes")
    assert (found.more_blocks, found.paired_ratio) == (0, (0.0, 0.0))


def test_longer_answers_are_no_saving() -> None:
    """J by token falls with the length of answers: blocks with long ones count as such (both arms have both)."""
    arms: tuple[list[Block], list[Block]] = ([], [])
    random = Random(5)
    for arm, share in ((0, 0.2), (1, 0.8)):
        for part in range(48):
            length = 1000.0 if random.random() < share else 50.0
            arms[arm].extend(blocks(random, part * 6, 6, Traffic(length=length)))
    assert compare(*arms, BLOCK_SECONDS).verdict == "no difference seen"
    per_token = [sum(block.joules for block in arm) / sum(block.work for block in arm) for arm in arms]
    assert per_token[1] < 0.9 * per_token[0]


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_units_do_not_matter(factor: float) -> None:
    """Kilojoules or joules: the same share."""
    a, b = SCENES["canary, a day"](Random(3), 0.1)
    found, other = (
        compare(a, b, BLOCK_SECONDS),
        compare(
            [block._replace(joules=block.joules * factor) for block in a],
            [block._replace(joules=block.joules * factor) for block in b],
            BLOCK_SECONDS,
        ),
    )
    assert found.saving is not None
    assert other.saving == pytest.approx(found.saving)


def test_the_other_arm_first() -> None:
    """What B saves of A, A costs more than B."""
    a, b = SCENES["canary, a day"](Random(4), 0.1)
    found, turned = compare(a, b, BLOCK_SECONDS), compare(b, a, BLOCK_SECONDS)
    assert found.saving is not None
    assert turned.saving is not None
    assert turned.verdict == "costs more"
    assert (1 - turned.saving.middle) * (1 - found.saving.middle) == pytest.approx(1, rel=1e-9)


def test_a_likeness_of_neighbours_widens_the_interval() -> None:
    """The same scatter counts for less if each block resembles the one before."""
    widths = []
    for correlation in (0.0, 0.8):
        traffic = Traffic(correlation=correlation)
        random = Random(6)
        found = compare(blocks(random, 0, 288, traffic), blocks(random, 0, 288, traffic), BLOCK_SECONDS)
        assert found.saving is not None
        widths.append((found.saving.high - found.saving.low, min(found.effective_blocks)))
    assert widths[1][0] > 1.5 * widths[0][0]
    assert widths[1][1] < 0.5 * widths[0][1]


@given(
    st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_solve(rows: list[list[float]], wanted: list[float]) -> None:
    """A system of normal equations is solved, also if it does not determine everything."""
    matrix = [[sum(row[i] * row[j] for row in rows) for j in range(3)] for i in range(3)]
    right = [sum(line[j] * wanted[j] for j in range(3)) for line in matrix]
    found = solve(matrix, right)
    again = [sum(line[j] * found[j] for j in range(3)) for line in matrix]
    scale = 1e-4 * (1 + max(map(abs, right)))
    assert again == pytest.approx(right, abs=scale)


BLOCKS = st.lists(
    st.builds(
        Block,
        st.integers(0, 60).map(lambda number: number * BLOCK_SECONDS),
        st.floats(1e-3, 1e9),
        st.floats(1e-3, 1e6),
        st.floats(1e-3, 1e6),
        st.sampled_from([0.0, 0.1, 1.0, 7.0]),
        st.sampled_from([0.0, 10.0, 1000.0]),
    ),
    max_size=20,
    unique_by=lambda block: block.start,
).map(sorted)


@given(BLOCKS, BLOCKS)
def test_any_blocks_have_an_answer(a: list[Block], b: list[Block]) -> None:
    """A verdict with an interval around its middle, or that there is not enough data."""
    found = compare(a, b, BLOCK_SECONDS)
    assert (found.saving is None) == (found.verdict == "not enough data")
    if found.saving is not None:
        assert found.saving.low <= found.saving.middle <= found.saving.high
        assert min(found.blocks) >= 6
    assert found.more_blocks >= 0
    assert all(0 <= ratio <= 1.000001 for ratio in found.paired_ratio)
