"""fdinfo of GPU clients as drivers write it, and busy seconds from counters that step back, wrap and restart."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.host import FdBudget, KeptFile
from exporter.sources.drm.fdinfo import Engines, Stats, parse_fdinfo

AMDGPU = b"""pos:\t0
flags:\t02104002
mnt_id:\t24
ino:\t614
pasid:\t32784
drm-driver:\tamdgpu
drm-pdev:\t0000:08:00.0
drm-client-id:\t217
drm-memory-vram:\t2068 KiB
drm-memory-gtt: \t8192 KiB
drm-memory-cpu: \t0 KiB
amd-evicted-vram:\t0 KiB
drm-engine-gfx:\t107322799 ns
drm-engine-compute:\t5000 ns
"""
"""As a reader of amdgpu_top #87 showed it; idle engines are left out by this driver."""

I915 = b"""pos:\t0
flags:\t02100002
mnt_id:\t26
ino:\t284
drm-driver:\ti915
drm-client-id:\t39
drm-pdev:\t0000:00:02.0
drm-total-system0:\t6044 KiB
drm-resident-system0:\t6044 KiB
drm-resident-local0:\t5396348 KiB
drm-resident-stolen-local0:\t0
drm-engine-render:\t346249 ns
drm-engine-copy:\t0 ns
drm-engine-video:\t1000 ns
drm-engine-capacity-video:\t2
drm-engine-video-enhance:\t0 ns
"""
"""From proc_pid_fdinfo(5), with a card's local memory added."""

XE = b"""pos:    0
flags:  0100002
mnt_id: 26
ino:    685
drm-driver:     xe
drm-client-id:  3
drm-pdev:       0000:03:00.0
drm-total-system:       0
drm-total-vram0:        23992 KiB
drm-shared-vram0:       16 MiB
drm-active-vram0:       0
drm-resident-vram0:     23 MiB
drm-cycles-rcs: 28257900
drm-total-cycles-rcs:   7655183225
drm-cycles-bcs: 0
drm-total-cycles-bcs:   7655183225
drm-cycles-vcs: 0
drm-total-cycles-vcs:   7655183225
drm-engine-capacity-vcs:        2
drm-cycles-ccs: 0
drm-total-cycles-ccs:   7655183225
drm-engine-capacity-ccs:        4
"""
"""From Documentation/gpu/xe/xe-drm-usage-stats."""


def stats(busy: dict[str, int], clock: dict[str, int] | None = None, capacity: dict[str, int] | None = None) -> Stats:
    return Stats(1, "0000:03:00.0", busy, clock or {}, capacity or {}, 0)


def advance(before: Stats, after: Stats, elapsed: float = 1.0) -> float:
    return Engines(before, {}, from_zero=False).advance(after, elapsed)


# --- the text --------------------------------------------------------------------------------------------


def test_amdgpu() -> None:
    assert parse_fdinfo(AMDGPU) == Stats(
        217, "0000:08:00.0", {"gfx": 107_322_799, "compute": 5_000}, {}, {}, 2068 * 1024
    )


def test_i915() -> None:
    assert parse_fdinfo(I915) == Stats(
        39,
        "0000:00:02.0",
        {"render": 346_249, "copy": 0, "video": 1_000, "video-enhance": 0},
        {},
        {"video": 2},
        5_396_348 * 1024,
    )


def test_xe_counts_cycles_beside_a_clock() -> None:
    """drm-total-system and drm-total-vram0 are memory, drm-total-cycles-rcs is a clock."""
    found = parse_fdinfo(XE)
    assert found is not None
    assert (found.client, found.address) == (3, "0000:03:00.0")
    assert found.busy == {"rcs": 28_257_900, "bcs": 0, "vcs": 0, "ccs": 0}
    assert found.clock == dict.fromkeys(("rcs", "bcs", "vcs", "ccs"), 7_655_183_225)
    assert found.capacity == {"vcs": 2, "ccs": 4}
    assert found.vram_bytes == 23 * 1024**2


def test_nanoseconds_are_used_where_a_driver_reports_cycles_too() -> None:
    """msm writes both, and no clock for its cycles."""
    found = parse_fdinfo(b"drm-client-id: 3\ndrm-cycles-gpu: 77\ndrm-engine-gpu: 4000 ns\ndrm-maxfreq-gpu: 7 Hz\n")
    assert found is not None
    assert (found.busy, found.clock) == ({"gpu": 4000}, {})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"pos:\t0\nflags:\t02\nmnt_id:\t28\nino:\t1234\n",  # any other file
        b"pos:\t0\npdev:\t0000:08:00.0\npasid:\t32769\nvram mem:\t132 kB\ngfx0:\t12.5%\n",  # amdgpu, Linux 5.14 to 5.18
        b"drm-client-id: none\ndrm-engine-gfx: 5 ns\n",
    ],
)
def test_what_names_no_client_is_none(text: bytes) -> None:
    assert parse_fdinfo(text) is None


def test_lines_without_sense_are_passed_over() -> None:
    """Fault 13: a zero capacity is not allowed, a counter is a number of 64 bits at most."""
    text = b"drm-client-id: 3\ndrm-pdev:\ndrm-engine-gfx: -5 ns\ndrm-engine-dec\ndrm-engine-enc: 9 ns\n"
    found = parse_fdinfo(
        text + b"drm-engine-capacity-enc: 0\ndrm-engine-jpeg: " + b"9" * 5000 + b" ns\ndrm-: :\xff\0\n"
    )
    assert found == Stats(3, "", {"enc": 9}, {}, {"enc": 1}, 0)


