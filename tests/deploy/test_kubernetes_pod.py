"""What the manifests say of the program is true of the program: flags, variables, paths, probes; and it runs like that.

There is no kubelet here. The pod's root is a tmpfs with this machine's interpreter; the volumes are bound into it as a
container runtime does, from a written host, read-only where the manifest says so. Seccomp and SELinux are not in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from exporter.config.loading import load
from exporter.config.settings_table import ENVIRONMENT_PREFIX
from exporter.exposition.web.tls_config import TLS_NAMES
from tests.support import installed
from tests.support.manifests import OVERLAYS, Object, mounts, of_kind, pods, render, variables
from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

each = pytest.mark.parametrize("name", OVERLAYS)

KNOWN_VARIABLES = {"NODE_NAME", "NODE_REGION", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
MASKED = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"}
"""What container runtimes hide of a container's own /proc, with hostPID too."""


@each
def test_flags_variables_and_file_are_accepted(name: str, tmp_path: Path) -> None:
    objects = render(name)
    (config,) = [item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"] == "ai-energy-exporter"]
    (tmp_path / "config.yaml").write_text(config["data"]["config.yaml"])
    for _, pod in pods(objects):
        (container,) = pod["containers"]
        given = variables(container)
        own = {key: value for key, value in given.items() if key.startswith(ENVIRONMENT_PREFIX)}
        assert set(given) - set(own) <= KNOWN_VARIABLES
        assert "args" not in container  # doctor in the same container would not have them
        own["AI_ENERGY_CONFIG_FILE"] = own["AI_ENERGY_CONFIG_FILE"].replace("/etc/ai-energy-exporter", str(tmp_path))
        settings = load({}, own)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert [(address.host, address.port) for address in settings.web_listen_address] == [("", ports["metrics"])]
        assert [(address.host, address.port) for address in settings.web_health_address] == [("", ports["health"])]
        assert settings.log_format == "json"


@each
def test_every_path_that_is_named_is_mounted(name: str) -> None:
    for _, pod in pods(render(name)):
        (container,) = pod["containers"]
        places = {mount["mountPath"] for mount, _ in mounts(pod)}
        own = {key: value for key, value in variables(container).items() if key.startswith(ENVIRONMENT_PREFIX)}
        config = own.pop("AI_ENERGY_CONFIG_FILE")  # is not there to be read
        settings = load({}, own)
        assert settings.path_sysfs == "/host/sys"  # parts of it: see below
        named = {config, settings.state_file, settings.web_config_file, settings.bmc_redfish_credentials}
        if settings.source_podresources is not False:
            named.add(settings.path_pod_resources)
        named.discard("")
        assert {path for path in named if not any(path.startswith(f"{place}/") for place in places)} == set()


def test_all_that_the_exporter_reads_of_sys_is_mounted() -> None:
    ((_, pod),) = pods(render("base"))
    places = {
        mount["mountPath"].removeprefix("/host/sys/"): volume["hostPath"]["path"].removeprefix("/sys/")
        for mount, volume in mounts(pod)
        if mount["mountPath"].startswith("/host/sys/")
    }
    assert set(places) == set(places.values())
    wanted = set(re.findall(r'\.sys\(\s*f?"([^"{]+)', _source()))
    assert len(wanted) > 5
    wanted -= {"cray/pm_counters"}  # a hostPath that is on some nodes only stops the pod on all others (meters.md)
    assert {path for path in wanted if not any(f"{path}/".startswith(f"{place}/") for place in places)} == set()


def test_nothing_that_it_reads_of_proc_is_masked() -> None:
    wanted = {path.partition("/")[0] for path in re.findall(r'\.proc\(\s*f?"([^"{]+)', _source())}
    assert {"stat", "self", "driver"} <= wanted
    assert wanted & MASKED == set()


def _source() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "exporter").rglob("*.py"))


