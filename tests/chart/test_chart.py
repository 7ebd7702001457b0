"""The chart in a real helm: ``make chart-check``, with ``ARGS=--update-golden`` to record what the suite compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.packages import chart as archive
from tests.chart.conftest import Helm, Template
from tests.support.chart import (
    CASES,
    EXAMPLES,
    FOLDER,
    GOLDEN,
    REFUSED,
    Rendering,
    canonical,
    essence,
    fingerprint,
    pack,
    without_checksum,
)
from tests.support.manifests import render


def kustomized(names: tuple[str, ...]) -> Rendering:
    """The objects of folders of deploy/kubernetes."""
    return canonical(found for name in names for found in render(name))


@pytest.mark.parametrize("name", CASES)
def test_helm_renders_what_kustomize_renders(name: str, template: Template) -> None:
    case = CASES[name]
    assert without_checksum(canonical(template(case.values))) == kustomized(case.same_as)


@pytest.mark.parametrize("values", REFUSED.values(), ids=[*REFUSED])
def test_helm_refuses(values: dict[str, object], helm: Helm) -> None:
    done = helm("template", "release", str(FOLDER), "--kube-version=1.37.0", values=values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize("values", [{}, *EXAMPLES.values()], ids=["none", *EXAMPLES])
def test_helm_lint(values: dict[str, object], helm: Helm) -> None:
    done = helm("lint", "--strict", str(FOLDER), values=values)
    assert done.returncode == 0, done.stdout


def test_the_archive_of_a_release_renders_the_same_and_without_a_warning(
    tmp_path: Path, template: Template, helm: Helm
) -> None:
    made = archive.write(tmp_path, 0)
    assert canonical(template(EXAMPLES["everything"], made)) == canonical(template(EXAMPLES["everything"]))
    assert helm("show", "chart", str(made)).stderr == ""


def test_no_object_is_left_in_another_namespace(template: Template) -> None:
    objects = template(EXAMPLES["everything"] | {"openshift": {"enabled": True}}, namespace="energy")
    assert "ai-energy-exporter" not in {found["metadata"].get("namespace", "energy") for found in objects}
    references = [subject["namespace"] for found in objects for subject in found.get("subjects", [])]
    users = [user for found in objects for user in found.get("users", [])]
    assert (references, users) == (["energy"], ["system:serviceaccount:energy:ai-energy-exporter"])


def test_the_recording_is_of_this_chart(template: Template, request: pytest.FixtureRequest) -> None:
    values = {name: case.values for name, case in CASES.items()} | EXAMPLES
    made = {
        "fingerprint": fingerprint(),
        **pack({name: essence(canonical(template(given))) for name, given in values.items()}),
    }
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == made
