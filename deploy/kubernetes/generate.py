"""Writes what deploy/kubernetes holds of grafana/ and prometheus/: ``python -m deploy.kubernetes.generate [FOLDER]``.

Kustomize reads no file outside of the folder it is given, so dashboards and rules are copied, as objects.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from exporter.budgets.writer import dump

FOLDER = Path(__file__).resolve().parent / "parts"
REPOSITORY = FOLDER.parent.parent.parent
NAMESPACE = "ai-energy-exporter"
LABELS = {"app.kubernetes.io/name": "ai-energy-exporter"}

_HEAD = "# Written by `make manifests` from {source}: change that, not this.\n"


def _object(source: str, api: str, kind: str, metadata: dict[str, Any], body: dict[str, Any]) -> str:
    content = {"apiVersion": api, "kind": kind, "metadata": metadata, **body}
    return _HEAD.format(source=source) + dump(content)


def _kustomization(source: str, names: list[str]) -> str:
    return _object(source, "kustomize.config.k8s.io/v1beta1", "Kustomization", {}, {"resources": names}).replace(
        "metadata: {}\n", ""
    )


def _dashboards() -> Iterator[tuple[str, str]]:
    """One ConfigMap each, for the sidecar of Grafana's chart; on one line, which is two thirds of the size."""
    paths = sorted((REPOSITORY / "grafana/dashboards").glob("*.json"))
    for path in paths:
        board = json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":"))
        metadata = {
            "name": f"dashboard-{path.stem}",
            "namespace": NAMESPACE,
            "labels": LABELS | {"grafana_dashboard": "1"},
            "annotations": {"grafana_folder": "Energy"},
        }
        body = {"data": {path.name: board + "\n"}}
        yield f"dashboards/{path.stem}.yaml", _object("grafana/dashboards", "v1", "ConfigMap", metadata, body)
    yield "dashboards/kustomization.yaml", _kustomization("grafana/dashboards", [f"{path.stem}.yaml" for path in paths])


def _rules() -> Iterator[tuple[str, str]]:
    """One PrometheusRule each, and all of them as files in one ConfigMap."""
    paths = sorted((REPOSITORY / "prometheus/rules").glob("*.yml"))
    for path in paths:
        metadata = {"name": f"energy-{path.stem}", "namespace": NAMESPACE, "labels": LABELS}
        body = {"spec": yaml.safe_load(path.read_text(encoding="utf-8"))}
        made = _object("prometheus/rules", "monitoring.coreos.com/v1", "PrometheusRule", metadata, body)
        yield f"rules/{path.stem}.yaml", made
    yield "rules/kustomization.yaml", _kustomization("prometheus/rules", [f"{path.stem}.yaml" for path in paths])
    metadata = {"name": "ai-energy-exporter-rules", "namespace": "monitoring", "labels": LABELS}
    body = {"data": {path.name: path.read_text(encoding="utf-8") for path in paths}}
    yield "scrape-config/rules.yaml", _object("prometheus/rules", "v1", "ConfigMap", metadata, body)


def texts() -> dict[str, str]:
    """Path below parts/ and content of every file that is generated."""
    return dict([*_dashboards(), *_rules()])


def main(arguments: list[str]) -> int:
    """Write the files, and take away those whose source is no more."""
    folder = Path(arguments[0]) if arguments else FOLDER
    made = texts()
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("dashboards", "rules"):
        for path in (folder / name).glob("*.yaml"):
            if str(path.relative_to(folder)) not in made:
                path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
