"""Shares add up to the measured energy for any mix of workloads; an idle workload gets no active energy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.attribution import CpuIdle, Energy, Shares, countable, platform_choices, share, split_idle
from exporter.accounting.gpu_claims import Reservations
from exporter.accounting.joint_estimation import WEIGHT_RANGE
from exporter.records import (
    HOST,
    Allocation,
    CpuUse,
    Device,
    GpuUse,
    GroupKey,
    GroupUse,
    Place,
    Process,
    ProcessKey,
    Workload,
)
from tests.support.gpu_uses import known

CPU = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0)
DRAM = Device("dram-0", "dram", "rapl", "measured", "dram", 8.0)
GPU = Device("GPU-1", "gpu", "nvml", "measured", "gpu", 1.0)
A, B = GroupKey("/a", 1), GroupKey("/b", 2)


def process(pid: int) -> Process:
    return Process(ProcessKey(pid, 1), f"p{pid}")


def cpu_use(groups: dict[GroupKey, float], kernel: float = 0.0, exited: float = 0.0) -> CpuUse:
    uses = tuple(GroupUse(key, seconds, ()) for key, seconds in groups.items())
    return CpuUse(1.0, 1.0, sum(groups.values()) + kernel + exited, uses, kernel, exited)


def given_out(shares: Shares, cpu: CpuUse | None) -> float:
    """All joules a division hands out."""
    total = math.fsum(shares.unattributed.values()) + math.fsum(charge.joules for charge in shares.gpu)
    total += math.fsum(charge.joules for charge in shares.places)
    if cpu is not None:
        for rate in shares.cpu:
            total += math.fsum(
                group.seconds * shares.cpu_weights.get(group.group, 1.0) * (rate.active + rate.idle)
                for group in cpu.groups
            )
    return total


def test_idle_is_subtracted_not_scaled() -> None:
    """50 W idle and 100 W dynamic: a tenth of the work costs 10 J, not a tenth of 60 W."""
    energy = split_idle(CPU, 60.0, 1.0, 50.0)
    assert (energy.active, energy.idle) == (10.0, 50.0)


def test_less_than_idle_is_all_idle() -> None:
    energy = split_idle(CPU, 40.0, 1.0, 50.0)
    assert (energy.active, energy.idle) == (0.0, 40.0)


def test_unknown_idle_makes_everything_active() -> None:
    assert split_idle(CPU, 40.0, 1.0, None).active == 40.0


def test_cpu_by_busy_seconds_idle_stays_with_the_node() -> None:
    cpu = cpu_use({A: 3.0, B: 1.0}, kernel=0.5, exited=0.5)
    shares = share([Energy(CPU, 50.0, 20.0), Energy(DRAM, 5.0, 2.0)], cpu, ())
    rates = {rate.component: rate for rate in shares.cpu}
    assert rates["cpu"].active * 3.0 == 30.0
    assert rates["dram"].active * 1.0 == 1.0
    assert rates["cpu"].idle == 0.0
    assert shares.unattributed == {
        ("cpu", "kernel"): 5.0,
        ("cpu", "exited"): 5.0,
        ("cpu", "idle"): 20.0,
        ("dram", "kernel"): 0.5,
        ("dram", "exited"): 0.5,
        ("dram", "idle"): 2.0,
    }


def test_cpu_idle_proportional() -> None:
    shares = share([Energy(CPU, 50.0, 20.0)], cpu_use({A: 3.0, B: 1.0}), (), "proportional")
    assert shares.cpu[0].idle * 3.0 == 15.0
    assert not shares.unattributed


def test_weights_multiply_seconds_of_cgroups_and_leave_the_sum() -> None:
    """The kernel and exited processes weigh 1, and DRAM follows the CPU's weights."""
    cpu = cpu_use({A: 3.0, B: 1.0}, kernel=0.5, exited=0.5)
    shares = share([Energy(CPU, 60.0, 20.0), Energy(DRAM, 6.0, 0.0)], cpu, (), cpu_weights={A: 0.5, B: 3.5})
    rates = {rate.component: rate.active for rate in shares.cpu}
    assert rates == pytest.approx({"cpu": 10.0, "dram": 1.0})
    assert shares.unattributed["cpu", "kernel"] == shares.unattributed["cpu", "exited"] == pytest.approx(5.0)
    assert shares.cpu_weights == {A: 0.5, B: 3.5}
    assert given_out(shares, cpu) == pytest.approx(86.0)


