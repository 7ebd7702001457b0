"""The manifests render and are valid, and the copies in them are those of grafana/ and prometheus/."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.kubernetes import generate
from exporter import __version__
from tests.support.manifests import (
    DOCUMENT,
    FOLDER,
    OVERLAYS,
    PARTS,
    Object,
    example,
    identity,
    of_kind,
    pods,
    render,
    rendered,
)
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

OLDEST, NEWEST = "1.25", "1.37"
"""Kubernetes: all fields that are used are the same in between."""

CRDS = {
    schema["properties"]["kind"]["const"]: schema
    for schema in (yaml.safe_load(path.read_text()) for path in (REPOSITORY / "tests/deploy/crds").glob("*.yaml"))
}

each = pytest.mark.parametrize("name", [*OVERLAYS, *PARTS])


@functools.cache
def _validate(text: str) -> None:
    found = json.loads(text)
    if found["kind"] in CRDS:
        jsonschema.validate(found, CRDS[found["kind"]])
        return
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(found, version, strict=True)


def validate(found: Object) -> None:
    """Against the schema of its kind; what is not in there is an error. Raises jsonschema's ValidationError."""
    _validate(json.dumps(found))


def test_the_overlays_are_those_that_are_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert {name for name in OVERLAYS if f"`{name}`" not in text} == set()
    assert {name for name in PARTS if f"`{name}`" not in text} == {"parts/daemonset", "parts/dashboards"}


@each
def test_every_object_is_valid_and_there_once(name: str) -> None:
    objects = render(name)
    for found in objects:
        validate(found)
    assert len({identity(found) for found in objects}) == len(objects) > 0


def _typo(found: Object) -> None:
    (container,) = found["spec"]["template"]["spec"]["containers"]
    container["securityContext"]["readOnlyRootFileSystem"] = True


def _wrong_type(found: Object) -> None:
    found["spec"]["template"]["spec"]["hostPID"] = "yes"


def _old_kubernetes(found: Object) -> None:
    found["spec"]["template"]["spec"]["hostUsers"] = 1


@pytest.mark.parametrize("spoil", [_typo, _wrong_type, _old_kubernetes])
def test_an_invalid_one_would_be_noticed(spoil: object) -> None:
    (found,) = copy.deepcopy(of_kind(render("base"), "DaemonSet"))
    assert callable(spoil)
    spoil(found)
    with pytest.raises(jsonschema.ValidationError):
        validate(found)


@pytest.mark.parametrize("name", ["parts/podmonitor", "parts/servicemonitor", "parts/rules", "overlays/openshift"])
def test_so_would_an_invalid_custom_resource(name: str) -> None:
    for found in copy.deepcopy([found for found in render(name) if found["kind"] in CRDS]):
        found.get("spec", found)["honorLabel"] = True
        with pytest.raises(jsonschema.ValidationError):
            validate(found)


@pytest.mark.parametrize("name", OVERLAYS)
def test_plain_apply_is_enough(name: str) -> None:
    """``kubectl apply`` writes each object into an annotation of at most 262,144 bytes (etcd takes 1.5 MiB)."""
    for found in render(name):
        assert len(json.dumps(found, ensure_ascii=False).encode()) < 200_000, identity(found)


def test_the_copies_are_those_of_their_sources(tmp_path: Path) -> None:
    """``make manifests`` would change nothing."""
    generate.main([str(tmp_path)])
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.yaml")}
    assert {name: (FOLDER / "parts" / name).read_text() for name in written} == written
    for folder in ("dashboards", "rules"):
        assert {path.name for path in (FOLDER / "parts" / folder).iterdir()} == {
            Path(name).name for name in written if name.startswith(folder)
        }


def test_a_copy_whose_source_is_gone_goes_too(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/former.yaml").write_text("")
    generate.main([str(tmp_path)])
    assert not (tmp_path / "rules/former.yaml").exists()


def test_grafana_s_sidecar_finds_every_dashboard() -> None:
    boards = {path.name: json.loads(path.read_text()) for path in (REPOSITORY / "grafana/dashboards").glob("*.json")}
    maps = of_kind(render("base"), "ConfigMap")
    found = [item for item in maps if "grafana_dashboard" in item["metadata"]["labels"]]
    assert {key: json.loads(text) for item in found for key, text in item["data"].items()} == boards
    assert {item["metadata"]["labels"]["grafana_dashboard"] for item in found} == {"1"}


@needs("promtool")
def test_the_rules_are_all_there_for_both_kinds_of_prometheus(tmp_path: Path) -> None:
    groups = [
        group
        for path in (REPOSITORY / "prometheus/rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    objects = of_kind(render("overlays/prometheus-operator"), "PrometheusRule")
    by_name = {group["name"]: group for found in objects for group in found["spec"]["groups"]}
    assert by_name == {group["name"]: group for group in groups}
    (mounted,) = [found for found in render("parts/scrape-config") if found["metadata"]["name"].endswith("rules")]
    for name, text in mounted["data"].items():
        (tmp_path / name).write_text(text)
    check = ["promtool", "check", "rules", *map(str, tmp_path.iterdir())]
    subprocess.run(check, check=True, capture_output=True, timeout=patience(60))


@needs("promtool")
def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """Debian's promtool was built without the discovery of Kubernetes, so that part is looked at by itself."""
    (found,) = [found for found in render("parts/scrape-config") if found["metadata"]["name"].endswith("scrape")]
    config = yaml.safe_load(found["data"]["scrape.yml"])
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["ai-energy-exporter"]}}]
    (tmp_path / "scrape.yml").write_text(yaml.safe_dump(config))
    command = ["promtool", "check", "config", str(tmp_path / "scrape.yml")]
    subprocess.run(command, check=True, capture_output=True, timeout=patience(60))
    assert job["honor_labels"] is True


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_image_is_this_version(name: str) -> None:
    """It is in no registry, and in none that somebody else could put another one for root to run."""
    for _, pod in pods(render(name)):
        (container,) = pod["containers"]
        assert container["image"] == f"ai-energy-exporter:{__version__}"


def test_an_overlay_of_your_own_takes_what_it_wants(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    (tmp_path / "kustomization.yaml").write_text(example("overlays/gpu"))
    objects = rendered(tmp_path)
    images = {container["image"] for _, pod in pods(objects) for container in pod["containers"]}
    assert images == {f"registry.example.com/ai-energy-exporter:{__version__}"}
    for found in objects:
        validate(found)
    assert len(of_kind(objects, "DaemonSet")) == 2
    assert len(of_kind(objects, "PodMonitor")) == 1


@pytest.mark.parametrize("part", ["parts/podmonitor", "parts/servicemonitor"])
def test_a_monitor_takes_what_the_documentation_says_for_tls(part: str) -> None:
    (found,) = copy.deepcopy(render(part))
    (endpoint,) = found["spec"].get("podMetricsEndpoints") or found["spec"]["endpoints"]
    endpoint.update(yaml.safe_load(example("tlsConfig")))
    validate(found)


def test_the_runtimeclass_of_the_documentation_is_the_one_that_is_used() -> None:
    found = yaml.safe_load(example("RuntimeClass"))
    validate(found)
    assert found["metadata"]["name"] == dict(pods(render("overlays/gpu")))["ai-energy-exporter-gpu"]["runtimeClassName"]
