"""The other ways to deploy: overlays, names from the kubelet, the Helm chart. Each leaves nothing in the cluster."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.live import Scrape
from tests.support.repository import REPOSITORY

from .cluster import JOULES, OURS, STATE, Cluster
from .machine import NODE
from .node import limit, wait_for
from .workloads import NAMESPACE

CHART = REPOSITORY / "deploy/helm/ai-energy-exporter"
USER = 65532


def overlays_accepted(cluster: Cluster) -> None:
    """The API server accepts every object of the overlays that need no kinds of others."""
    for name in ("gpu", "mtls", "nonroot", "prometheus"):
        cluster.write_kustomization(base=f"overlays/{name}", daemonset=f"{OURS}-gpu" if name == "gpu" else OURS)
        rendered = cluster.node.kubectl("kustomize", str(cluster.mine))
        # A namespace that only a dry run has made has no objects; those of the cluster stand for it.
        rendered = rendered.replace(f"namespace: {OURS}", "namespace: default").replace(
            "namespace: monitoring", "namespace: default"
        )
        answer = cluster.node.kubectl("apply", "--dry-run=server", "--filename=-", stdin=rendered)
        assert "daemonset.apps" in answer, answer


def gpu_overlay(cluster: Cluster) -> None:
    """``overlays/gpu``: the node is labelled, and its exporter runs in the runtime class."""
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    cluster.node.apply({**runtime, "handler": "nvidia"})
    cluster.node.kubectl("label", "node", NODE, "nvidia.com/gpu.present=true")
    cluster.write_kustomization(base="overlays/gpu", daemonset=f"{OURS}-gpu")
    cluster.deploy()
    pods = [each["metadata"]["name"] for each in cluster.pods(OURS)]
    assert [name.rpartition("-")[0] for name in pods] == [f"{OURS}-gpu"], pods
    cluster.until(lambda scrape: scrape.total("energy_gpu_allocated_ratio") > 2.0, "allocations")
    cluster.node.kubectl("label", "node", NODE, "nvidia.com/gpu.present-")
    cluster.remove()


def nonroot_overlay(cluster: Cluster) -> None:
    """``overlays/nonroot``, with its files on the node: RAPL by the group, counters go on, no allocation."""
    before = cluster.joules
    _give(cluster, USER)
    os.chown(cluster.meter.path, 0, USER)
    cluster.meter.path.chmod(0o440)
    cluster.write_kustomization(base="overlays/nonroot")
    cluster.deploy()
    scrape = cluster.until(
        lambda scrape: scrape if _up(scrape, "rapl") and _up(scrape, "kubernetes") else None, "names"
    )
    assert scrape.total("energy_node_joules_total") >= before
    assert not scrape.find("energy_gpu_allocated_ratio")
    assert cluster.until(_named, "joules under names")
    cluster.recorded["doctor_nonroot"] = cluster.exec("ai-energy-exporter", "doctor", check=False).splitlines()
    cluster.remove()
    _give(cluster, 0)
    os.chown(cluster.meter.path, 0, 0)
    cluster.meter.path.chmod(0o400)


def _give(cluster: Cluster, user: int) -> None:
    """Change the owner of what the exporter writes, as docs/upgrade.md says, and of the scripted driver's file."""
    paths = [Path("/run/ai-energy-exporter"), STATE, *STATE.rglob("*"), cluster.driver.path]
    for path in (*paths, *paths[0].iterdir()):
        os.chown(path, user, user)