def test_the_web_configuration_asks_for_certificates_that_are_mounted() -> None:
    objects = render("overlays/mtls")
    (found,) = [item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"].endswith("-web")]
    (section,) = yaml.safe_load(found["data"]["web.yml"]).values()
    assert {f"tls_server_config.{key}" for key in section} <= set(TLS_NAMES)
    assert section["client_auth_type"] == "RequireAndVerifyClientCert"
    # what the Secrets of cert-manager have, and relative to the file
    assert {value for key, value in section.items() if key.endswith("_file")} == {"tls.crt", "tls.key", "ca.crt"}


class Pod:
    """A pod of a DaemonSet, on a host that is written into a folder."""

    def __init__(self, folder: Path, overlay: str) -> None:
        self.host = folder / "host"
        self.ca = trustme.CA()
        issued = self.ca.issue_cert("ai-energy-exporter.ai-energy-exporter.svc")
        self._secret = {
            "tls.crt": issued.cert_chain_pems[0].bytes().decode(),
            "tls.key": issued.private_key_pem.bytes().decode(),
            "ca.crt": self.ca.cert_pem.bytes().decode(),
        }
        ((_, self.pod),) = pods(render(overlay))
        (self.container,) = self.pod["containers"]
        self._config = {item["metadata"]["name"]: item["data"] for item in of_kind(render(overlay), "ConfigMap")}
        self._write_host()
        with open(folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", self._script(folder / "root")],
                env={
                    "PATH": os.defpath + ":/usr/sbin:/sbin",
                    "NODE_NAME": "node-1",
                    **variables(self.container),
                    "AI_ENERGY_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
                    "AI_ENERGY_WEB_HEALTH_ADDRESS": "127.0.0.1:0",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.log = folder / "log"
        try:
            wait_for(self._listens, "the pod")
        except BaseException:
            self.stop()
            raise
        said = self.log.read_text()
        self.metrics, self.health = re.findall(r" on (https?://[\d.]+:\d+)", said)

    def _write_host(self) -> None:
        zone = self.host / "sys/class/powercap/intel-rapl:0"
        for directory in ("sys/devices", "sys/bus", "sys/fs/cgroup", "var/lib/kubelet/pod-resources"):
            (self.host / directory).mkdir(parents=True)
        zone.mkdir(parents=True)
        for file, text in {"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "65532610987"}.items():
            (zone / file).write_text(f"{text}\n")
        (zone / "energy_uj").chmod(0o400)
        self.meter = zone / "energy_uj"
        self.state = self.host / "var/lib/ai-energy-exporter"

    def _script(self, root: Path) -> str:
        lines = ["set -eu", f"mkdir {root}", f"mount -t tmpfs tmpfs {root}", f"cd {root}"]
        system = [path for path in map(Path, ("/usr", "/lib", "/lib64", "/bin", "/dev", "/proc")) if path.exists()]
        code = [Path(sys.base_prefix), Path(sysconfig.get_path("purelib")), REPOSITORY / "exporter"]
        binds = {str(path): str(path) for path in system} | {str(path): f"/app/{path.name}" for path in code}
        read_only = []
        for mount, volume in mounts(self.pod):
            place = mount["mountPath"]
            if "hostPath" not in volume:
                files = [self._files(source) for source in volume.get("projected", {}).get("sources", [volume])]
                for file, text in (item for found in files for item in found.items()):
                    lines += [f"mkdir -p .{place}", f"printf %s {shlex.quote(text)} > .{place}/{file}"]
                continue
            source = self.host / volume["hostPath"]["path"].removeprefix("/")
            if volume["hostPath"]["type"] == "DirectoryOrCreate":
                source.mkdir(parents=True, exist_ok=True)
            assert source.is_dir()
            binds[str(source)] = place
            read_only += [place] if mount.get("readOnly") else []
        for source_path, place in binds.items():
            lines += [f"mkdir -p .{place}", f"mount --rbind {shlex.quote(source_path)} .{place}"]
        lines += [f"mount -o remount,ro,bind .{place}" for place in read_only]
        if self.container["securityContext"]["readOnlyRootFilesystem"]:
            lines.append(f"mount -o remount,ro {root}")
        context = self.pod["securityContext"]
        interpreter = f"/app/{Path(sys.base_prefix).name}/bin/{Path(sys.executable).resolve().name}"
        libraries = f"/app/{Path(sys.base_prefix).name}/lib"
        rights = ["--reuid", context["runAsUser"], "--regid", context["runAsGroup"], "--clear-groups", "--no-new-privs"]
        drop = ["--bounding-set=-all", "--inh-caps=-all"]
        command = ["chroot", root, "setpriv", *rights, *drop, "env", "PYTHONPATH=/app:/app/site-packages"]
        command += [f"LD_LIBRARY_PATH={libraries}", "PYTHONDONTWRITEBYTECODE=1", interpreter, "-m", "exporter"]
        return "\n".join([*lines, "exec " + shlex.join(map(str, command))])

    def _files(self, source: Object) -> dict[str, str]:
        return self._config[source["configMap"]["name"]] if "configMap" in source else self._secret

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        return "health is served on" in self.log.read_text()

    def probe(self, kind: str) -> int:
        """Status of one of its probes."""
        return self.get(self.health + self.container[kind]["httpGet"]["path"])[0]

    @staticmethod
    def get(url: str) -> tuple[int, str]:
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(url, timeout=patience()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def scrape(self) -> str:
        """The metrics page."""
        return self.get(self.metrics + "/metrics")[1]

    def stop(self) -> None:
        """End it: all that `unshare` and the script start, they become."""
        self._process.kill()
        self._process.wait(patience())


@pytest.fixture
def pod(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pod]:
    if reason := installed.impossible():
        pytest.skip(reason)
    made = Pod(tmp_path, request.param)
    yield made
    made.stop()
    with pytest.raises(urllib.error.URLError):  # nothing of it is left
        made.probe("livenessProbe")


def _joules(pod: Pod) -> float | None:
    line = r'^energy_device_joules_total\{[^}]*device="package-0"[^}]*\} (\S+)$'
    found = re.findall(line, pod.scrape(), re.MULTILINE)
    return float(found[0]) if found else None


@pytest.mark.parametrize("pod", ["base"], indirect=True)
def test_root_without_capabilities_reads_what_is_root_s_and_keeps_its_state(pod: Pod) -> None:
    wait_for(lambda: pod.probe("startupProbe") == 200, "the first sample")
    assert (pod.probe("readinessProbe"), pod.probe("livenessProbe")) == (200, 200)
    assert pod.get(pod.health + "/metrics")[0] == 404
    wait_for(lambda: _joules(pod) is not None, "RAPL")
    pod.meter.write_text("3000000\n")
    wait_for(lambda: _joules(pod) == 2.0, "two joules")
    assert (pod.state / "state").stat().st_size > 0


@pytest.mark.parametrize("pod", ["overlays/nonroot"], indirect=True)
def test_another_user_reads_rapl_only_where_the_group_may(pod: Pod) -> None:
    wait_for(lambda: pod.probe("startupProbe") == 200, "the first sample")
    assert _joules(pod) is None
    assert 'energy_source_up{source="podresources"}' not in pod.scrape()
    os.chown(pod.meter, 0, pod.pod["securityContext"]["runAsGroup"])
    pod.meter.chmod(0o440)
    wait_for(lambda: _joules(pod) is not None, "RAPL")


@pytest.mark.parametrize("pod", ["overlays/mtls"], indirect=True)
def test_only_who_has_a_certificate_scrapes_and_probes_need_none(pod: Pod) -> None:
    wait_for(lambda: pod.probe("startupProbe") == 200, "the first sample")
    assert (pod.probe("readinessProbe"), pod.probe("livenessProbe")) == (200, 200)
    context = ssl.create_default_context()
    pod.ca.configure_trust(context)
    assert _scraped(pod, context) == b""
    pod.ca.issue_cert("prometheus.monitoring.svc").configure_cert(context)
    wait_for(lambda: b"energy_device_joules_total" in _scraped(pod, context), "a scrape")


def _scraped(pod: Pod, context: ssl.SSLContext) -> bytes:
    """What a client with this context gets, which connects to an address and goes by the name in docs/."""
    address = urllib.parse.urlsplit(pod.metrics)
    assert address.scheme == "https"
    name = "ai-energy-exporter.ai-energy-exporter.svc"
    received = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection((address.hostname, address.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        while part := client.recv(65536):
            received += part
    return received


def test_the_udev_rule_and_the_directories_are_for_the_user_of_the_pod() -> None:
    ((_, spec),) = pods(render("overlays/nonroot"))
    user = str(spec["securityContext"]["runAsUser"])
    folder = REPOSITORY / "deploy/kubernetes/overlays/nonroot"
    rule = (folder / "60-ai-energy-exporter.rules").read_text().splitlines()[-1]
    assert f"/bin/chgrp {user} /sys%p/energy_uj" in rule
    lines = [line.split() for line in (folder / "ai-energy-exporter.conf").read_text().splitlines()[1:]]
    paths = {volume["name"]: volume["hostPath"]["path"] for _, volume in mounts(spec) if "hostPath" in volume}
    assert lines == [["d", paths["state"], "0750", user, user, "-"], ["d", paths["run"], "0755", user, user, "-"]]
