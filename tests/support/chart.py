"""The Helm chart's cases, and the renderings of them that a real helm made and ``make chart-check`` recorded."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.manifests import Object, identity
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "deploy/helm/ai-energy-exporter"
GOLDEN = REPOSITORY / "tests/deploy/chart.json"
NAMESPACE = "ai-energy-exporter"
CHECKSUM = "checksum/settings"
"""The one annotation that the chart adds: with it, changed settings restart the pods."""

_COPIED = ("parts/dashboards", "parts/rules", "parts/scrape-config/rules.yaml")
"""What ``make manifests`` writes. The chart hands it on, so what is in it needs no new recording."""


class Case(NamedTuple):
    """Values of the chart, and the folders of deploy/kubernetes that have the same objects."""

    values: dict[str, Any]
    same_as: tuple[str, ...]


_HERE = {"namespace": {"create": True}}

CASES = {
    "base": Case(_HERE, ("base",)),
    "gpu": Case({**_HERE, "nvidia": {"enabled": True}}, ("overlays/gpu",)),
    "mtls": Case({**_HERE, "tls": {"enabled": True}}, ("overlays/mtls",)),
    "nonroot": Case({**_HERE, "nonroot": {"enabled": True}}, ("overlays/nonroot",)),
    "openshift": Case({**_HERE, "openshift": {"enabled": True}}, ("overlays/openshift",)),
    "bmc": Case({**_HERE, "bmc": {"enabled": True}}, ("overlays/bmc",)),
    "prometheus-operator": Case(
        {**_HERE, "podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        ("overlays/prometheus-operator",),
    ),
    "prometheus": Case({**_HERE, "scrapeConfig": {"enabled": True}}, ("overlays/prometheus",)),
    "servicemonitor": Case({**_HERE, "serviceMonitor": {"enabled": True}}, ("base", "parts/servicemonitor")),
}
"""Every overlay, by values."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {
        "image": {
            "repository": "registry.example.com/ai-energy-exporter",
            "digest": f"sha256:{'0' * 64}",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "registry"}],
        },
        "settings": {"sample.interval": "2s", "kubernetes.names": "kubelet", "idle.watts": {"package-0": 45}},
        "extraEnv": [{"name": "AI_ENERGY_LOG_LEVEL", "value": "debug"}],
        "podAnnotations": {"example.com/team": "platform"},
        "podLabels": {"team": "platform"},
        "resources": {"limits": {"memory": "256Mi"}},
        "nodeSelector": {"pool": "ml"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priorityClassName": "system-node-critical",
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}},
        "kubelet": {"directory": "/var/lib/k0s/kubelet"},
        "state": {"hostPath": "/srv/energy"},
        "nvidia": {"enabled": True, "runtimeClassName": "nvidia-cdi"},
        "tls": {"enabled": True, "secretName": "mine"},
        "bmc": {"enabled": True, "secretName": "bmcs"},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "extraEgress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
        },
        "podMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "endpoint": {"interval": "30s", "scheme": "https", "tlsConfig": {"serverName": "energy"}},
        },
        "dashboards": {"labels": {"board": "1"}, "annotations": {"grafana_folder": "Power"}},
    },
    "nameless": {
        "settings": {"kubernetes.names": "off"},
        "networkPolicy": {"enabled": False},
        "dashboards": {"enabled": False},
        "nonroot": {"enabled": True},
        "nvidia": {"enabled": True},
    },
}
"""Values that no overlay has."""

REFUSED: dict[str, dict[str, Any]] = {
    "a key that does not exist": {"resource": {}},
    "a nested one": {"image": {"name": "x"}},
    "a setting that does not exist": {"settings": {"sample.intervall": "2s"}},
    "a setting that the manifest fixes": {"settings": {"web.listen-address": ":9410"}},
    "no choice of the setting": {"settings": {"kubernetes.names": "maybe"}},
    "YAML's off, which is false": {"settings": {"kubernetes.names": False}},
    "both monitors": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
    "openshift's uid 0 without root": {"openshift": {"enabled": True}, "nonroot": {"enabled": True}},
    "no digest": {"image": {"digest": "sha256:0"}},
    "a word for a switch": {"nvidia": {"enabled": "yes"}},
    "a relative path": {"state": {"hostPath": "state"}},
}

Rendering = dict[str, Object]
"""Objects by kind, namespace and name."""


def canonical(objects: Iterable[Object]) -> Rendering:
    """Objects in one form: lists of named items in the order of their names."""
    return {"/".join(identity(found)): _sorted(found) for found in objects}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        items = [_sorted(item) for item in value]
        named = all(isinstance(item, dict) and "name" in item for item in items)
        return sorted(items, key=lambda item: (item["name"], item.get("mountPath", ""))) if named else items
    return value


def without_checksum(rendering: Rendering) -> Rendering:
    """The same without the annotation that only the chart has. Raises KeyError where a DaemonSet does not have it."""
    found: Rendering = copy.deepcopy(rendering)
    for each in found.values():
        if each["kind"] == "DaemonSet":
            del each["spec"]["template"]["metadata"]["annotations"][CHECKSUM]
    return found


def is_copy(found: Object) -> bool:
    """Whether ``make manifests`` wrote it, from a dashboard or a file of rules."""
    name: str = found["metadata"]["name"]
    return found["kind"] == "PrometheusRule" or name.startswith("dashboard-") or name == "ai-energy-exporter-rules"


def essence(rendering: Rendering) -> list[Any]:
    """What is recorded: objects as they are, and of those that `is_copy` their kind and metadata but the names."""
    own = [found for found in rendering.values() if not is_copy(found)]
    heads = [
        {"kind": found["kind"], **{key: value for key, value in found["metadata"].items() if key != "name"}}
        for found in rendering.values()
        if is_copy(found)
    ]
    unique = {json.dumps(item, sort_keys=True): item for item in (*own, *heads)}
    return [unique[key] for key in sorted(unique)]


def pack(renderings: dict[str, list[Any]]) -> dict[str, Any]:
    """Renderings as they are stored: each item once, under a hash of its content."""
    items = {_hash(item): item for rendering in renderings.values() for item in rendering}
    names = {name: [_hash(item) for item in rendering] for name, rendering in renderings.items()}
    return {"items": items, "renderings": names}


def unpack(stored: dict[str, Any]) -> dict[str, list[Any]]:
    """The inverse of `pack`."""
    return {name: [stored["items"][key] for key in keys] for name, keys in stored["renderings"].items()}


def _hash(item: Any) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint(folder: Path = FOLDER) -> str:
    """A hash of all that a rendering depends on, but for `_COPIED`."""
    digest = hashlib.sha256()
    for path in sorted(_inputs(folder)):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _inputs(folder: Path) -> Iterable[Path]:
    manifests = folder / "manifests"
    yield from (folder / name for name in ("Chart.yaml", "values.yaml", ".helmignore"))
    yield from (path for path in (folder / "templates").iterdir() if path.is_file())
    for part in ("base", "overlays", "parts"):
        for path in (manifests / part).rglob("*.yaml"):
            if not str(path.relative_to(manifests)).startswith(_COPIED) and path.name != "kustomization.yaml":
                yield path