def mtls_overlay(cluster: Cluster) -> None:
    """``overlays/mtls``: a client with a certificate is answered, one without is not; probes go on without."""
    cluster.write_kustomization(base="overlays/mtls")
    cluster.node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OURS}})
    server = cluster.node.authority.issue_cert("exporter.example")
    files = {
        "tls.crt": server.cert_chain_pems[0].bytes(),
        "tls.key": server.private_key_pem.bytes(),
        "ca.crt": cluster.node.authority.cert_pem.bytes(),
    }
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    metadata = {"name": f"{OURS}-tls", "namespace": OURS}
    cluster.node.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    cluster.deploy()
    context = ssl.create_default_context(cadata=files["ca.crt"].decode())
    context.check_hostname = False
    url = f"https://{cluster.address()}:9400/metrics"
    try:
        urllib.request.urlopen(url, timeout=limit(10), context=context)
    except (urllib.error.URLError, OSError):
        pass
    else:
        raise AssertionError("answered a client without a certificate")
    cluster.node.authority.issue_cert("client.example").configure_cert(context)
    with urllib.request.urlopen(url, timeout=limit(10), context=context) as answer:
        assert b"energy_node_joules_total" in answer.read()
    cluster.remove()


def helm(cluster: Cluster) -> None:
    """The chart: install, names from the kubelet, upgrade, rollback, uninstall; counters continue all along."""
    program = os.environ.get("HELM") or shutil.which("helm") or str(cluster.programs / "helm")
    cluster.recorded["helm"] = _helm(cluster, program, "version", "--short")
    before = cluster.joules
    values: dict[str, Any] = {
        "image": {"repository": f"docker.io/library/{OURS}", "tag": "0.1.0"},
        "settings": {"log.format": "json", "attribution.cpu-scope": "machine"},
    }
    here = ("-n", OURS)
    _helm(cluster, program, "install", OURS, str(CHART), *here, "--create-namespace", "--values=-", stdin=values)
    cluster.node.kubectl("label", "namespace", OURS, "pod-security.kubernetes.io/enforce=privileged")
    cluster.rolled_out()
    scrape = cluster.until(lambda scrape: scrape if _named(scrape) else None, "joules under names")
    assert scrape.total("energy_node_joules_total") >= before
    kubelet = {**values["settings"], "kubernetes.names": "kubelet"}
    changed = {**values, "image": {**values["image"], "tag": "0.2.0"}, "settings": kubelet}
    _helm(cluster, program, "upgrade", OURS, str(CHART), *here, "--values=-", stdin=changed)
    cluster.rolled_out()
    rules = cluster.node.get("clusterrole", OURS)["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [(["nodes/pods"], ["get"])], rules
    cluster.until(lambda scrape: _up(scrape, "kubernetes") and _named(scrape), "names from the kubelet")
    after = cluster.scrape()
    assert after.total("energy_node_joules_total") >= scrape.total("energy_node_joules_total")
    _helm(cluster, program, "rollback", OURS, "1", *here)
    cluster.rolled_out()
    ours = cluster.exporter()
    assert ours is not None
    assert ours["spec"]["containers"][0]["image"].endswith(":0.1.0")
    cluster.until(lambda scrape: _up(scrape, "kubernetes") and _named(scrape), "names from the API server")
    assert cluster.scrape().total("energy_node_joules_total") >= after.total("energy_node_joules_total")
    _helm(cluster, program, "uninstall", OURS, *here, "--wait")
    kinds = "all,configmaps,serviceaccounts"
    wait_for(lambda: OURS not in cluster.node.kubectl("get", kinds, *here, "-o", "name"), "the end of all objects")
    cluster.node.kubectl("delete", "namespace", OURS)
    assert (STATE / "state").exists()


def _helm(cluster: Cluster, program: str, *words: str, stdin: Any = None) -> str:
    environment = {**os.environ, "KUBECONFIG": str(cluster.node.kubeconfig), "HOME": str(cluster.node.scratch)}
    text = None if stdin is None else json.dumps(stdin)
    command = [program, *words]
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def _up(scrape: Scrape, source: str) -> bool:
    return scrape.total("energy_source_up", source=source) == 1.0


def _named(scrape: Scrape) -> bool:
    return scrape.total(JOULES, namespace=NAMESPACE, pod="trainer-0", container="trainer", runtime="kubernetes") > 0


VARIANTS = (overlays_accepted, gpu_overlay, nonroot_overlay, mtls_overlay, helm)
