"""The composition root: settings to the host, its namer, its sources and the sampler."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..config.settings import Settings
from ..host import FdBudget, Host
from ..impact.build import build as build_schedule
from ..impact.protocol import FactorProvider
from ..impact.values import Embodied
from ..sampling.regions import WatchedCards
from ..sampling.sampler import Sampler, SamplerOptions, no_scrapers
from ..sampling.state_file import StateStore
from ..snapshot import Snapshot
from ..sources.bmc.options import BmcOptions
from ..sources.custom.meter import Meter
from ..sources.driver_process import no_cards
from ..sources.inference.source import no_servers
from ..sources.protocol import Source
from ..sources.registry import build
from ..workloads.explainer import Explainer, Found
from ..workloads.metadata.registry import MetadataOptions, metadata_providers, node_name
from ..workloads.models.background_lookups import DirectLookups
from ..workloads.models.declared import ModelOptions
from ..workloads.models.resolver import Models
from ..workloads.namer import WorkloadNamer
from ..workloads.paths.precedence import path_resolvers
from ..workloads.protocol import Namer

if TYPE_CHECKING:
    from ..history.recorder import Recorder


_log = logging.getLogger(__name__)


def make_host(settings: Settings) -> Host:
    """The host, with the roots of the settings."""
    return Host(
        procfs=settings.path_procfs,
        sysfs=settings.path_sysfs,
        cgroupfs=settings.path_cgroupfs,
        fds=FdBudget.of_process(),
    )


def make_namer(settings: Settings, host: Host) -> WorkloadNamer:
    """The namer of this host's containers and models."""
    return _namer(settings, host, Models(host, _model_options(settings)))


def make_explainer(settings: Settings, host: Host, processes: Callable[[], Iterable[Found]]) -> tuple[Explainer, Namer]:
    """The explainer of this host's names, which waits for each lookup, and its namer, to be closed."""
    models = Models(host, _model_options(settings), DirectLookups(host))
    namer = _namer(settings, host, models)
    return Explainer(namer, models, processes), namer


def make_node_name(settings: Settings, environ: Mapping[str, str]) -> str:
    """The name of this node: in a cluster that of the cluster, else the host name."""
    return node_name(_metadata_options(settings), environ)


def _metadata_options(settings: Settings) -> MetadataOptions:
    return MetadataOptions(
        settings.kubernetes_names,
        settings.kubernetes_node_name,
        settings.kubernetes_url,
        settings.kubernetes_credentials,
        settings.docker_socket,
        settings.podman_socket,
    )


def _namer(settings: Settings, host: Host, models: Models) -> WorkloadNamer:
    return WorkloadNamer(
        metadata_providers(_metadata_options(settings), host),
        models,
        settings.kubernetes_labels,
        path_resolvers(settings.workloads_split),
        host,
    )


def _model_options(settings: Settings) -> ModelOptions:
    return ModelOptions(
        rules=settings.models,
        keys=settings.models_keys,
        phase_keys=settings.models_phase_keys,
        ask_servers=settings.models_ask_servers,
        variant_keys=settings.models_variant_keys,
        key_file=settings.models_key_file,
    )


def make_sources(
    settings: Settings,
    host: Host,
    namer: Namer | None = None,
    *,
    every: bool = False,
    watched: WatchedCards | None = None,
) -> list[Source]:
    """The sources of this host: the enabled ones, or ``every`` one.

    The ``namer`` knows the model servers, ``watched`` the cards that are to be read more often.
    """
    enabled = settings.enabled_sources
    return build(
        host,
        dict.fromkeys(enabled, True) if every else enabled,
        settings.estimate_watts_per_cpu,
        deadline_seconds=settings.source_timeout,
        pod_resources=settings.path_pod_resources,
        hwmon_components=settings.hwmon_components,
        whole=settings.attribution_cpu_scope == "machine",
        servers=no_servers if namer is None else namer.servers,
        server_key_file=settings.models_key_file,
        regions_socket=settings.regions_socket,
        neuron_watts=settings.neuron_watts,
        tpu_watts=settings.tpu_watts,
        meters=[Meter(**meter._asdict()) for meter in settings.meters],
        watched_cards=no_cards if watched is None else watched,
        bmc=_bmc_options(settings),
    )


def _bmc_options(settings: Settings) -> BmcOptions:
    url = settings.bmc_redfish_url
    if "{node}" in url:
        url = url.replace("{node}", make_node_name(settings, os.environ))
    return BmcOptions(
        url,
        settings.bmc_redfish_credentials,
        settings.bmc_redfish_ca,
        settings.bmc_redfish_fingerprint,
        settings.bmc_redfish_insecure,
        settings.bmc_redfish_system,
        ipmi=settings.bmc_ipmi,
        period_seconds=settings.bmc_interval,
    )


def make_factors(settings: Settings) -> FactorProvider | None:
    """What provides carbon intensity and price, None if neither is known."""
    return build_schedule(settings)


def make_sampler(
    settings: Settings,
    host: Host,
    store: StateStore | None = None,
    observers: Sequence[Callable[[Snapshot], None]] = (),
    received_by_all: Callable[[float], int | None] = no_scrapers,
) -> Sampler:
    """The sampler of this host, or of the simulated one."""
    sources: Sequence[Source]
    namer: Namer
    watched = WatchedCards()
    if settings.demo:
        from ..sources.demo.source import DemoSource  # noqa: PLC0415 - only a demonstration needs it

        demo = DemoSource(settings.sample_interval, settings.demo_seed)
        sources, namer = [demo], demo
    else:
        namer = make_namer(settings, host)
        sources = make_sources(settings, host, namer, watched=watched)
    options = sampler_options(settings)
    return Sampler(
        sources,
        namer,
        host,
        options,
        store=store,
        observers=observers,
        received_by_all=received_by_all,
        factors=make_factors(settings),
        demo=settings.demo,
        watched=watched,
    )


def make_recorder(settings: Settings, node: str, on_write: Callable[[], None]) -> Recorder | None:
    """What records the history of this ``node``, None without one."""
    if not settings.history_file:
        return None
    from ..history.recorder import Recorder  # noqa: PLC0415

    try:
        from ..history.writer import Writer  # noqa: PLC0415 - loads SQLite, which nothing else needs
    except ModuleNotFoundError as missing:
        _log.warning("no history is written: this Python has no module %s", missing.name)
        return None
    writer = Writer(settings.history_file, node, settings.history_retention, on_write)
    return Recorder(writer.record, writer.close)


def sampler_options(settings: Settings) -> SamplerOptions:
    """The sampler's options, which may be replaced while it runs."""
    embodied = settings.impact_embodied
    return SamplerOptions(
        interval_seconds=settings.sample_interval,
        source_timeout_seconds=min(settings.source_timeout, settings.sample_interval),
        process_top=settings.process_top,
        container_max=settings.container_max,
        cpu_idle=settings.attribution_cpu_idle,
        cpu_method=settings.attribution_cpu,
        linger_seconds=settings.workload_linger,
        idle_watts=settings.idle_watts,
        checkpoint_seconds=settings.state_interval,
        gpu_reservations=settings.attribution_gpu_reservations,
        embodied=None if embodied is None else Embodied(*embodied, settings.impact_embodied_source),
    )