def test_nobody_known_to_be_busy_is_unknown() -> None:
    shares = share([Energy(CPU, 5.0, 20.0)], None, ())
    assert shares.unattributed == {("cpu", "unknown"): 5.0, ("cpu", "idle"): 20.0}


def test_gpu_single_holder_gets_everything_even_without_samples() -> None:
    use = GpuUse(GPU.id, A, process(1), 0.0)
    shares = share([Energy(GPU, 200.0, 70.0)], None, [use])
    assert [(charge.mode, charge.joules) for charge in shares.gpu] == [("active", 200.0), ("idle", 70.0)]


def test_gpu_shared_by_activity_and_idle_by_hold() -> None:
    uses = [GpuUse(GPU.id, A, process(1), 0.6), GpuUse(GPU.id, B, process(2), 0.2), GpuUse(GPU.id, B, process(3), 0.0)]
    shares = share([Energy(GPU, 200.0, 60.0)], None, uses)
    active = {known(charge.use).key.pid: charge.joules for charge in shares.gpu if charge.mode == "active"}
    idle = {known(charge.use).key.pid: charge.joules for charge in shares.gpu if charge.mode == "idle"}
    assert active == pytest.approx({1: 150.0, 2: 50.0})
    assert idle == pytest.approx({1: 20.0, 2: 20.0, 3: 20.0})


def test_mig_idle_by_slices() -> None:
    uses = [GpuUse(GPU.id, A, process(1), 0.3, hold=3 / 7), GpuUse(GPU.id, B, process(2), 0.1, hold=1 / 7)]
    idle = [c.joules for c in share([Energy(GPU, 0.0, 80.0)], None, uses).gpu if c.mode == "idle"]
    assert idle == pytest.approx([60.0, 20.0])


def test_gpu_held_by_several_without_samples_is_unknown() -> None:
    """Fault 29: without samples the use of the card is unattributed."""
    uses = [GpuUse(GPU.id, A, process(1), 0.0), GpuUse(GPU.id, B, process(2), 0.0)]
    assert share([Energy(GPU, 200.0, 0.0)], None, uses).unattributed == {("gpu", "unknown"): 200.0}


def test_gpu_process_of_another_namespace_pays_for_itself() -> None:
    """Fault 28: use of an unknown process is unattributed, and not charged to its neighbour."""
    uses = [GpuUse(GPU.id, A, process(1), 0.25), GpuUse(GPU.id, None, None, 0.75)]
    shares = share([Energy(GPU, 100.0, 60.0)], None, uses)
    assert [(known(c.use).key.pid, c.mode, c.joules) for c in shares.gpu] == [(1, "active", 25.0), (1, "idle", 30.0)]
    assert shares.unattributed == {("gpu", "unknown"): 75.0, ("gpu", "idle"): 30.0}
    alone = share([Energy(GPU, 100.0, 60.0)], None, uses[1:])
    assert (alone.gpu, alone.unattributed) == ((), {("gpu", "unknown"): 100.0, ("gpu", "idle"): 60.0})


def test_gpu_held_by_nobody() -> None:
    assert share([Energy(GPU, 10.0, 70.0)], None, ()).unattributed == {("gpu", "exited"): 10.0, ("gpu", "idle"): 70.0}


UNREAD = GpuUse(GPU.id, None, process(9), 0.5)
"""A process whose cgroup cannot be read."""


