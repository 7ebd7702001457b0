"""Every setting: name, type, default and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .model_rules import ModelRule, rule_list
from .value_types import (
    Address,
    ValueType,
    address,
    choice,
    count,
    duration,
    flag,
    listing,
    mapping,
    number,
    number_range,
    server_url,
    text,
    url_path,
)


def _setting(
    name: str, value_type: ValueType, default: object, about: str, *, reloadable: bool = False, in_file: bool = True
) -> Any:
    metadata = {"name": name, "value_type": value_type, "help": about, "reloadable": reloadable, "in_file": in_file}
    return field(default_factory=lambda: default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting and its default; durations are in seconds, power in watts, None means automatic."""

    config_file: str = _setting(
        "config.file", text("FILE"), "", "YAML file with settings; keys are nested or dotted.", in_file=False
    )
    web_listen_address: tuple[Address, ...] = _setting(
        "web.listen-address",
        listing(address()),
        (Address("127.0.0.1", 9400),),
        "Address to listen on, HOST:PORT or [IPV6]:PORT; an empty host is every interface.",
    )
    web_telemetry_path: str = _setting("web.telemetry-path", url_path(), "/metrics", "Path of the metrics page.")
    web_config_file: str = _setting(
        "web.config.file",
        text("FILE"),
        "",
        "YAML file with TLS, client certificates, logins and headers, in the format of other exporters "
        "(web-security.md). Reloaded when it or a certificate changes.",
    )
    web_health_address: tuple[Address, ...] = _setting(
        "web.health-address",
        listing(address()),
        (),
        "Additional addresses that serve only the health pages (/-/healthy, /-/ready, /healthz, /readyz), "
        "without TLS or login: for probes that cannot present a certificate.",
    )
    web_max_requests: int = _setting(
        "web.max-requests",
        count(1, 10_000),
        40,
        "Maximum number of responses written at the same time; further requests get a 503.",
    )
    path_procfs: str = _setting("path.procfs", text("DIR"), "/proc", "Mount point of the host's procfs.")
    path_sysfs: str = _setting("path.sysfs", text("DIR"), "/sys", "Mount point of the host's sysfs.")
    path_cgroupfs: str = _setting(
        "path.cgroupfs",
        text("DIR"),
        "",
        "Mount point of the host's cgroup hierarchy; if empty, it is searched for below sysfs.",
    )
    path_pod_resources: str = _setting(
        "path.pod-resources",
        text("FILE"),
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "Socket of the kubelet's PodResources API, which lists the GPUs allocated to each container.",
    )
    sample_interval: float = _setting(
        "sample.interval",
        duration(0.1, 60.0),
        1.0,
        "Time between two readings of the meters; independent of the scrape interval.",
        reloadable=True,
    )
    state_file: str = _setting(
        "state.file",
        text("FILE"),
        "",
        "Checkpoint file from which counters continue after a restart; empty disables it.",
    )
    state_interval: float = _setting(
        "state.interval", duration(1.0, 3600.0), 60.0, "Time between two full checkpoints."
    )
    history_file: str = _setting(
        "history.file",
        text("FILE"),
        "",
        "File in which the exporter keeps its own hourly history, for report without a Prometheus (report.md); empty "
        "disables it.",
    )
    history_retention: float = _setting(
        "history.retention",
        duration(86_400.0, 3650 * 86_400.0),
        400 * 86_400.0,
        "Length of the history; only hours in which the exporter ran count.",
    )
    source_timeout: float = _setting(
        "source.timeout",
        duration(0.01, 60.0),
        0.5,
        "Deadline for one reading of one source; capped at sample.interval.",
    )
    source_rapl: bool | None = _setting(
        "source.rapl", flag(), None, "Read CPU and DRAM joules from /sys/class/powercap (Intel, AMD)."
    )
    source_nvml: bool | None = _setting(
        "source.nvml", flag(), None, "Read NVIDIA GPUs through NVML: joules, state and the processes that use them."
    )
    source_hwmon: bool | None = _setting(
        "source.hwmon",
        flag(),
        None,
        "Read joules or watts from /sys/class/hwmon (AMD GPU, Grace, server power meters).",
    )
    source_drm: bool | None = _setting(
        "source.drm",
        flag(),
        None,
        "Read which processes use AMD and Intel GPUs, from /proc/PID/fdinfo and /sys/class/kfd.",
    )
    source_podresources: bool | None = _setting(
        "source.podresources",
        flag(),
        None,
        "Read GPU allocations from the kubelet, so that idle power of an allocated GPU is attributed to its container.",
    )
    source_estimate: bool | None = _setting(
        "source.estimate",
        flag(),
        None,
        "Estimate CPU watts from utilisation; by default only on machines without a CPU meter.",
    )
    source_procfs: bool | None = _setting("source.procfs", flag(), None, "Read CPU seconds per process from /proc.")
    source_cgroups: bool | None = _setting("source.cgroups", flag(), None, "Read CPU seconds per cgroup.")
    source_psutil: bool | None = _setting(
        "source.psutil", flag(), None, "Read CPU seconds per process through psutil, on systems without /proc."
    )
    source_inference: bool | None = _setting(
        "source.inference",
        flag(),
        None,
        "Read tokens and requests from the metrics pages of the model servers on this machine (tokens.md).",
    )
    hwmon_components: Mapping[str, Literal["cpu", "dram", "gpu", "platform", "none"]] = _setting(
        "hwmon.components",
        mapping("CHIP/LABEL=COMPONENT", choice("cpu", "dram", "gpu", "platform", "none")),
        {},
        "Component that a hwmon sensor measures: cpu, dram, gpu, platform (the whole machine) or none (shown, never "
        "summed). doctor lists the sensors whose meaning is not known.",
    )
    estimate_min_watts_per_cpu: float | None = _setting(
        "estimate.min-watts-per-cpu", number("WATTS", 0.0, 1000.0), None, "Estimate: watts of one idle logical CPU."
    )
    estimate_max_watts_per_cpu: float | None = _setting(
        "estimate.max-watts-per-cpu", number("WATTS", 0.0, 1000.0), None, "Estimate: watts of one busy logical CPU."
    )
    idle_watts: Mapping[str, float] = _setting(
        "idle.watts",
        mapping("DEVICE=WATTS", number("WATTS", 0.0, 100_000.0)),
        {},
        "Idle watts of a device, overriding the learned value.",
        reloadable=True,
    )
    attribution_cpu: Literal["time", "learned"] = _setting(
        "attribution.cpu",
        choice("time", "learned"),
        "time",
        "How active joules of CPU and DRAM are divided: by CPU time, or by CPU time times watts per busy CPU that are "
        "learned for each container (accuracy.md).",
        reloadable=True,
    )
    attribution_cpu_idle: Literal["node", "proportional"] = _setting(
        "attribution.cpu-idle",
        choice("node", "proportional"),
        "node",
        "Attribution of the idle joules of CPU and DRAM: to the node only, or to workloads in proportion to their use.",
        reloadable=True,
    )
    attribution_cpu_scope: Literal["detect", "machine"] = _setting(
        "attribution.cpu-scope",
        choice("detect", "machine"),
        "detect",
        "What the CPU meters cover: machine, exactly this one (a virtual machine with RAPL counters of its own), or "
        "detect, to find out. Energy of a host is never divided among the workloads of a guest.",
    )
    attribution_gpu_reservations: tuple[str, ...] = _setting(
        "attribution.gpu-reservations",
        listing(text("NAMESPACE[/POD] or LABEL=VALUE")),
        (
            *("kai-resource-reservation", "app=kai-resource-reservation", "kai-scale-adjust", "app=scaling-pod"),
            *("runai-reservation", "app=runai-reservation"),
        ),
        "Pods that have a GPU allocated only to reserve it for others, such as those of KAI and Run:ai, by name or "
        "label; * and ? are wildcards. The processes that hold such a GPU are attributed its idle energy, the pod "
        "never.",
        reloadable=True,
    )
    process_top: int = _setting(
        "process.top",
        count(0, 100_000),
        50,
        "Number of processes shown: those with the most joules, and every process on a GPU in addition. Ended "
        "processes: at most four times as many, and 200 on GPUs.",
        reloadable=True,
    )
    container_max: int = _setting(
        "container.max",
        count(1, 1_000_000),
        5000,
        "Maximum number of containers shown; the energy of further ones is folded into one series, never lost.",
    )
    workload_linger: float = _setting(
        "workload.linger",
        duration(300.0, 86_400.0),
        300.0,
        "Time for which the counters of an ended workload stay exposed, so that Prometheus scrapes their last value.",
        reloadable=True,
    )
    workloads_split: tuple[str, ...] = _setting(
        "workloads.split",
        listing(text("UNIT")),
        (),
        "systemd units to show as one row for each child cgroup, for services that run other people's work, such as "
        "batch.service; slurm shows each step of a job as a row.",
    )
    models: tuple[ModelRule, ...] = _setting(
        "models",
        rule_list(),
        (),
        "Rules that assign processes to models where no label does; the first match wins.",
    )
    models_keys: tuple[str, ...] = _setting(
        "models.keys",
        listing(text("KEY")),
        ("ai-energy-exporter/model-name", "model.aibrix.ai/name", "serving.kserve.io/inferenceservice"),
        "Annotations or labels of a pod or container whose value is the name of its model; the first present wins.",
    )
    models_phase_keys: tuple[str, ...] = _setting(
        "models.phase-keys",
        listing(text("KEY")),
        ("ai-energy-exporter/phase",),
        "Annotations or labels whose value is the phase: training or inference.",
    )
    models_variant_keys: tuple[str, ...] = _setting(
        "models.variant-keys",
        listing(text("KEY")),
        ("ai-energy-exporter/variant",),
        "Annotations or labels whose value distinguishes models that are served under one name, such as fp16 and awq.",
    )
    models_ask_servers: bool = _setting(
        "models.ask-servers",
        flag(),
        False,
        "Query model servers on this machine (GET /v1/models) for a name that their command line does not contain.",
    )
    kubernetes_names: Literal["auto", "api", "kubelet", "off"] = _setting(
        "kubernetes.names",
        choice("auto", "api", "kubelet", "off"),
        "auto",
        "Source of pod names: the API server, this node's kubelet, or none; "
        "auto is the API server inside a cluster. See kubernetes.md.",
    )
    kubernetes_node_name: str = _setting(
        "kubernetes.node-name",
        text("NAME"),
        "",
        "Name of this node in the cluster; the default is the variable NODE_NAME, else the host name.",
    )
    kubernetes_url: str = _setting(
        "kubernetes.url",
        server_url(),
        "",
        "URL of the API server or kubelet; the default is the address that Kubernetes sets in every pod.",
    )
    kubernetes_credentials: str = _setting(
        "kubernetes.credentials",
        text("DIR"),
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "Directory with token and ca.crt, read for each request.",
    )
    kubernetes_labels: tuple[str, ...] = _setting(
        "kubernetes.labels",
        listing(text("LABEL")),
        (),
        "Labels of pods and containers to show as label_<name> on energy_container_info.",
    )
    docker_socket: str = _setting(
        "docker.socket",
        text("FILE|off"),
        "",
        "Socket of the Docker API, for container names; the default is /var/run/docker.sock if accessible.",
    )
    podman_socket: str = _setting(
        "podman.socket",
        text("FILE|off"),
        "",
        "Socket of the Podman API, for container names; the default is /run/podman/podman.sock if accessible.",
    )
    impact_zone: str = _setting(
        "impact.zone",
        text("ZONE"),
        "",
        "Where the electricity is from, for grams of CO2e: the code of a country (DE) or a cloud region "
        "(gcp/europe-west9, aws/eu-west-3, azure/westeurope); off for none. The default is the region of "
        "a cloud instance, from cloud-init or from its firmware and NODE_REGION. See impact.md.",
    )
    impact_intensity: float | None = _setting(
        "impact.intensity",
        number("GRAMS", 0.0, 5000.0),
        None,
        "Grams of CO2e per kWh of electricity, in place of the shipped table.",
    )
    impact_price: float | None = _setting(
        "impact.price", number("PRICE", 0.0, 1e6), None, "Price of a kWh of electricity, in impact.currency."
    )
    impact_currency: str = _setting(
        "impact.currency", text("CODE"), "", "Currency of impact.price: three letters, such as EUR."
    )
    impact_pue: float = _setting(
        "impact.pue",
        number("RATIO", 1.0, 10.0),
        1.0,
        "Power usage effectiveness: energy of the building over that of its IT equipment. It multiplies grams and "
        "money, never joules.",
    )
    impact_file: str = _setting(
        "impact.file", text("FILE"), "", "YAML file with carbon intensity and prices, by hour or live (impact.md)."
    )
    impact_from: str = _setting(
        "impact.from",
        server_url(),
        "",
        "Another exporter, such as http://node-1:9400, whose carbon intensity, price and PUE are taken once a minute, "
        "so that only one of a fleet asks a service. What is set here is in force while that one does not answer.",
    )
    impact_from_credentials: str = _setting(
        "impact.from-credentials", text("FILE"), "", "File with USER:PASSWORD for impact.from; needs https."
    )
    impact_max_age: float = _setting(
        "impact.max-age",
        duration(300.0, 7 * 86_400.0),
        3600.0,
        "How long the last value of a service or of the exporter of impact.from is used after its time, before the "
        "file, the constant or the table is in force again.",
    )
    impact_embodied: tuple[float, float] | None = _setting(
        "impact.embodied",
        number_range("LOW-HIGH", 0.0, 10_000.0),
        None,
        "Embodied carbon of a GPU in grams of CO2e for each hour of its life, a range such as 4.7-37.5; counted by the "
        "time in which containers hold GPUs, apart from the grams of electricity (impact.md). Off by default.",
    )
    impact_embodied_source: str = _setting(
        "impact.embodied-source", text("TEXT"), "", "Where impact.embodied is from: a label of its gauges."
    )
    demo: bool = _setting("demo", flag(), False, "Show a simulated GPU node instead of this machine.")
    demo_seed: int = _setting("demo.seed", count(0, 2**31 - 1), 1, "Seed of the simulated node.")
    log_level: str = _setting(
        "log.level", choice("debug", "info", "warn", "error"), "info", "Lowest severity to log.", reloadable=True
    )
    log_format: str = _setting(
        "log.format", choice("logfmt", "json"), "logfmt", "Format of log lines.", reloadable=True
    )

    @property
    def enabled_sources(self) -> dict[str, bool | None]:
        """Source name → True, False, or None for automatic."""
        return {name: getattr(self, f"source_{name}") for name in SOURCES}

    @property
    def estimate_watts_per_cpu(self) -> tuple[float, float] | None:
        """Watts of one idle and of one busy logical CPU, None for the built-in estimate."""
        low, high = self.estimate_min_watts_per_cpu, self.estimate_max_watts_per_cpu
        return None if low is None or high is None else (low, high)


SOURCES: tuple[str, ...] = (
    *("rapl", "nvml", "hwmon", "drm", "podresources", "estimate", "procfs", "cgroups", "psutil", "inference"),
)
"""Sources that can be enabled or disabled; the registry of sources has the same names."""