@given(st.lists(st.sampled_from((AMDGPU + I915 + XE).split(b"\n")) | st.binary(max_size=40), max_size=40))
def test_no_text_breaks_it(lines: list[bytes]) -> None:
    found = parse_fdinfo(b"\n".join(lines))
    if found is not None:
        assert all(value >= 0 for value in (*found.busy.values(), *found.clock.values(), found.vram_bytes))
        assert all(value >= 1 for value in found.capacity.values())


# --- busy seconds ----------------------------------------------------------------------------------------


def test_nanoseconds() -> None:
    assert advance(stats({"gfx": 10**9}), stats({"gfx": 1_250_000_000})) == pytest.approx(0.25)


def test_an_engine_that_was_never_busy_before_counts_from_zero() -> None:
    """amdgpu shows an engine only when it has worked."""
    assert advance(stats({}), stats({"gfx": 250_000_000})) == pytest.approx(0.25)


def test_graphics_and_compute_add_up() -> None:
    """They run on the same units, one after the other or side by side on parts of them."""
    before, after = stats({"render": 0, "compute": 0}), stats({"render": 300_000_000, "compute": 200_000_000})
    assert advance(before, after) == pytest.approx(0.5)


def test_engines_beside_the_shaders_do_not_add_up() -> None:
    """A player that draws for 0.3 s while it decodes for 0.4 s was busy for 0.4 s, not for 0.7."""
    before, after = stats({"gfx": 0, "dec": 0, "dma": 0}), stats({"gfx": 3 * 10**8, "dec": 4 * 10**8, "dma": 10**8})
    assert advance(before, after) == pytest.approx(0.4)


def test_one_of_two_equal_engines_is_half_of_them() -> None:
    capacity = {"video": 2}
    assert advance(stats({"video": 0}, capacity=capacity), stats({"video": 10**9}, capacity=capacity)) == 0.5


def test_no_client_is_busy_for_longer_than_the_interval() -> None:
    """Eight compute rings of amdgpu are one class, without a capacity."""
    assert advance(stats({"compute": 0}), stats({"compute": 8 * 10**9})) == 1.0


def test_a_step_back_is_waited_out() -> None:
    """The kernel's document: stay with the larger value until a monotonic update is seen."""
    engines = Engines(stats({"render": 900_000_000}), {}, from_zero=False)
    assert engines.advance(stats({"render": 700_000_000}), 1.0) == 0.0
    assert engines.advance(stats({"render": 900_000_000}), 1.0) == 0.0
    assert engines.advance(stats({"render": 1_000_000_000}), 1.0) == pytest.approx(0.1)


def test_cycles_are_a_part_of_the_clock() -> None:
    before = stats({"ccs": 0}, {"ccs": 100}, {"ccs": 4})
    after = stats({"ccs": 19_200_000}, {"ccs": 19_200_100}, {"ccs": 4})
    assert advance(before, after) == pytest.approx(0.25)


def test_a_clock_that_wraps_is_stood_in_for_by_its_rate() -> None:
    """xe's timestamp has 36 bits: at 19.2 MHz it wraps once an hour."""
    hertz: dict[str, float] = {}
    engines = Engines(stats({"rcs": 0}, {"rcs": 2**36 - 19_200_000}), hertz, from_zero=False)
    assert engines.advance(stats({"rcs": 9_600_000}, {"rcs": 2**36 - 1}), 1.0) == pytest.approx(0.5)
    assert engines.advance(stats({"rcs": 19_200_000}, {"rcs": 5}), 1.0) == pytest.approx(0.5)
    assert engines.advance(stats({"rcs": 28_800_000}, {"rcs": 19_200_005}), 1.0) == pytest.approx(0.5)
    # a client that came meanwhile needs the rate for what it did before its first read
    assert Engines(stats({"rcs": 4_800_000}, {"rcs": 7}), hertz, from_zero=True).advance(
        stats({"rcs": 4_800_000}, {"rcs": 7}), 1.0
    ) == pytest.approx(0.25)


COUNTERS = st.dictionaries(st.sampled_from(["gfx", "compute", "dec", "rcs", "vcs"]), st.integers(0, 2**64), max_size=5)


@given(
    st.lists(st.tuples(COUNTERS, COUNTERS, st.floats(0, 100)), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from(["gfx", "dec", "vcs"]), st.integers(1, 8)),
    st.booleans(),
)
def test_busy_seconds_are_between_none_and_all(
    reads: list[tuple[dict[str, int], dict[str, int], float]], capacity: dict[str, int], from_zero: bool
) -> None:
    engines = Engines(stats(reads[0][0], reads[0][1], capacity), {}, from_zero=from_zero)
    for busy, clock, elapsed in reads:
        assert 0.0 <= engines.advance(stats(busy, clock, capacity), elapsed) <= elapsed


def test_a_kept_fdinfo_file_shows_present_values() -> None:
    """What the source relies on: reading it again from its start runs the kernel's show function again."""
    with open(__file__, "rb") as file:
        kept = KeptFile(f"/proc/self/fdinfo/{file.fileno()}", FdBudget(1))
        seen = []
        for _ in range(3):
            seen.append(kept.read().split()[1])
            os.read(file.fileno(), 10)
        kept.close()
    assert seen == [b"0", b"10", b"20"]