def test_a_gpu_process_whose_cgroup_cannot_be_read_is_unknown() -> None:
    """Not the host's: the host is what no container, unit or job owns."""
    shares = share([Energy(GPU, 100.0, 60.0)], None, [UNREAD])
    assert (shares.gpu, shares.unattributed) == ((), {("gpu", "unknown"): 100.0, ("gpu", "idle"): 60.0})
    shares = share([Energy(GPU, 100.0, 60.0)], None, [UNREAD, GpuUse(GPU.id, A, process(1), 0.5)])
    assert [(known(c.use).key.pid, c.mode, c.joules) for c in shares.gpu] == [(1, "active", 50.0), (1, "idle", 30.0)]
    assert shares.unattributed == {("gpu", "unknown"): 50.0, ("gpu", "idle"): 30.0}


POD_A, POD_B, POD_C = ("ns", "a", "main"), ("ns", "b", "main"), ("ns", "c", "main")
UNNAMED = Workload(pod="0a1b", container="3f2e", runtime="kubernetes")
"""A pod of which only the ids are known."""


def owner(group: GroupKey) -> Workload:
    """``/a``, ``/b`` and ``/c`` are pods with a name, ``/unnamed…`` are pods without, the rest is the host's."""
    if group.path.startswith("/unnamed"):
        return UNNAMED
    place = {"/a": POD_A, "/b": POD_B, "/c": POD_C}.get(group.path)
    return HOST if place is None else Workload(*place, "kubernetes", "3f2e")


def owners(uses: Iterable[GpuUse]) -> dict[GroupKey, Workload]:
    return {use.group: owner(use.group) for use in uses if use.group is not None}


def given_to(*shares: tuple[Place, float]) -> list[Allocation]:
    return [Allocation(GPU.id, *place, weight) for place, weight in shares]


def holding(path: str, pid: int, seconds: float = 0.0, hold: float = 1.0) -> GpuUse:
    return GpuUse(GPU.id, GroupKey(path, 1), process(pid) if pid else None, seconds, hold)


def divided(
    energy: Energy, uses: list[GpuUse], given: list[Allocation], reserved: frozenset[Place] = frozenset()
) -> tuple[dict[object, float], Shares]:
    """Joules by pid or container and mode, zeros left out."""
    shares = share([energy], None, uses, "node", given, owners(uses), reserved=reserved)
    assert given_out(shares, None) == pytest.approx(energy.joules, rel=1e-12)
    found: dict[object, float] = {(known(c.use).key.pid, c.mode): c.joules for c in shares.gpu if c.joules}
    found |= {(c.place, c.mode): c.joules for c in shares.places if c.joules}
    return found, shares


def test_a_card_given_away_and_idle_is_charged_to_whom_it_was_given() -> None:
    found, shares = divided(Energy(GPU, 0.0, 60.0), [], given_to((POD_A, 1.0)))
    assert found == {(POD_A, "idle"): 60.0}
    assert not shares.unattributed


def test_its_processes_pay_instead_of_the_container() -> None:
    uses = [holding("/a", 1, 0.5), holding("/a", 2)]
    found, _ = divided(Energy(GPU, 100.0, 60.0), uses, given_to((POD_A, 1.0)))
    assert found == {(1, "active"): 100.0, (1, "idle"): 30.0, (2, "idle"): 30.0}


def test_idle_by_what_was_given_active_by_use() -> None:
    """One of two that share a card has two processes on it, the other none: it has half of the card all the same."""
    uses = [holding("/a", 1, 0.3), holding("/a", 2, 0.1)]
    found, _ = divided(Energy(GPU, 100.0, 60.0), uses, given_to((POD_A, 1.0), (POD_B, 1.0)))
    assert found == pytest.approx(
        {(1, "active"): 75.0, (2, "active"): 25.0, (1, "idle"): 15.0, (2, "idle"): 15.0, (POD_B, "idle"): 30.0}
    )


