"""The Helm chart has the objects of kustomize: as a real helm rendered it, which ``make chart-check`` recorded."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.helm import schema
from deploy.packages import chart as archive
from exporter import __version__
from exporter.config.loading import load
from tests.deploy.test_kubernetes import validate
from tests.support.chart import (
    CASES,
    CHECKSUM,
    EXAMPLES,
    FOLDER,
    GOLDEN,
    REFUSED,
    canonical,
    essence,
    fingerprint,
    unpack,
    without_checksum,
)
from tests.support.manifests import Object, of_kind, pods, render, variables
from tests.support.policy import references, security

STORED = json.loads(GOLDEN.read_text(encoding="utf-8"))
RENDERINGS = unpack(STORED)
SCHEMA = json.loads((FOLDER / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))


def objects(name: str) -> list[Object]:
    """The recorded objects of a case or example, without the heads of copies."""
    return [item for item in RENDERINGS[name] if "metadata" in item]


def one(name: str, kind: str, called: str = "ai-energy-exporter") -> Object:
    """One of them."""
    (found,) = [item for item in of_kind(objects(name), kind) if item["metadata"]["name"] == called]
    return found


def test_the_recording_is_of_this_chart() -> None:
    """If not: ``make chart-check ARGS=--update-golden``."""
    assert STORED["fingerprint"] == fingerprint()
    assert RENDERINGS.keys() == {*CASES, *EXAMPLES}


IN_PODS: list[dict[str, dict[str, str]]] = [{"namespaceSelector": {}}]
"""Where model servers are."""


@pytest.mark.parametrize("change", ["templates/service.yaml", "values.yaml", "manifests/base/rbac.yaml"])
def test_a_changed_file_needs_a_new_recording(change: str, tmp_path: Path) -> None:
    mine = tmp_path / "chart"
    shutil.copytree(FOLDER, mine)
    assert fingerprint(mine) == fingerprint()
    (mine / change).write_text((mine / change).read_text() + "\n")
    assert fingerprint(mine) != fingerprint()


@pytest.mark.parametrize("name", CASES)
def test_helm_and_kustomize_make_the_same_objects(name: str) -> None:
    made = essence(canonical(found for folder in CASES[name].same_as for found in render(folder)))
    recorded = essence(without_checksum({str(at): found for at, found in enumerate(objects(name))}))
    heads = [item for item in RENDERINGS[name] if "metadata" not in item]
    assert _texts(recorded + heads) == _texts(made)


def _texts(items: list[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


def test_without_values_only_the_namespace_is_missing() -> None:
    """`helm install --create-namespace` makes it, and would fail if the chart had it too."""
    (missing,) = [item for item in RENDERINGS["base"] if item not in RENDERINGS["default"]]
    assert missing["kind"] == "Namespace"
    assert [item for item in RENDERINGS["default"] if item not in RENDERINGS["base"]] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_no_overlay_has_is_valid_too(name: str) -> None:
    for found in objects(name):
        validate(found)
    secrets = {"Secret ai-energy-exporter mine", "Secret ai-energy-exporter bmcs"}
    named = {"PriorityClass system-node-critical", "RuntimeClass nvidia-cdi", *secrets}
    missing = {*references([*objects(name), one("base", "Namespace")])}
    assert missing == ({f"there is no {each}" for each in named} if name == "everything" else set())


def test_it_has_the_rights_of_the_manifests() -> None:
    assert list(security(objects("default"), root=True)) == []
    nameless = list(security(objects("nameless"), root=False))
    assert {found.partition(": ")[2] for found in nameless} == {"automountServiceAccountToken is False"}


def test_values_change_what_they_name() -> None:
    found = one("everything", "DaemonSet", "ai-energy-exporter-gpu")
    template = found["spec"]["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"registry.example.com/ai-energy-exporter@sha256:{'0' * 64}"
    assert (container["imagePullPolicy"], pod["imagePullSecrets"]) == ("Always", [{"name": "registry"}])
    assert container["resources"] == {"limits": {"memory": "256Mi"}, "requests": {"cpu": "20m", "memory": "96Mi"}}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}
    assert {"AI_ENERGY_LOG_LEVEL", "NODE_IP", "NODE_NAME", "AI_ENERGY_PATH_SYSFS"} <= variables(container).keys()
    assert pod["nodeSelector"] == {
        "kubernetes.io/os": "linux",
        "nvidia.com/gpu.present": "true",
        "pool": "ml",
    }
    assert (pod["tolerations"], pod["priorityClassName"]) == (
        [{"key": "gpu", "operator": "Exists"}],
        "system-node-critical",
    )
    assert pod["runtimeClassName"] == "nvidia-cdi"
    paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod["volumes"]}
    assert (paths["pod-resources"], paths["state"]) == ("/var/lib/k0s/kubelet/pod-resources", "/srv/energy")
    (web,) = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "web"]
    assert [source["secret"]["name"] for source in web["sources"] if "secret" in source] == ["mine"]
    assert template["metadata"]["labels"]["team"] == "platform"
    assert template["metadata"]["annotations"]["example.com/team"] == "platform"
    assert of_kind(objects("everything"), "PriorityClass") == []
    (monitor,) = of_kind(objects("everything"), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (monitor["metadata"]["labels"]["release"], endpoint["interval"], endpoint["scheme"], endpoint["port"]) == (
        "prometheus",
        "30s",
        "https",
        "metrics",
    )
    (boards,) = [item for item in RENDERINGS["everything"] if "metadata" not in item]
    assert (boards["labels"]["board"], boards["annotations"]["grafana_folder"]) == ("1", "Power")


@pytest.mark.parametrize(
    ("name", "rules", "ports", "mounted"),
    [
        ("default", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}], [443, 6443], True),
        ("everything", [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}], [10250, 53], True),
        ("nameless", None, None, False),
    ],
)
def test_the_source_of_names_decides_permission_port_and_token(
    name: str, rules: object, ports: object, mounted: bool
) -> None:
    roles = of_kind(objects(name), "ClusterRole")
    assert [role["rules"] for role in roles] == ([rules] if rules else [])
    assert len(of_kind(objects(name), "ClusterRoleBinding")) == len(roles)
    policies = of_kind(objects(name), "NetworkPolicy")
    rules_out = [rule for policy in policies for rule in policy["spec"]["egress"]]
    opened = [[each["port"] for rule in rules_out if rule.get("to") != IN_PODS for each in rule["ports"]]]
    assert [rule["to"] for rule in rules_out if "to" in rule] == [IN_PODS] * len(policies)
    assert opened == [ports or []]
    assert {pod["automountServiceAccountToken"] for _, pod in pods(objects(name))} == {mounted}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_exporter_accepts_the_settings(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(one(name, "ConfigMap")["data"]["config.yaml"])
    loaded = load({"config.file": str(file)}, {})
    settings = VALUES["settings"] | EXAMPLES[name].get("settings", {})
    assert loaded.log_format == settings["log.format"]
    assert loaded.kubernetes_names == settings.get("kubernetes.names", "auto")


def test_changed_settings_restart_the_pods() -> None:
    sums = {
        name: found["spec"]["template"]["metadata"]["annotations"][CHECKSUM]
        for name in EXAMPLES
        for found in of_kind(objects(name), "DaemonSet")
    }
    assert len(set(sums.values())) == len(EXAMPLES)


# --- values -----------------------------------------------------------------------------------------------------


def test_the_schema_has_every_setting() -> None:
    """``make docs`` would change nothing."""
    assert (FOLDER / "values.schema.json").read_text(encoding="utf-8") == schema.text()
    assert {"web.listen-address", "state.file", "path.sysfs"} <= schema.fixed()


def test_every_value_is_in_the_schema() -> None:
    def keys(values: dict[str, Any], known: dict[str, Any], where: str = "") -> list[str]:
        properties = known.get("properties")
        if properties is None or where == ".settings":
            return []
        return [f"{where}.{key}" for key in values.keys() ^ (properties.keys() - {"global"})] + [
            found
            for key, value in values.items()
            if isinstance(value, dict)
            for found in keys(value, properties[key], f"{where}.{key}")
        ]

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert keys(VALUES, SCHEMA) == []


def merged(values: dict[str, Any]) -> dict[str, Any]:
    """Values over the defaults, as helm does it."""
    found = copy.deepcopy(VALUES)
    for key, value in values.items():
        found[key] = found[key] | value if isinstance(value, dict) and key in found else value
    return found


@pytest.mark.parametrize("values", [*(case.values for case in CASES.values()), *EXAMPLES.values()])
def test_values_are_accepted(values: dict[str, Any]) -> None:
    jsonschema.validate(merged(values), SCHEMA)


@pytest.mark.parametrize("values", REFUSED.values(), ids=[*REFUSED])
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(values), SCHEMA)


# --- archive ----------------------------------------------------------------------------------------------------


def test_it_has_the_version_of_the_program() -> None:
    about = yaml.safe_load((FOLDER / "Chart.yaml").read_text(encoding="utf-8"))
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


def test_the_archive_is_the_same_each_time_and_has_what_the_templates_read(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (archive.write(folder, 1_700_000_000).read_bytes() for folder in folders)
    assert first == second
    names = {name for name, _ in archive.files()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "templates/NOTES.txt"} <= names
    assert "manifests/base/rbac.yaml" in names
    assert [name for name in names if name.endswith(("kustomization.yaml", ".py", ".pyc", ".rules"))] == []
