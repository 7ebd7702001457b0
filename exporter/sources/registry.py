"""READ: one source per file; this is the list of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence

from ..host import Host
from ..records import Unavailable
from ..workloads.protocol import ModelServer
from .accelerators.gaudi_process import GaudiProcess
from .accelerators.neuron import NeuronSource
from .accelerators.tpu import TpuSource, TpuWatts
from .bmc.options import BmcOptions
from .cpu.estimate import EstimateSource
from .cpu.powercap import PowercapSource
from .cpu.rapl import RaplSource
from .cray.source import CraySource
from .custom.meter import Meter
from .driver_process import Timeouts, no_cards
from .drm.source import DrmSource
from .hwmon.labels import Components
from .hwmon.source import HwmonSource
from .inference.source import InferenceSource, no_servers
from .nvml.process import NvmlProcess
from .podresources.source import SOCKET, PodResourcesSource
from .protocol import Source
from .regions.source import RegionSource
from .usage.cgroup_tree import find_hierarchy
from .usage.cgroups import CgroupSource
from .usage.procfs import ProcfsSource
from .usage.psutil_source import PortableSource
from .usage.scope import Scope

WattsPerCpu = tuple[float, float]


def build(
    host: Host,
    enabled: Mapping[str, bool | None],
    estimate_watts_per_cpu: WattsPerCpu | None = None,
    *,
    deadline_seconds: float = 0.5,
    pod_resources: str = SOCKET,
    hwmon_components: Components | None = None,
    whole: bool = False,
    linux: bool = sys.platform == "linux",
    servers: Callable[[], tuple[ModelServer, ...]] = no_servers,
    server_key_file: str = "",
    regions_socket: str = "",
    meters: Sequence[Meter] = (),
    neuron_watts: tuple[float, float] | None = None,
    tpu_watts: TpuWatts = None,
    watched_cards: Callable[[], Collection[str]] = no_cards,
    bmc: BmcOptions | None = None,
) -> list[Source]:
    """Make the sources of this machine; ``enabled`` False leaves one out, None is automatic.

    ``deadline_seconds`` is the sampler's time limit for one reading, ``pod_resources`` the kubelet's socket,
    ``hwmon_components`` what hwmon sensors measure, ``whole`` whether the visible cgroups are all that the meters
    measure, ``meters`` are the operator's own. ``neuron_watts`` and ``tpu_watts`` are the watts of a device at rest and
    at its most. ``regions_socket`` is where programs report regions, "" for nowhere, ``watched_cards`` returns those
    whose counters are read more often meanwhile. ``servers`` returns the model servers that are recognised,
    ``server_key_file`` the key for those that want one. ``bmc`` is how to reach the BMC. CPU use by process comes from
    /proc only where cgroups do not report it, and from psutil only on systems without /proc.
    """
    grouped = enabled.get("cgroups") is not False and _has_groups(host)
    registry: Mapping[str, Callable[[], Source]] = {
        "rapl": lambda: RaplSource(host),
        "nvml": lambda: NvmlProcess(host, Timeouts.of(deadline_seconds), watched_cards),
        "gaudi": lambda: GaudiProcess(host, Timeouts.of(deadline_seconds)),
        "neuron": lambda: NeuronSource(host, neuron_watts),
        "tpu": lambda: TpuSource(host, tpu_watts),
        "hwmon": lambda: HwmonSource(host, hwmon_components),
        "drm": lambda: DrmSource(host),
        "powercap": lambda: PowercapSource(host, hwmon_components),
        "cray": lambda: CraySource(host),
        "podresources": lambda: PodResourcesSource(host, pod_resources),
        "estimate": lambda: EstimateSource(host, estimate_watts_per_cpu),
        "cgroups": lambda: CgroupSource(host),
        "procfs": lambda: ProcfsSource(host, processes=not grouped, scope=Scope() if whole else None),
        "psutil": lambda: PortableSource(host),
        "inference": lambda: InferenceSource(host, servers, server_key_file),
        "regions": lambda: RegionSource(host, regions_socket),
        "custom": lambda: _custom(host, meters),
        "bmc": lambda: _bmc(host, bmc or BmcOptions()),
    }
    absent = {"psutil"} if linux else registry.keys() - {"estimate", "psutil", "custom", "bmc"}
    if not regions_socket:
        absent.add("regions")
    if not meters:
        absent.add("custom")
    if not (bmc is not None and bmc.wanted) and not enabled.get("bmc"):
        absent.add("bmc")
    return [make() for name, make in registry.items() if name not in absent and enabled.get(name) is not False]


def _has_groups(host: Host) -> bool:
    try:
        find_hierarchy(host)
    except Unavailable:
        return False
    return True


# What most machines do not have is imported where it is made: it takes a twentieth of the time to start.


def _bmc(host: Host, options: BmcOptions) -> Source:
    from .bmc.source import BmcSource  # noqa: PLC0415

    return BmcSource(options, host.clock)


def _custom(host: Host, meters: Sequence[Meter]) -> Source:
    from .custom.source import CustomSource  # noqa: PLC0415

    return CustomSource(host, meters)
