"""The settings: one table, read as default < file < environment < flag; errors name the key and the line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from . import yaml_file as yamlfile
from .model_rules import ModelRule, rule_list
from .value_types import (
    Address,
    Kind,
    MisplacedError,
    address,
    choice,
    count,
    did_you_mean,
    duration,
    flag,
    listing,
    mapping,
    number,
    server_url,
    text,
    url_path,
)

ENVIRONMENT_PREFIX = "AI_ENERGY_"

_KUBERNETES_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")
"""Variables that Kubernetes sets in every pod for a Service called ``ai-energy…``; they are not ours."""


class ConfigError(Exception):
    """The settings cannot be used; ``problems`` has one line for each thing wrong with them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def _setting(
    name: str, kind: Kind, default: object, about: str, *, reloadable: bool = False, in_file: bool = True
) -> Any:
    metadata = {"name": name, "kind": kind, "help": about, "reloadable": reloadable, "in_file": in_file}
    return field(default_factory=lambda: default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting and its default; durations are seconds, powers are watts, None means "the exporter decides"."""

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
        "YAML file with TLS, client certificates, logins and headers, as other exporters have it (web-security.md). "
        "Read again when it or a certificate changes.",
    )
    web_health_address: tuple[Address, ...] = _setting(
        "web.health-address",
        listing(address()),
        (),
        "More addresses to listen on, where only /-/healthy, /-/ready and their like are served, "
        "without TLS and to everybody: for probes that cannot show a certificate.",
    )
    web_max_requests: int = _setting(
        "web.max-requests", count(1, 10_000), 40, "Requests served at the same time; more are answered 503."
    )
    path_procfs: str = _setting("path.procfs", text("DIR"), "/proc", "Where the host's procfs is mounted.")
    path_sysfs: str = _setting("path.sysfs", text("DIR"), "/sys", "Where the host's sysfs is mounted.")
    path_cgroupfs: str = _setting(
        "path.cgroupfs", text("DIR"), "", "Where the host's cgroup hierarchy is mounted; empty finds it below sysfs."
    )
    path_pod_resources: str = _setting(
        "path.pod-resources",
        text("FILE"),
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "Socket of the kubelet's PodResources API, which tells which container was given which GPU.",
    )
    sample_interval: float = _setting(
        "sample.interval",
        duration(0.1, 60.0),
        1.0,
        "Time between two readings of the meters; independent of how often Prometheus scrapes.",
        reloadable=True,
    )
    state_file: str = _setting(
        "state.file",
        text("FILE"),
        "",
        "Checkpoint of the counters, so that they go on after a restart; empty keeps none.",
    )
    state_interval: float = _setting(
        "state.interval", duration(1.0, 3600.0), 60.0, "Time between two full checkpoints."
    )
    source_timeout: float = _setting(
        "source.timeout",
        duration(0.01, 60.0),
        0.5,
        "Deadline for one reading of one source; never longer than sample.interval.",
    )
    source_rapl: bool | None = _setting(
        "source.rapl", flag(), None, "Read CPU and DRAM joules from /sys/class/powercap (Intel, AMD)."
    )
    source_nvml: bool | None = _setting(
        "source.nvml", flag(), None, "Read NVIDIA GPUs through NVML: joules, state, and who uses them."
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
        "Ask the kubelet which container was given which GPU, so that one that is given and idle is charged.",
    )
    source_estimate: bool | None = _setting(
        "source.estimate",
        flag(),
        None,
        "Estimate CPU watts from utilisation; on by default only where no CPU meter is.",
    )
    source_procfs: bool | None = _setting("source.procfs", flag(), None, "Read CPU seconds per process from /proc.")
    source_cgroups: bool | None = _setting("source.cgroups", flag(), None, "Read CPU seconds per cgroup.")
    source_psutil: bool | None = _setting(
        "source.psutil", flag(), None, "Read CPU seconds per process through psutil, on systems without /proc."
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
        "Idle watts of a device, where you know better than the learned value.",
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
        "Who is charged for the idle joules of CPU and DRAM: nobody (they stay with the node), or whoever is busy.",
        reloadable=True,
    )
    process_top: int = _setting(
        "process.top",
        count(0, 100_000),
        50,
        "Processes shown: those with the most joules, and every process on a GPU besides; of those that ended, "
        "four times as many at most, and 200 on a GPU.",
        reloadable=True,
    )
    container_max: int = _setting(
        "container.max",
        count(1, 1_000_000),
        5000,
        "Container accounts shown; what is beyond them is folded, never lost.",
    )
    workload_linger: float = _setting(
        "workload.linger",
        duration(300.0, 86_400.0),
        300.0,
        "How long the counters of an ended workload stay exposed, so that Prometheus sees their last value.",
        reloadable=True,
    )
    models: tuple[ModelRule, ...] = _setting(
        "models",
        rule_list(),
        (),
        "Rules that say which model a process works for, where no label does; the first that matches wins.",
    )
    models_keys: tuple[str, ...] = _setting(
        "models.keys",
        listing(text("KEY")),
        ("ai-energy-exporter/model-name", "model.aibrix.ai/name", "serving.kserve.io/inferenceservice"),
        "Annotations or labels of a pod or container whose value is the name of its model; the first it has wins.",
    )
    models_phase_keys: tuple[str, ...] = _setting(
        "models.phase-keys",
        listing(text("KEY")),
        ("ai-energy-exporter/phase",),
        "Annotations or labels whose value is the phase: training or inference.",
    )
    models_ask_servers: bool = _setting(
        "models.ask-servers",
        flag(),
        False,
        "Ask a model server on this machine for the name that its command line does not tell: GET /v1/models.",
    )
    kubernetes_names: Literal["auto", "api", "kubelet", "off"] = _setting(
        "kubernetes.names",
        choice("auto", "api", "kubelet", "off"),
        "auto",
        "Who is asked for the names of pods: the API server, this node's kubelet, or nobody; "
        "auto is the API server inside a cluster. See kubernetes.md.",
    )
    kubernetes_node_name: str = _setting(
        "kubernetes.node-name",
        text("NAME"),
        "",
        "This node's name in the cluster; empty is the variable NODE_NAME, else the host name.",
    )
    kubernetes_url: str = _setting(
        "kubernetes.url",
        server_url(),
        "",
        "Address of the API server or kubelet; empty is what Kubernetes tells every pod.",
    )
    kubernetes_credentials: str = _setting(
        "kubernetes.credentials",
        text("DIR"),
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "Directory with token and ca.crt, read anew for each request.",
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
        "Socket to ask for the names of Docker's containers; empty is /var/run/docker.sock where that may be used.",
    )
    podman_socket: str = _setting(
        "podman.socket",
        text("FILE|off"),
        "",
        "Socket to ask for the names of Podman's containers; empty is /run/podman/podman.sock where that may be used.",
    )
    demo: bool = _setting("demo", flag(), False, "Show a simulated GPU node instead of this machine.")
    demo_seed: int = _setting("demo.seed", count(0, 2**31 - 1), 1, "Seed of the simulated node.")
    log_level: str = _setting(
        "log.level", choice("debug", "info", "warn", "error"), "info", "Least severe level to log.", reloadable=True
    )
    log_format: str = _setting(
        "log.format", choice("logfmt", "json"), "logfmt", "Format of log lines.", reloadable=True
    )

    @property
    def enabled_sources(self) -> dict[str, bool | None]:
        """Source name → True, False, or None where the exporter decides."""
        return {name: getattr(self, f"source_{name}") for name in SOURCES}

    @property
    def estimate_watts_per_cpu(self) -> tuple[float, float] | None:
        """Watts of one idle and of one busy logical CPU, None where the exporter decides."""
        low, high = self.estimate_min_watts_per_cpu, self.estimate_max_watts_per_cpu
        return None if low is None or high is None else (low, high)


class Setting(NamedTuple):
    """One row of the table. ``in_file`` is False for what only a flag or the environment can say."""

    name: str
    field: str
    kind: Kind
    default: Any
    help: str
    reloadable: bool
    in_file: bool

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return ENVIRONMENT_PREFIX + re.sub(r"[.-]", "_", self.name).upper()


def _rows() -> Iterator[Setting]:
    defaults = Settings()
    for row in dataclasses.fields(Settings):
        yield Setting(field=row.name, default=getattr(defaults, row.name), **row.metadata)


TABLE: Mapping[str, Setting] = {row.name: row for row in _rows()}
"""Every setting by name, in the order of the help."""

SOURCES: tuple[str, ...] = ("rapl", "nvml", "hwmon", "drm", "podresources", "estimate", "procfs", "cgroups", "psutil")
"""Sources that can be switched; the registry of sources has the same names."""


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Read every layer and check all of it, also what a higher layer overrides.

    ``flags`` maps setting names to what the command line gave: text, a list of texts, or a bool. Empty
    environment variables count as unset. Raises `ConfigError` with every problem found.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    environment = _environment(environ, problems)
    given = {name: (f"--{name}", value) for name, value in flags.items()}

    path = str((given.get("config.file") or environment.get("config.file") or ("", ""))[1])
    layers: list[Mapping[str, tuple[str, Any]]] = [environment, given]
    if path.isprintable() and path:  # any other path is complained of below
        allowed = [row.name for row in TABLE.values() if row.in_file]
        mappings, records = ([n for n in allowed if TABLE[n].kind.shape == shape] for shape in ("mapping", "records"))
        content, errors = yamlfile.read(path, allowed, mappings, records)
        problems += errors
        layers.insert(0, content)

    for layer in layers:
        for name, (where, value) in layer.items():
            row = TABLE[name]
            try:
                values[row.field] = row.kind.parse(value)
            except MisplacedError as error:
                here = where if where == f"--{name}" else f"{where}: {name}"
                problems += [
                    f"{place}: {name}: {message}" if place else f"{here}: {message}"
                    for place, message in error.problems
                ]
            except ValueError as error:
                problems.append(f"{where}: {error}" if where == f"--{name}" else f"{where}: {name}: {error}")
    if not problems:
        settings = Settings(**values)
        problems += _contradictions(settings)
    if problems:
        raise ConfigError(problems)
    return settings


def reloaded(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The settings to go on with after a reload, and the names of those that changed but need a restart."""
    changed = [row for row in TABLE.values() if getattr(old, row.field) != getattr(new, row.field)]
    taken = {row.field: getattr(new, row.field) for row in changed if row.reloadable}
    return dataclasses.replace(old, **taken), [row.name for row in changed if not row.reloadable]


def _environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, tuple[str, object]]:
    names = {row.variable: row.name for row in TABLE.values()}
    found: dict[str, tuple[str, object]] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or not value:
            continue
        if variable in names:
            found[names[variable]] = (variable, value)
        elif not _KUBERNETES_LINK.search(variable):
            problems.append(f"{variable}: no such setting{did_you_mean(variable, names)}")
    return found


def _contradictions(settings: Settings) -> Iterator[str]:
    low, high = settings.estimate_min_watts_per_cpu, settings.estimate_max_watts_per_cpu
    if (low is None) != (high is None):
        yield "estimate.min-watts-per-cpu and estimate.max-watts-per-cpu go together: set both or neither"
    elif low is not None and high is not None and low > high:
        yield f"estimate.min-watts-per-cpu ({low:g}) is above estimate.max-watts-per-cpu ({high:g})"