def test_replicas_and_slices_weigh() -> None:
    found, _ = divided(Energy(GPU, 0.0, 80.0), [], given_to((POD_A, 3 / 7), (POD_B, 1 / 7)))
    assert found == pytest.approx({(POD_A, "idle"): 60.0, (POD_B, "idle"): 20.0})
    found, _ = divided(Energy(GPU, 0.0, 80.0), [], given_to((POD_A, 2.0), (POD_B, 1.0), (POD_A, 1.0)))
    assert found == pytest.approx({(POD_A, "idle"): 60.0, (POD_B, "idle"): 20.0})


def test_who_was_given_nothing_has_a_claim_beside_them() -> None:
    uses = [holding("/a", 1), holding("/xorg", 2), holding("/c", 3)]
    found, _ = divided(Energy(GPU, 0.0, 90.0), uses, given_to((POD_A, 1.0)))
    assert found == pytest.approx({(1, "idle"): 30.0, (2, "idle"): 30.0, (3, "idle"): 30.0})


def test_another_runtimes_container_of_the_same_name_is_another() -> None:
    workload = Workload(*POD_A, "podman")
    shares = share(
        [Energy(GPU, 0.0, 60.0)],
        None,
        [holding("/x", 1)],
        "node",
        given_to((POD_A, 1.0)),
        {GroupKey("/x", 1): workload},
    )
    assert [(charge.place, charge.joules) for charge in shares.places] == [(POD_A, 30.0)]


def test_a_pod_without_a_name_is_one_of_those_that_were_given_the_card() -> None:
    found, _ = divided(Energy(GPU, 0.0, 60.0), [holding("/unnamed", 1)], given_to((POD_A, 1.0)))
    assert found == {(1, "idle"): 60.0}
    found, _ = divided(Energy(GPU, 0.0, 60.0), [holding("/unnamed", 1)], given_to((POD_A, 1.0), (POD_B, 1.0)))
    assert found == pytest.approx({(1, "idle"): 30.0, (POD_A, "idle"): 15.0, (POD_B, "idle"): 15.0})
    uses = [holding("/unnamed", 1), holding("/unnamed", 2), holding("/a", 3)]
    found, _ = divided(Energy(GPU, 0.0, 60.0), uses, given_to((POD_A, 1.0), (POD_B, 1.0)))
    assert found == pytest.approx({(3, "idle"): 30.0, (1, "idle"): 15.0, (2, "idle"): 15.0})
    found, _ = divided(Energy(GPU, 0.0, 60.0), [holding("/unnamed", 1), holding("/a", 2)], given_to((POD_A, 1.0)))
    assert found == pytest.approx({(1, "idle"): 30.0, (2, "idle"): 30.0}), "it is allocated to another container"


def test_the_only_container_on_a_card_pays_what_cannot_be_told() -> None:
    """Faults 28 and 29: the card is allocated to one container only, so its use is attributed there."""
    alone = given_to((POD_A, 1.0))
    hidden = GpuUse(GPU.id, None, None, 0.75)
    assert divided(Energy(GPU, 100.0, 60.0), [], alone)[0] == {(POD_A, "active"): 100.0, (POD_A, "idle"): 60.0}
    assert divided(Energy(GPU, 100.0, 60.0), [hidden], alone)[0] == {(POD_A, "active"): 100.0, (POD_A, "idle"): 60.0}
    assert divided(Energy(GPU, 100.0, 60.0), [UNREAD], alone)[0] == {(POD_A, "active"): 100.0, (POD_A, "idle"): 60.0}
    found, _ = divided(Energy(GPU, 100.0, 60.0), [hidden, holding("/a", 1, 0.25)], alone)
    assert found == {(1, "active"): 25.0, (POD_A, "active"): 75.0, (1, "idle"): 60.0}
    found, _ = divided(Energy(GPU, 100.0, 60.0), [holding("/a", 1), holding("/a", 2)], alone)
    assert found == {(POD_A, "active"): 100.0, (1, "idle"): 30.0, (2, "idle"): 30.0}


