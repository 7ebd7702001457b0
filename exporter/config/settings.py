"""Every setting: name, type, default and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .meters import MeterSetting, meter_list
from .model_rules import ModelRule, rule_list
from .reading_settings import ReadingSettings, setting
from .value_types import (
    choice,
    count,
    duration,
    flag,
    listing,
    number,
    number_range,
    server_url,
    text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ReadingSettings):
    """Every setting and its default; durations are in seconds, power in watts, None means automatic."""

    process_top: int = setting(
        "process.top",
        count(0, 100_000),
        50,
        "Number of processes shown: those with the most joules, and every process on a GPU in addition. Ended "
        "processes: at most four times as many, and 200 on GPUs.",
        reloadable=True,
    )
    container_max: int = setting(
        "container.max",
        count(1, 1_000_000),
        5000,
        "Maximum number of containers shown; the energy of further ones is folded into one series, never lost.",
    )
    workload_linger: float = setting(
        "workload.linger",
        duration(300.0, 86_400.0),
        300.0,
        "Time for which the counters of an ended workload stay exposed, so that Prometheus scrapes their last value.",
        reloadable=True,
    )
    workloads_split: tuple[str, ...] = setting(
        "workloads.split",
        listing(text("UNIT")),
        (),
        "systemd units to show as one row for each child cgroup, for services that run other people's work, such as "
        "batch.service; slurm shows each step of a job as a row.",
    )
    models: tuple[ModelRule, ...] = setting(
        "models",
        rule_list(),
        (),
        "Rules that assign processes to models where no label does; the first match wins.",
    )
    models_keys: tuple[str, ...] = setting(
        "models.keys",
        listing(text("KEY")),
        ("ai-energy-exporter/model-name", "model.aibrix.ai/name", "serving.kserve.io/inferenceservice"),
        "Annotations or labels of a pod or container whose value is the name of its model; the first present wins.",
    )
    models_phase_keys: tuple[str, ...] = setting(
        "models.phase-keys",
        listing(text("KEY")),
        ("ai-energy-exporter/phase",),
        "Annotations or labels whose value is the phase: training or inference.",
    )
    models_variant_keys: tuple[str, ...] = setting(
        "models.variant-keys",
        listing(text("KEY")),
        ("ai-energy-exporter/variant",),
        "Annotations or labels whose value distinguishes models that are served under one name, such as fp16 and awq.",
    )
    models_ask_servers: bool = setting(
        "models.ask-servers",
        flag(),
        False,
        "Query model servers on this machine (GET /v1/models) for a name that their command line does not contain.",
    )
    models_key_file: str = setting(
        "models.key-file",
        text("FILE"),
        "",
        "File with a key that is sent, as a bearer token, to model servers on this machine that refuse to be read "
        "without one (llama.cpp --api-key). Every process that looks like a model server can ask for it (tokens.md).",
    )
    meters: tuple[MeterSetting, ...] = setting(
        "meters",
        meter_list(),
        (),
        "Meters of one's own: a file or a command that reports joules or watts (meters.md).",
    )
    meters_file: str = setting("meters.file", text("FILE"), "", "YAML file with a list of further meters (meters.md).")
    kubernetes_names: Literal["auto", "api", "kubelet", "off"] = setting(
        "kubernetes.names",
        choice("auto", "api", "kubelet", "off"),
        "auto",
        "Source of pod names: the API server, this node's kubelet, or none; "
        "auto is the API server inside a cluster. See kubernetes.md.",
    )
    kubernetes_node_name: str = setting(
        "kubernetes.node-name",
        text("NAME"),
        "",
        "Name of this node in the cluster; the default is the variable NODE_NAME, else the host name.",
    )
    kubernetes_url: str = setting(
        "kubernetes.url",
        server_url(),
        "",
        "URL of the API server or kubelet; the default is the address that Kubernetes sets in every pod.",
    )
    kubernetes_credentials: str = setting(
        "kubernetes.credentials",
        text("DIR"),
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "Directory with token and ca.crt, read for each request.",
    )
    kubernetes_labels: tuple[str, ...] = setting(
        "kubernetes.labels",
        listing(text("LABEL")),
        (),
        "Labels of pods and containers to show as label_<name> on energy_container_info.",
    )
    docker_socket: str = setting(
        "docker.socket",
        text("FILE|off"),
        "",
        "Socket of the Docker API, for container names; the default is /var/run/docker.sock if accessible.",
    )
    podman_socket: str = setting(
        "podman.socket",
        text("FILE|off"),
        "",
        "Socket of the Podman API, for container names; the default is /run/podman/podman.sock if accessible.",
    )
    impact_zone: str = setting(
        "impact.zone",
        text("ZONE"),
        "",
        "Where the electricity is from, for grams of CO2e: the code of a country (DE) or a cloud region "
        "(gcp/europe-west9, aws/eu-west-3, azure/westeurope); off for none. The default is the region of "
        "a cloud instance, from cloud-init or from its firmware and NODE_REGION. See impact.md.",
    )
    impact_intensity: float | None = setting(
        "impact.intensity",
        number("GRAMS", 0.0, 5000.0),
        None,
        "Grams of CO2e per kWh of electricity, in place of the shipped table.",
    )
    impact_price: float | None = setting(
        "impact.price", number("PRICE", 0.0, 1e6), None, "Price of a kWh of electricity, in impact.currency."
    )
    impact_currency: str = setting(
        "impact.currency", text("CODE"), "", "Currency of impact.price: three letters, such as EUR."
    )
    impact_pue: float = setting(
        "impact.pue",
        number("RATIO", 1.0, 10.0),
        1.0,
        "Power usage effectiveness: energy of the building over that of its IT equipment. It multiplies grams and "
        "money, never joules.",
    )
    impact_file: str = setting(
        "impact.file", text("FILE"), "", "YAML file with carbon intensity and prices, by hour or live (impact.md)."
    )
    impact_from: str = setting(
        "impact.from",
        server_url(),
        "",
        "Another exporter, such as http://node-1:9400, whose carbon intensity, price and PUE are taken once a minute, "
        "so that only one of a fleet asks a service. What is set here is in force while that one does not answer.",
    )
    impact_from_credentials: str = setting(
        "impact.from-credentials", text("FILE"), "", "File with USER:PASSWORD for impact.from; needs https."
    )
    impact_max_age: float = setting(
        "impact.max-age",
        duration(300.0, 7 * 86_400.0),
        3600.0,
        "How long the last value of a service or of the exporter of impact.from is used after its time, before the "
        "file, the constant or the table is in force again.",
    )
    impact_embodied: tuple[float, float] | None = setting(
        "impact.embodied",
        number_range("LOW-HIGH", 0.0, 10_000.0),
        None,
        "Embodied carbon of a GPU in grams of CO2e for each hour of its life, a range such as 4.7-37.5; counted by the "
        "time in which containers hold GPUs, apart from the grams of electricity (impact.md). Off by default.",
    )
    impact_embodied_source: str = setting(
        "impact.embodied-source", text("TEXT"), "", "Where impact.embodied is from: a label of its gauges."
    )
    demo: bool = setting("demo", flag(), False, "Show a simulated GPU node instead of this machine.")
    demo_seed: int = setting("demo.seed", count(0, 2**31 - 1), 1, "Seed of the simulated node.")
    log_level: str = setting(
        "log.level", choice("debug", "info", "warn", "error"), "info", "Lowest severity to log.", reloadable=True
    )
    log_format: str = setting("log.format", choice("logfmt", "json"), "logfmt", "Format of log lines.", reloadable=True)

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
    *("rapl", "nvml", "gaudi", "neuron", "tpu", "hwmon", "drm", "powercap", "cray", "podresources", "estimate"),
    *("procfs", "cgroups", "psutil", "inference", "regions", "bmc", "custom"),
)
"""Sources that can be enabled or disabled; the registry of sources has the same names."""
