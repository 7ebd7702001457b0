"""The simulated node keeps every promise of a source, and its joules are exactly what its workloads caused."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import pytest

from exporter.records import HOST, Component, EnergyReading, GpuState, GroupKey, Process, Reading
from exporter.sources.demo.hardware import PLATFORM, meters
from exporter.sources.demo.source import DemoSource
from exporter.sources.protocol import Source
from exporter.workloads.namer import WorkloadNamer
from exporter.workloads.protocol import Namer
from tests.support.gpu_uses import known
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

T0 = 5000.0
IDLE_WATTS = {meter.device.id: meter.idle_watts for meter in meters()}


def run(source: DemoSource, steps: int, interval: float = 1.0) -> list[Reading]:
    """The first reading and one after each step."""
    return [source.read(T0 + step * interval) for step in range(steps + 1)]


@pytest.fixture(scope="module")
def played() -> tuple[DemoSource, list[Reading]]:
    """Half an hour: a whole demo day."""
    source = DemoSource()
    return source, run(source, 1800)


def joules(before: Reading, after: Reading) -> dict[str, float]:
    """Joules of every device between two readings, wraps undone."""
    spent = {}
    for old, new in zip(before.meters, after.meters, strict=True):
        assert isinstance(old, EnergyReading)
        assert isinstance(new, EnergyReading)
        step = new.joules - old.joules
        if step < 0:
            assert new.wraps_at is not None
            step += new.wraps_at
        spent[new.device.id] = step
    return spent


def total(readings: list[Reading]) -> dict[str, float]:
    summed: defaultdict[str, float] = defaultdict(float)
    for before, after in pairwise(readings):
        for device, step in joules(before, after).items():
            summed[device] += step
    return summed


def cards(readings: Iterable[Reading], index: str, instance: str = "") -> list[GpuState]:
    return [gpu for reading in readings for gpu in reading.gpus if (gpu.index, gpu.gpu_instance) == (index, instance)]


def test_it_is_a_source_and_a_namer() -> None:
    source: Source = DemoSource()
    namer: Namer = DemoSource()
    assert source.name == "demo"
    assert namer.workload(GroupKey("/nobody", 1)) == HOST
    source.close()


# --- determinism and time ---------------------------------------------------------------------------------------------


def test_same_seed_and_steps_give_the_same_readings_whatever_the_jitter() -> None:
    steady, shaky = DemoSource(seed=7), DemoSource(seed=7)
    for step in range(200):
        jitter = (step % 5 - 2) * 0.2 if step else 0.0
        assert steady.read(T0 + step) == shaky.read(T0 + step + jitter)
    assert steady.truth() == shaky.truth()


def test_another_seed_gives_another_node() -> None:
    one, two = DemoSource(seed=1), DemoSource(seed=2)
    assert run(one, 3)[-1].meters != run(two, 3)[-1].meters
    ids = [{one.workload(group).container_id for group in one.truth() if group} for one in (one, two)]
    assert ids[0] & ids[1] == {""}


def test_skipped_ticks_are_made_up_for_and_nothing_is_lost() -> None:
    every, some = DemoSource(), DemoSource()
    run(every, 600)
    readings = [some.read(T0 + step) for step in (0, 1, 2, 7, 40, 399, 400, 600)]
    assert every.truth() == some.truth()
    windows = [reading.cpu.window_seconds for reading in readings if reading.cpu]
    assert windows == [0, 1, 1, 5, 33, 359, 1, 200]


def test_gpu_ratios_are_means_over_the_window_and_unknown_without_one() -> None:
    every, once = DemoSource(), DemoSource()
    readings = run(every, 100)
    first, late = once.read(T0), once.read(T0 + 100)
    assert {(gpu.utilization_ratio, gpu.dram_active_ratio) for gpu in first.gpus} == {(None, None)}
    for index, gpu in enumerate(late.gpus):
        for ratio in ("utilization_ratio", "sm_active_ratio", "tensor_active_ratio", "dram_active_ratio"):
            mean = sum(getattr(reading.gpus[index], ratio) for reading in readings[1:]) / 100
            assert getattr(gpu, ratio) == pytest.approx(mean, abs=1e-12)
    assert [gpu.throttle_seconds for gpu in late.gpus] == [gpu.throttle_seconds for gpu in readings[-1].gpus]


def test_readings_are_dated_by_simulated_time() -> None:
    source = DemoSource(interval=0.5)
    source.read(T0)
    reading = source.read(T0 + 1.6)
    assert {meter.at for meter in reading.meters} == {T0 + 1.5}
    assert reading.cpu is not None
    assert (reading.cpu.at, reading.cpu.window_seconds) == (T0 + 1.5, 1.5)


def test_a_read_before_the_next_step_has_no_news_and_loses_none() -> None:
    source = DemoSource()
    first, second = source.read(T0), source.read(T0 + 1)
    early = source.read(T0 + 1.2)
    assert (early.meters, early.cpu, early.gpu_uses) == ((), None, ())
    assert early.gpus == second.gpus
    other = DemoSource()
    assert [first, second, source.read(T0 + 2)] == run(other, 2)


def test_power_does_not_depend_on_the_interval() -> None:
    slow, fast = total(run(DemoSource(interval=2.0), 300, 2.0)), total(run(DemoSource(interval=0.5), 1200, 0.5))
    for device, spent in slow.items():
        assert spent == pytest.approx(fast[device], rel=0.02)


# --- use of the CPUs --------------------------------------------------------------------------------------------------


def test_first_read_announces_every_group_and_charges_none(played: tuple[DemoSource, list[Reading]]) -> None:
    first = played[1][0]
    assert first.cpu is not None
    assert len(first.cpu.started) > 15
    assert (first.cpu.busy_seconds, first.cpu.groups, first.cpu.ended) == (0.0, (), ())
    assert first.gpu_uses
    assert {use.seconds for use in first.gpu_uses} == {0.0}
    assert {meter.at for meter in first.meters} == {T0}


def test_cpu_seconds_add_up_and_fit_the_machine(played: tuple[DemoSource, list[Reading]]) -> None:
    for reading in played[1][1:]:
        cpu = reading.cpu
        assert cpu is not None
        of_groups = sum(group.seconds for group in cpu.groups)
        assert cpu.busy_seconds == pytest.approx(of_groups + cpu.kernel_seconds + cpu.exited_seconds, rel=1e-12)
        assert sum(reading.socket_busy_seconds.values()) == pytest.approx(cpu.busy_seconds, rel=1e-12)
        assert all(0 < seconds <= 32.0 for seconds in reading.socket_busy_seconds.values())
        assert min(cpu.kernel_seconds, cpu.exited_seconds) > 0
        for group in cpu.groups:
            assert group.seconds > 0
            assert sum(use.seconds for use in group.processes) <= group.seconds
        assert len({group.group for group in cpu.groups}) == len(cpu.groups)


def test_groups_are_known_from_birth_to_death(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    alive: set[GroupKey] = set()
    members: defaultdict[GroupKey, set[Process]] = defaultdict(set)
    gone: set[GroupKey] = set()
    for reading in readings:
        assert reading.cpu is not None
        assert not alive & set(reading.cpu.started)
        alive |= set(reading.cpu.started)
        assert {group.group for group in reading.cpu.groups} <= alive
        assert {use.group for use in reading.gpu_uses} <= alive
        for group in reading.cpu.groups:
            members[group.group] |= {use.process for use in group.processes}
        exited = {process.key for group in reading.cpu.ended for process in members.pop(group)}
        assert exited == set(reading.cpu.exited)
        assert set(reading.cpu.ended) <= alive
        alive -= set(reading.cpu.ended)
        gone |= set(reading.cpu.ended)
    assert alive == set(source.truth()) - {None}
    assert len(gone) == pytest.approx(1800 / 150 + 1800 / 120 + 1800 / 900, abs=1)
    assert all(source.workload(group).namespace.startswith("team-") for group in gone)


def test_identities_are_never_used_twice(played: tuple[DemoSource, list[Reading]]) -> None:
    started = [group for reading in played[1] if reading.cpu for group in reading.cpu.started]
    assert len(set(started)) == len(started)
    assert len({group.path for group in started}) == len(started)
    exited = [key for reading in played[1] if reading.cpu for key in reading.cpu.exited]
    assert len({key.pid for key in exited}) == len(exited)
    assert all(len(known(use).comm.encode()) <= 15 for reading in played[1] for use in reading.gpu_uses)


# --- energy -----------------------------------------------------------------------------------------------------------


def test_devices_give_idle_power_plus_exactly_what_was_caused(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    spent = total(readings)
    caused: defaultdict[Component, float] = defaultdict(float)
    for account in source.truth().values():
        for component, amount in account.items():
            caused[component] += amount
    for component in ("cpu", "dram", "gpu"):
        devices = {meter.device.id for meter in readings[0].meters if meter.device.component == component}
        active = sum(spent[device] - IDLE_WATTS[device] * 1800 for device in devices)
        assert active == pytest.approx(caused[component], rel=1e-9)
        assert active > 0


def test_an_attribution_by_busy_seconds_finds_the_truth(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    found: defaultdict[GroupKey, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for before, after in pairwise(readings):
        spent = joules(before, after)
        assert after.cpu is not None
        for component, names in (("cpu", ("package-0", "package-1")), ("dram", ("dram-0", "dram-1"))):
            active = sum(spent[name] - IDLE_WATTS[name] for name in names)
            for group in after.cpu.groups:
                found[group.group][component] += active * group.seconds / after.cpu.busy_seconds
        busy: defaultdict[str, float] = defaultdict(float)
        for use in after.gpu_uses:
            busy[use.device] += use.seconds
        for use in after.gpu_uses:
            assert use.group is not None
            if use.seconds:
                share = use.seconds / busy[use.device]
                found[use.group]["gpu"] += (spent[use.device] - IDLE_WATTS[use.device]) * share
    for key, truth in source.truth().items():
        if key is not None:
            assert {name: found[key][name] for name in truth} == pytest.approx(truth, rel=1e-6, abs=1e-3)


def test_the_platform_meter_includes_everything(played: tuple[DemoSource, list[Reading]]) -> None:
    for before, after in pairwise(played[1]):
        spent = joules(before, after)
        rest = spent[PLATFORM] - sum(amount for device, amount in spent.items() if device != PLATFORM)
        assert 190 <= rest <= 500
    assert {meter.device.within for meter in played[1][0].meters if meter.device.id != PLATFORM} == {PLATFORM}


def test_power_stays_below_what_devices_can_draw(played: tuple[DemoSource, list[Reading]]) -> None:
    for before, after in pairwise(played[1]):
        spent = joules(before, after)
        for meter in after.meters:
            assert IDLE_WATTS[meter.device.id] - 1e-6 <= spent[meter.device.id] < meter.device.max_watts
        for gpu in after.gpus:
            if gpu.power_limit_watts is not None:
                assert spent[gpu.uuid] <= gpu.power_limit_watts + 1e-6


def test_package_counters_wrap_and_gpu_counters_do_not(played: tuple[DemoSource, list[Reading]]) -> None:
    readings = played[1]
    fell: defaultdict[str, int] = defaultdict(int)
    for before, after in pairwise(readings):
        for old, new in zip(before.meters, after.meters, strict=True):
            assert isinstance(old, EnergyReading)
            assert isinstance(new, EnergyReading)
            fell[new.device.id] += new.joules < old.joules
            assert new.wraps_at is None or 0 <= new.joules < new.wraps_at
    assert fell["package-0"] >= 1
    assert fell["package-1"] >= 1
    assert fell[PLATFORM] >= 10
    assert [fell[meter.device.id] for meter in readings[0].meters if meter.device.component == "gpu"] == [0] * 8


# --- what is to be seen -----------------------------------------------------------------------------------------------


def holders(reading: Reading, index: str) -> list[GroupKey | None]:
    (uuid,) = {gpu.uuid for gpu in reading.gpus if gpu.index == index}
    return [use.group for use in reading.gpu_uses if use.device == uuid]


def test_gpu_0_trains_alone_with_dips_and_is_held_down_by_its_power_limit(
    played: tuple[DemoSource, list[Reading]],
) -> None:
    source, readings = played
    (group,) = holders(readings[-1], "0")
    assert group is not None
    model = source.model(group, known(readings[-1].gpu_uses[0]))
    assert model is not None
    assert (model.phase, model.namespace) == ("training", "team-nlp")
    busy = [state.utilization_ratio or 0.0 for state in cards(readings[1:], "0")]
    assert sum(ratio == 1.0 for ratio in busy) > 1200
    assert sum(0.4 < ratio < 0.5 for ratio in busy) > 100
    assert sum(ratio < 0.05 for ratio in busy) == pytest.approx(120, abs=5)
    states = cards(readings, "0")
    for reason in ("sw_power_cap", "hw_thermal_slowdown"):
        seconds = [dict(state.throttle_seconds)[reason] for state in states]
        assert seconds == sorted(seconds)
        assert 0 == seconds[0] < 100 < seconds[-1] < 1800
    clocks = [dict(state.clock_hertz)["sm"] for state in states]
    assert min(clocks) < max(clocks)
    assert max(state.temperature_celsius or 0.0 for state in states) > 83


def test_gpu_1_is_shared_by_two_models_of_different_load(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    process = known(readings[0].gpu_uses[0])
    groups = holders(readings[-1], "1")
    names = {model.model_name for group in groups if (model := source.model(group, process))}
    assert len(groups) == len(names) == 2
    used = sorted(source.truth()[group]["gpu"] for group in groups)
    assert used[1] > 1.5 * used[0] > 0
    assert all(0 <= (state.utilization_ratio or 0.0) <= 1 + 1e-12 for state in cards(readings, "1"))


def test_gpu_2_is_split_into_instances_of_three_tenants(played: tuple[DemoSource, list[Reading]]) -> None:
    readings = played[1]
    instances = {gpu.gpu_instance for gpu in readings[-1].gpus if gpu.index == "2"} - {""}
    assert len(instances) == 3
    (uuid,) = {gpu.uuid for gpu in readings[-1].gpus if gpu.index == "2"}
    for reading in readings[1:]:
        uses = [use for use in reading.gpu_uses if use.device == uuid]
        assert sorted(use.hold for use in uses) == pytest.approx([1 / 7, 2 / 7, 3 / 7])
        assert all(use.seconds <= use.hold for use in uses)
        (card,) = cards([reading], "2")
        assert card.utilization_ratio == pytest.approx(sum(use.seconds for use in uses))
    means = sorted(
        sum(state.utilization_ratio or 0.0 for state in cards(readings, "2", part)) / len(readings)
        for part in instances
    )
    assert 0 < means[0] < 0.1 < means[1] < means[2] - 0.1


def test_gpu_3_is_held_by_a_model_without_requests(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    (group,) = holders(readings[-1], "3")
    assert group is not None
    assert source.model(group, known(readings[0].gpu_uses[0])) is not None
    assert source.truth()[group]["gpu"] == 0
    assert source.truth()[group]["cpu"] > 0
    assert min(state.memory_used_bytes or 0.0 for state in cards(readings, "3")) > 60e9
    assert total(readings)[cards(readings, "3")[0].uuid] == pytest.approx(70.0 * 1800)


def test_gpu_4_was_given_to_a_pod_that_runs_nothing_on_it(played: tuple[DemoSource, list[Reading]]) -> None:
    readings = played[1]
    assert all(holders(reading, "4") == [] for reading in readings)
    assert readings[0].allocations is not None
    (given,) = (allocation for allocation in readings[0].allocations if allocation.gpu == "4")
    assert (given.namespace, given.pod) == ("team-research", "lena-notebook-0")


def test_gpus_5_and_6_carry_one_model_together(played: tuple[DemoSource, list[Reading]]) -> None:
    readings = played[1]
    assert holders(readings[-1], "5") == holders(readings[-1], "6") != []
    for five, six in zip(cards(readings[1:], "5"), cards(readings[1:], "6"), strict=True):
        assert (five.utilization_ratio or 0.0) == pytest.approx(six.utilization_ratio, rel=0.1)


def test_gpu_7_is_free_between_two_runs_and_its_memory_is_worn(played: tuple[DemoSource, list[Reading]]) -> None:
    readings = played[1]
    given = [{one.pod for one in reading.allocations or () if one.gpu == "7"} for reading in readings]
    assert set.union(*given) == {"pythia-sweep-0", "pythia-sweep-1"}
    assert sum(not pods for pods in given) == pytest.approx(360, abs=2)
    late = sum(len(holders(reading, "7")) != len(pods) for reading, pods in zip(readings, given, strict=True))
    assert late <= 2, "what a run did in its last second is told when it is gone"
    states = cards(readings, "7")
    assert (states[0].xid_errors, states[0].last_xid) == (0, None)
    assert (states[-1].xid_errors, states[-1].last_xid) == (3, 63)
    errors = [dict(state.ecc_errors)["corrected"] for state in states]
    assert errors == sorted(errors)
    assert errors[-1] - errors[0] == 200
    assert dict(states[0].memory_repair) == {"pending": 1, "failed": 0}
    assert all(dict(state.memory_repair) == {"pending": 0, "failed": 0} for state in cards(readings, "0"))


def test_every_card_and_instance_in_use_was_given_to_its_pod(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    for reading in readings[::100]:
        given = {(one.device, one.namespace, one.pod, one.container) for one in reading.allocations or ()}
        used = {(use.device, *source.workload(use.group)[:3]) for use in reading.gpu_uses if use.group}
        assert used < given


def test_pods_have_owners_and_chosen_labels(played: tuple[DemoSource, list[Reading]]) -> None:
    source, _ = played
    pods = [owner for group in source.truth() if group and (owner := source.workload(group)).pod]
    assert {pod.owner_kind for pod in pods} >= {"Deployment", "StatefulSet", "Job"}
    assert {dict(pod.labels).get("cost-center") for pod in pods} >= {"1201", "1340", "1422", None}
    assert all("{" not in f"{pod.owner_name}{pod.labels}" and dict(pod.labels)["app"] for pod in pods)


def test_counter_and_gauge_of_a_card_agree(played: tuple[DemoSource, list[Reading]]) -> None:
    seen = defaultdict(set)
    for reading in played[1][1:]:
        for meter in reading.meters:
            assert isinstance(meter, EnergyReading)
            seen[meter.device.component].add(meter.agreement_ratio)
    assert {component for component, ratios in seen.items() if ratios != {None}} == {"gpu"}
    assert all(0.95 < (ratio or 0.0) < 1.05 for ratio in seen["gpu"])
    assert len(seen["gpu"]) == 8 * 6


def test_every_card_reports_all_it_should(played: tuple[DemoSource, list[Reading]]) -> None:
    for index in "01234567":
        state = cards(played[1], index)[-1]
        for ratio in ("utilization_ratio", "sm_active_ratio", "tensor_active_ratio", "dram_active_ratio"):
            assert 0 <= getattr(state, ratio) <= 1
        assert state.gpu_model
        assert state.driver_version
        assert state.pci_bus_id
        assert 20 < (state.temperature_celsius or 0) < 95
        assert 0 < (state.memory_used_bytes or 0) < (state.memory_total_bytes or 0)
        assert {domain for domain, _ in state.clock_hertz} >= {"sm", "memory"}


def test_names_are_those_the_paths_would_give(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    seen = [source.workload(group) for group in source.truth() if group is not None]
    assert {owner.runtime for owner in seen} == {"kubernetes", "docker", "podman", "systemd", "slurm", "host"}
    assert {owner.namespace for owner in seen} == {"", "team-nlp", "team-vision", "team-research", "platform"}
    assert len({owner[:4] for owner in seen}) == len(seen)
    for reading in readings[:400]:
        for group in reading.cpu.started if reading.cpu else ():
            named, by_path = source.workload(group), WorkloadNamer().workload(group)
            assert (named.runtime, named.container_id, named.pod_uid) == (
                by_path.runtime,
                by_path.container_id,
                by_path.pod_uid,
            )
            if not named.container_id:
                assert named == by_path


def test_models_train_and_infer_on_gpus_and_without(played: tuple[DemoSource, list[Reading]]) -> None:
    source, readings = played
    process = known(readings[0].gpu_uses[0])
    models = {group: model for group in source.truth() if (model := source.model(group, process))}
    assert {model.phase for model in models.values()} == {"training", "inference", "unknown"}
    assert len({model[:3] for model in models.values()}) == len(models) >= 7
    held = {use.group for use in readings[-1].gpu_uses}
    assert any(group not in held for group in models)
    assert source.model(None, process) is None


# --- cost -------------------------------------------------------------------------------------------------------------


_GROWTH = """
import gc, sys
from exporter.sources.demo.source import DemoSource

source, blocks = DemoSource(), []
for step in range(0, 20_001, 10):
    source.read(1000.0 + step)
    if step >= 5000 and step % 500 == 0:
        gc.collect()
        blocks.append(sys.getallocatedblocks())
print(min(blocks[-10:]) - min(blocks[:10]), len(source.truth()))
"""


def test_memory_stays_flat_over_20_000_steps() -> None:
    """In a process of its own: the one of the tests grows by itself.

    How many jobs live varies, and so do their objects; the least of many moments does not. 10,000 steps end 150 jobs:
    one object kept of each step or of each job would show.
    """
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=patience()
    )
    grown, groups = map(int, done.stdout.split())
    assert grown < 100
    assert groups < 40


def test_a_step_costs_less_than_2_ms() -> None:
    source = DemoSource()
    source.read(T0)
    start = time.process_time()
    for step in range(1, 301):
        source.read(T0 + step)
    assert (time.process_time() - start) / 300 < 0.002