@pytest.mark.parametrize(
    ("given", "uses"),
    [
        (given_to((POD_A, 1.0), (POD_B, 1.0)), [GpuUse(GPU.id, None, None, 0.75)]),
        (given_to((POD_A, 1.0), (POD_B, 1.0)), [UNREAD]),
        (given_to((POD_A, 1.0), (POD_B, 1.0)), []),
        (given_to((POD_A, 1.0)), [holding("/a", 1), holding("/xorg", 2)]),
        (given_to((POD_A, 1.0)), [holding("/a", 1), holding("/unnamed", 2)]),
    ],
)
def test_where_it_could_be_somebody_else_nobody_pays(given: list[Allocation], uses: list[GpuUse]) -> None:
    """Faults 28 and 29. A card that is allocated is held: its user did not exit, but is unknown."""
    assert divided(Energy(GPU, 100.0, 0.0), uses, given)[1].unattributed == {("gpu", "unknown"): 100.0}


RESERVATION = ("kai-resource-reservation", "gpu-reservation-node1-abcde", "resource-reservation")
RESERVED = frozenset({RESERVATION})


@pytest.mark.parametrize("fractions", [1, 2])
def test_a_reservation_is_charged_nothing_beside_those_it_is_for(fractions: int) -> None:
    """kai-scheduler/KAI-Scheduler#464: the kubelet allocates the card to a pod that sleeps, fractions work on it."""
    uses = [holding(path, pid, 1.0) for pid, path in enumerate(("/a", "/b")[:fractions], start=1)]
    found, _ = divided(Energy(GPU, 30.0, 70.0), uses, given_to((RESERVATION, 1.0)), RESERVED)
    each = {"active": 30.0 / fractions, "idle": 70.0 / fractions}
    assert found == pytest.approx({(use.pid, mode): joules for use in uses for mode, joules in each.items()})


def asleep(seconds: float = 0.0) -> tuple[GpuUse, dict[GroupKey, Workload]]:
    """A process of the reservation that holds the card, and its owner."""
    use = holding("/reservation", 8, seconds)
    return use, {GroupKey("/reservation", 1): Workload(*RESERVATION, "kubernetes", "3f2e")}


def test_a_reservation_alone_is_charged_nothing_either() -> None:
    """It holds the card for others, of which none is seen: its idle energy is no workload's."""
    found, shares = divided(Energy(GPU, 30.0, 70.0), [], given_to((RESERVATION, 1.0)), RESERVED)
    assert found == {}
    assert shares.unattributed == {("gpu", "unknown"): 30.0, ("gpu", "idle"): 70.0}
    use, owned = asleep()
    shares = share([Energy(GPU, 30.0, 70.0)], None, [use], "node", given_to((RESERVATION, 1.0)), owned, None, RESERVED)
    assert (shares.gpu, shares.places) == ((), ())
    assert shares.unattributed == {("gpu", "unknown"): 30.0, ("gpu", "idle"): 70.0}


def test_a_reservation_that_works_owes_what_it_used() -> None:
    """A label is chosen by whom it names: it spares idle energy, never active energy."""
    use, owned = asleep(0.5)
    shares = share([Energy(GPU, 30.0, 70.0)], None, [use], "node", given_to((RESERVATION, 1.0)), owned, None, RESERVED)
    assert [(charge.mode, charge.joules) for charge in shares.gpu] == [("active", 30.0)]
    assert shares.unattributed == {("gpu", "idle"): 70.0}


def test_a_sleeping_reservation_leaves_a_single_holder_single() -> None:
    """Without samples, a card with one holder is that one's; the process of a reservation does not count."""
    use, owned = asleep()
    worker = holding("/a", 1)
    shares = share(
        [Energy(GPU, 30.0, 70.0)],
        None,
        [use, worker],
        "node",
        given_to((RESERVATION, 1.0)),
        owned | owners([worker]),
        reserved=RESERVED,
    )
    assert [(known(c.use).key.pid, c.mode, c.joules) for c in shares.gpu] == [(1, "active", 30.0), (1, "idle", 70.0)]


