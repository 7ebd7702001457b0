"""The composition root: settings to the host, its namer, its sources and the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..config.settings import Settings
from ..host import FdBudget, Host
from ..records import Namer
from ..sampling.sampler import Sampler, SamplerOptions
from ..sampling.state_file import StateStore
from ..snapshot import Snapshot
from ..sources.demo.source import DemoSource
from ..sources.protocol import Source
from ..sources.registry import build
from ..workloads.metadata.registry import MetadataOptions, metadata_providers
from ..workloads.models.resolver import ModelOptions, Models
from ..workloads.namer import WorkloadNamer


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
    metadata = MetadataOptions(
        settings.kubernetes_names,
        settings.kubernetes_node_name,
        settings.kubernetes_url,
        settings.kubernetes_credentials,
        settings.docker_socket,
        settings.podman_socket,
    )
    models = ModelOptions(
        rules=settings.models,
        keys=settings.models_keys,
        phase_keys=settings.models_phase_keys,
        ask_servers=settings.models_ask_servers,
    )
    return WorkloadNamer(metadata_providers(metadata, host), Models(host, models), settings.kubernetes_labels)


def make_sampler(
    settings: Settings,
    host: Host,
    store: StateStore | None = None,
    observers: Sequence[Callable[[Snapshot], None]] = (),
) -> Sampler:
    """The sampler of this host, or of the simulated one."""
    sources: Sequence[Source]
    namer: Namer
    if settings.demo:
        demo = DemoSource(settings.sample_interval, settings.demo_seed)
        sources, namer = [demo], demo
    else:
        namer = make_namer(settings, host)
        sources = build(
            host,
            settings.enabled_sources,
            settings.estimate_watts_per_cpu,
            deadline_seconds=settings.source_timeout,
            pod_resources=settings.path_pod_resources,
            hwmon_components=settings.hwmon_components,
        )
    options = sampler_options(settings)
    return Sampler(sources, namer, host, options, store=store, observers=observers, demo=settings.demo)


def sampler_options(settings: Settings) -> SamplerOptions:
    """The sampler's options, which may be replaced while it runs."""
    return SamplerOptions(
        interval_seconds=settings.sample_interval,
        source_timeout_seconds=min(settings.source_timeout, settings.sample_interval),
        process_top=settings.process_top,
        container_max=settings.container_max,
        cpu_idle=settings.attribution_cpu_idle,
        linger_seconds=settings.workload_linger,
        idle_watts=settings.idle_watts,
        checkpoint_seconds=settings.state_interval,
    )
