"""Settings of the web server, of files and of what is read: name, type, default and what each means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .value_types import (
    Address,
    ValueType,
    address,
    choice,
    count,
    duration,
    fingerprint,
    flag,
    listing,
    mapping,
    number,
    number_range,
    server_url,
    text,
    url_path,
    word_or,
)


def setting(
    name: str, value_type: ValueType, default: object, about: str, *, reloadable: bool = False, in_file: bool = True
) -> Any:
    """A field that is a setting; ``in_file`` is False for what only a flag or the environment can set."""
    metadata = {"name": name, "value_type": value_type, "help": about, "reloadable": reloadable, "in_file": in_file}
    return field(default_factory=lambda: default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingSettings:
    """The first settings of `exporter.config.settings.Settings`."""

    config_file: str = setting(
        "config.file", text("FILE"), "", "YAML file with settings; keys are nested or dotted.", in_file=False
    )
    web_listen_address: tuple[Address, ...] = setting(
        "web.listen-address",
        listing(address()),
        (Address("127.0.0.1", 9400),),
        "Address to listen on, HOST:PORT or [IPV6]:PORT; an empty host is every interface.",
    )
    web_telemetry_path: str = setting("web.telemetry-path", url_path(), "/metrics", "Path of the metrics page.")
    web_config_file: str = setting(
        "web.config.file",
        text("FILE"),
        "",
        "YAML file with TLS, client certificates, logins and headers, in the format of other exporters "
        "(web-security.md). Reloaded when it or a certificate changes.",
    )
    web_health_address: tuple[Address, ...] = setting(
        "web.health-address",
        listing(address()),
        (),
        "Additional addresses that serve only the health pages (/-/healthy, /-/ready, /healthz, /readyz), "
        "without TLS or login: for probes that cannot present a certificate.",
    )
    web_max_requests: int = setting(
        "web.max-requests",
        count(1, 10_000),
        40,
        "Maximum number of responses written at the same time; further requests get a 503.",
    )
    path_procfs: str = setting("path.procfs", text("DIR"), "/proc", "Mount point of the host's procfs.")
    path_sysfs: str = setting("path.sysfs", text("DIR"), "/sys", "Mount point of the host's sysfs.")
    path_cgroupfs: str = setting(
        "path.cgroupfs",
        text("DIR"),
        "",
        "Mount point of the host's cgroup hierarchy; if empty, it is searched for below sysfs.",
    )
    path_pod_resources: str = setting(
        "path.pod-resources",
        text("FILE"),
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "Socket of the kubelet's PodResources API, which lists the GPUs allocated to each container.",
    )
    sample_interval: float = setting(
        "sample.interval",
        duration(0.1, 60.0),
        1.0,
        "Time between two readings of the meters; independent of the scrape interval.",
        reloadable=True,
    )
    state_file: str = setting(
        "state.file",
        text("FILE"),
        "",
        "Checkpoint file from which counters continue after a restart; empty disables it.",
    )
    state_interval: float = setting("state.interval", duration(1.0, 3600.0), 60.0, "Time between two full checkpoints.")
    history_file: str = setting(
        "history.file",
        text("FILE"),
        "",
        "File in which the exporter keeps its own hourly history, for report without a Prometheus (report.md); empty "
        "disables it.",
    )
    history_retention: float = setting(
        "history.retention",
        duration(86_400.0, 3650 * 86_400.0),
        400 * 86_400.0,
        "Length of the history; only hours in which the exporter ran count.",
    )
    source_timeout: float = setting(
        "source.timeout",
        duration(0.01, 60.0),
        0.5,
        "Deadline for one reading of one source; capped at sample.interval.",
    )
    source_rapl: bool | None = setting(
        "source.rapl", flag(), None, "Read CPU and DRAM joules from /sys/class/powercap (Intel, AMD)."
    )
    source_nvml: bool | None = setting(
        "source.nvml", flag(), None, "Read NVIDIA GPUs through NVML: joules, state and the processes that use them."
    )
    source_gaudi: bool | None = setting(
        "source.gaudi", flag(), None, "Read Intel Gaudi cards through libhlml: joules, state and the process on each."
    )
    source_neuron: bool | None = setting(
        "source.neuron", flag(), None, "Read the power utilization of AWS Trainium and Inferentia devices."
    )
    source_tpu: bool | None = setting(
        "source.tpu", flag(), None, "Read duty cycle and memory of Google TPUs from the runtime's port on this machine."
    )
    source_hwmon: bool | None = setting(
        "source.hwmon",
        flag(),
        None,
        "Read joules or watts from /sys/class/hwmon (AMD GPU, Grace, server power meters).",
    )
    source_drm: bool | None = setting(
        "source.drm",
        flag(),
        None,
        "Read which processes use AMD and Intel GPUs, from /proc/PID/fdinfo and /sys/class/kfd.",
    )
    source_powercap: bool | None = setting(
        "source.powercap", flag(), None, "Read the zones of /sys/class/powercap other than RAPL's (Arm SCMI)."
    )
    source_cray: bool | None = setting(
        "source.cray", flag(), None, "Read joules of the node, CPU, memory and accelerators from /sys/cray/pm_counters."
    )
    source_podresources: bool | None = setting(
        "source.podresources",
        flag(),
        None,
        "Read GPU allocations from the kubelet, so that idle power of an allocated GPU is attributed to its container.",
    )
    source_estimate: bool | None = setting(
        "source.estimate",
        flag(),
        None,
        "Estimate CPU watts from utilisation; by default only on machines without a CPU meter.",
    )
    source_procfs: bool | None = setting("source.procfs", flag(), None, "Read CPU seconds per process from /proc.")
    source_cgroups: bool | None = setting("source.cgroups", flag(), None, "Read CPU seconds per cgroup.")
    source_psutil: bool | None = setting(
        "source.psutil", flag(), None, "Read CPU seconds per process through psutil, on systems without /proc."
    )
    source_inference: bool | None = setting(
        "source.inference",
        flag(),
        None,
        "Read tokens and requests from the metrics pages of the model servers on this machine (tokens.md).",
    )
    source_custom: bool | None = setting("source.custom", flag(), None, "Read the meters of meters and meters.file.")
    source_regions: bool | None = setting(
        "source.regions", flag(), None, "Accept what programs report of their regions (regions.md)."
    )
    regions_socket: str = setting(
        "regions.socket",
        text("FILE"),
        "/run/ai-energy-exporter/regions.sock",
        "Socket on which programs report their regions; they find it there or by AI_ENERGY_REGIONS_SOCKET.",
    )
    source_bmc: bool | None = setting(
        "source.bmc",
        flag(),
        None,
        "Read the energy or power of the whole machine from its BMC; needs bmc.redfish.url or bmc.ipmi (bmc.md).",
    )
    bmc_redfish_url: str = setting(
        "bmc.redfish.url",
        server_url(per_node=True),
        "",
        "Address of this machine's BMC, such as https://10.0.0.17 or https://{node}-bmc.example.com; {node} stands for "
        "the name of the node. Over http a password is sent to this machine only.",
    )
    bmc_redfish_credentials: str = setting(
        "bmc.redfish.credentials",
        text("FILE"),
        "",
        "File with USER:PASSWORD of a BMC user with the role ReadOnly; it must not be readable by all users. Read for "
        "each login.",
    )
    bmc_redfish_ca: str = setting(
        "bmc.redfish.ca", text("FILE"), "", "CA of the BMC's certificate, as PEM; the default is the system's CAs."
    )
    bmc_redfish_fingerprint: str = setting(
        "bmc.redfish.fingerprint",
        fingerprint(),
        "",
        "SHA-256 of the BMC's own certificate; no other one is accepted, and this one with any signature.",
    )
    bmc_redfish_insecure: bool = setting(
        "bmc.redfish.insecure",
        flag(),
        False,
        "Accept any certificate: any server that answers at the BMC's address gets the password.",
    )
    bmc_redfish_system: str = setting(
        "bmc.redfish.system", text("ID"), "", "Which system is this machine, where a BMC has several."
    )
    bmc_ipmi: bool = setting(
        "bmc.ipmi",
        flag(),
        False,
        "Ask the BMC for the power of the machine through /dev/ipmi0 (DCMI); takes root.",
    )
    bmc_interval: float = setting(
        "bmc.interval",
        duration(10.0, 3600.0),
        10.0,
        "Time between two readings of the BMC; its values change no faster.",
    )
    hwmon_components: Mapping[str, Literal["cpu", "dram", "gpu", "platform", "none"]] = setting(
        "hwmon.components",
        mapping("CHIP/LABEL=COMPONENT", choice("cpu", "dram", "gpu", "platform", "none")),
        {},
        "Component that a hwmon sensor, or a powercap zone (arm-scmi/NAME), measures: cpu, dram, gpu, platform (the "
        "whole machine) or none (shown, never summed). doctor lists the sensors whose meaning is not known.",
    )
    estimate_min_watts_per_cpu: float | None = setting(
        "estimate.min-watts-per-cpu", number("WATTS", 0.0, 1000.0), None, "Estimate: watts of one idle logical CPU."
    )
    estimate_max_watts_per_cpu: float | None = setting(
        "estimate.max-watts-per-cpu", number("WATTS", 0.0, 1000.0), None, "Estimate: watts of one busy logical CPU."
    )
    neuron_watts: tuple[float, float] | None = setting(
        "neuron.watts",
        number_range("LOW-HIGH", 0.0, 10_000.0),
        None,
        "Watts of one Trainium or Inferentia device at 0 % and at 100 % of its power utilization, which AWS does not "
        "publish: with them its joules are estimated, without them it has none (meters.md).",
    )
    tpu_watts: tuple[float, float] | Literal["published"] | None = setting(
        "tpu.watts",
        word_or("published", number_range("LOW-HIGH", 0.0, 10_000.0)),
        None,
        "Watts of one TPU chip at rest and at full duty cycle, or published: Google's own, of v3 and v4 only. "
        "With them its joules are estimated within these bounds, without them it has none (meters.md).",
    )
    idle_watts: Mapping[str, float] = setting(
        "idle.watts",
        mapping("DEVICE=WATTS", number("WATTS", 0.0, 100_000.0)),
        {},
        "Idle watts of a device, overriding the learned value.",
        reloadable=True,
    )
    attribution_cpu: Literal["time", "learned"] = setting(
        "attribution.cpu",
        choice("time", "learned"),
        "time",
        "How active joules of CPU and DRAM are divided: by CPU time, or by CPU time times watts per busy CPU that are "
        "learned for each container (accuracy.md).",
        reloadable=True,
    )
    attribution_cpu_idle: Literal["node", "proportional"] = setting(
        "attribution.cpu-idle",
        choice("node", "proportional"),
        "node",
        "Attribution of the idle joules of CPU and DRAM: to the node only, or to workloads in proportion to their use.",
        reloadable=True,
    )
    attribution_cpu_scope: Literal["detect", "machine"] = setting(
        "attribution.cpu-scope",
        choice("detect", "machine"),
        "detect",
        "What the CPU meters cover: machine, exactly this one (a virtual machine with RAPL counters of its own), or "
        "detect, to find out. Energy of a host is never divided among the workloads of a guest.",
    )
    attribution_gpu_reservations: tuple[str, ...] = setting(
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