def test_unknown_use_of_a_reserved_card_is_not_its_other_owners() -> None:
    both = given_to((RESERVATION, 1.0), (POD_A, 1.0))
    found, shares = divided(Energy(GPU, 30.0, 70.0), [], both, RESERVED)
    assert (found, shares.unattributed) == ({(POD_A, "idle"): 70.0}, {("gpu", "unknown"): 30.0})


def test_a_reservation_beside_hidden_processes_and_beside_an_allocation() -> None:
    hidden = GpuUse(GPU.id, None, None, 0.5)
    found, shares = divided(Energy(GPU, 30.0, 70.0), [hidden], given_to((RESERVATION, 1.0)), RESERVED)
    assert (found, shares.unattributed) == ({}, {("gpu", "unknown"): 30.0, ("gpu", "idle"): 70.0})
    both = given_to((RESERVATION, 1.0), (POD_A, 1.0))
    found, _ = divided(Energy(GPU, 0.0, 70.0), [holding("/a", 1), holding("/b", 2)], both, RESERVED)
    assert found == pytest.approx({(1, "idle"): 35.0, (2, "idle"): 35.0})


def test_patterns_of_reservations() -> None:
    places = {
        RESERVATION: True,
        ("kai-resource-reservation-2", "p", "c"): False,
        ("slurm", "launcher-7", "c"): True,
        ("slurm", "step-7", "c"): False,
    }
    reservations = Reservations(("kai-resource-reservation", "slurm/launcher-*"))
    found = reservations.places(given_to(*((place, 1.0) for place in places)), lambda _: {})
    assert found == {place for place, reserved in places.items() if reserved}


def test_reservations_by_label() -> None:
    """A reservation in a namespace of one's own: KAI labels it app=kai-resource-reservation."""
    labels: dict[Place, dict[str, str]] = {POD_A: {"app": "kai-resource-reservation"}, POD_B: {"app": "kai", "x": ""}}
    given = given_to((POD_A, 1.0), (POD_B, 1.0), (POD_C, 1.0), (RESERVATION, 1.0))
    reservations = Reservations(("kai-*", "app=*-reservation"))
    assert reservations.places(given, labels.get) == {POD_A, RESERVATION}
    labels[POD_C] = {"app": "runai-reservation"}
    assert reservations.places(given, labels.get) == {POD_A, POD_C, RESERVATION}, "its name was late"
    assert reservations.places(given_to((POD_B, 1.0)), labels.get) == frozenset()
    assert Reservations(("kai-*",)).places(given, labels.get) == {RESERVATION}


def test_a_card_given_to_nobody_is_divided_as_ever() -> None:
    uses = [holding("/a", 1, 0.5), GpuUse(GPU.id, None, None, 0.0)]
    energy = Energy(GPU, 100.0, 60.0)
    elsewhere = [Allocation("GPU-2", *POD_B)]
    assert share([energy], None, uses, "node", elsewhere, owners(uses)) == share([energy], None, uses)


def test_nested_meters_are_never_summed() -> None:
    """Fault 16: package and DRAM stand beside each other inside psys; core stands inside package."""
    psys = Device("psys-0", "platform", "rapl", "measured", "psys", 8.0)
    psys1 = Device("psys-1", "platform", "rapl", "measured", "psys", 8.0)
    package = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0, within="psys-0")
    core = Device("core-0", "cpu", "rapl", "measured", "core", 8.0, within="package-0")
    dram = Device("dram-0", "dram", "rapl", "measured", "dram", 8.0, within="psys-0")
    lost = Device("x", "cpu", "hwmon", "measured", "x", 8.0, within="gone")
    devices = [psys, psys1, package, core, dram, lost]
    assert [device.id for device in countable(devices)] == ["package-0", "dram-0", "x"]
    assert platform_choices(devices) == [[psys], [psys1]]


def test_enclosing_each_other_ends() -> None:
    a = Device("a", "cpu", "x", "measured", "a", 1.0, within="b")
    b = Device("b", "cpu", "x", "measured", "b", 1.0, within="a")
    assert countable([a, b]) == []


# No meter has less than a microjoule, and the kernel no less than a nanosecond.
joules = st.just(0.0) | st.floats(1e-6, 1e6)
seconds = st.just(0.0) | st.floats(1e-9, 256.0)


@given(
    st.lists(st.tuples(joules, joules, joules), min_size=1, max_size=3),
    st.lists(seconds, max_size=6),
    seconds,
    seconds,
    st.lists(st.tuples(seconds, st.floats(0.01, 1.0), st.sampled_from([A, None])), max_size=5),
    st.sampled_from(get_args(CpuIdle)),
    st.lists(st.floats(*WEIGHT_RANGE), max_size=6),
)
def test_every_joule_is_given_out_once(
    energies: list[tuple[float, float, float]],
    groups: list[float],
    kernel: float,
    exited: float,
    holders: list[tuple[float, float, GroupKey | None]],
    cpu_idle: CpuIdle,
    weights: list[float],
) -> None:
    devices = [CPU, DRAM, GPU]
    parted = [Energy(device, *energy) for device, energy in zip(devices, energies, strict=False)]
    cpu = cpu_use({GroupKey(f"/{i}", i): s for i, s in enumerate(groups)}, kernel, exited)
    uses = [GpuUse(GPU.id, group, process(i), s, hold) for i, (s, hold, group) in enumerate(holders)]
    cpu_weights = {GroupKey(f"/{i}", i): weight for i, weight in enumerate(weights)}
    shares = share(parted, cpu, uses, cpu_idle, cpu_weights=cpu_weights)
    total = math.fsum(energy.joules for energy in parted)
    assert given_out(shares, cpu) == pytest.approx(total, rel=1e-12, abs=1e-12)
    assert all(charge.joules >= 0 for charge in shares.gpu)
    assert all(value >= 0 for value in shares.unattributed.values())
    assert all(rate.active >= 0 and rate.idle >= 0 for rate in shares.cpu)


places = st.sampled_from([POD_A, POD_B, POD_C])
holders_of_a_card = st.lists(
    st.builds(
        holding,
        st.sampled_from(["/a", "/b", "/c", "/unnamed1", "/unnamed2", "/host"]),
        st.integers(0, 9),
        st.one_of(st.just(0.0), seconds),
        st.one_of(st.just(0.0), st.floats(0.01, 1.0)),
    ),
    max_size=6,
    unique_by=lambda use: use.pid,
)


@given(
    joules,
    joules,
    holders_of_a_card,
    st.lists(st.tuples(places, st.floats(0.01, 8.0)), max_size=5),
    st.randoms(use_true_random=False),
)
def test_a_card_given_away_is_given_out_once_in_any_order(
    active: float, idle: float, uses: list[GpuUse], given: list[tuple[Place, float]], random: Random
) -> None:
    energy = Energy(GPU, active, idle)
    found, shares = divided(energy, uses, given_to(*given))
    assert all(joules >= 0 for joules in found.values())
    assert all(value >= 0 for value in shares.unattributed.values())
    shuffled, given_anew = list(uses), list(given)
    random.shuffle(shuffled)
    random.shuffle(given_anew)
    again, other = divided(energy, shuffled, given_to(*given_anew))
    assert again == pytest.approx(found, rel=1e-9, abs=1e-9)
    assert other.unattributed == pytest.approx(shares.unattributed, rel=1e-9, abs=1e-9)
    if given:
        assert shares.unattributed.get(("gpu", "idle"), 0.0) == 0.0, (
            "idle energy is attributed to the container with the allocation"
        )
