"""Writes values.schema.json of the Helm chart: ``python -m deploy.helm.schema``.

The settings are those of the exporter's own table, so a mistyped one is refused before anything is installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from exporter.config.settings_table import TABLE, Setting

CHART = Path(__file__).resolve().parent / "ai-energy-exporter"
DAEMONSET = CHART / "manifests/parts/daemonset/daemonset.yaml"

Schema = dict[str, Any]

FLAG: Schema = {"type": "boolean"}
TEXT: Schema = {"type": "string"}
FREE: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": {"type": "object"}}
WORDS: Schema = {"type": "object", "additionalProperties": TEXT}
PATH: Schema = {"type": "string", "pattern": "^/."}
MONITOR: dict[str, Schema] = {"enabled": FLAG, "labels": WORDS, "endpoint": FREE}


def fixed() -> set[str]:
    """Settings that a value cannot change: the manifest's variables override the file, or mount its files."""
    pod = yaml.safe_load(DAEMONSET.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {entry["name"] for entry in container["env"]}
    by_variable = {row.name for row in TABLE.values() if row.variable in variables}
    return {*by_variable, "web.config.file"}


def schema() -> Schema:
    """The whole schema."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart ai-energy-exporter",
        **_object(_values()),
        "allOf": [
            _not_both("podMonitor", "serviceMonitor"),
            _not_both("nonroot", "openshift"),
        ],
    }


def _values() -> dict[str, Schema]:
    return {
        "global": FREE,
        "image": _object(
            {
                "repository": {"type": "string", "minLength": 1},
                "tag": TEXT,
                "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
                "pullPolicy": {"enum": ["", "Always", "IfNotPresent", "Never"]},
                "pullSecrets": LIST,
            }
        ),
        "settings": _object(
            {row.name: _setting(row) for row in TABLE.values() if row.in_file and row.name not in fixed()}
        ),
        "extraEnv": LIST,
        "podAnnotations": WORDS,
        "podLabels": WORDS,
        "resources": FREE,
        "nodeSelector": WORDS,
        "tolerations": LIST,
        "priorityClassName": TEXT,
        "podSecurityContext": FREE,
        "securityContext": FREE,
        "kubelet": _object({"directory": PATH}),
        "state": _object({"hostPath": PATH}),
        "regions": _object({"hostPath": PATH}),
        "nvidia": _object({"enabled": FLAG, "runtimeClassName": TEXT}),
        "nonroot": _object({"enabled": FLAG}),
        "openshift": _object({"enabled": FLAG}),
        "tls": _object({"enabled": FLAG, "secretName": {"type": "string", "minLength": 1}}),
        "bmc": _object({"enabled": FLAG, "secretName": {"type": "string", "minLength": 1}}),
        "rbac": _object({"create": FLAG}),
        "networkPolicy": _object({"enabled": FLAG, "from": LIST, "extraEgress": LIST}),
        "podMonitor": _object(MONITOR),
        "serviceMonitor": _object(MONITOR),
        "prometheusRule": _object({"enabled": FLAG, "labels": WORDS}),
        "scrapeConfig": _object({"enabled": FLAG, "namespace": {"type": "string", "minLength": 1}}),
        "dashboards": _object({"enabled": FLAG, "labels": WORDS, "annotations": WORDS}),
        "namespace": _object({"create": FLAG}),
    }


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _not_both(*names: str) -> Schema:
    on = {name: {"properties": {"enabled": {"const": True}}, "required": ["enabled"]} for name in names}
    return {"not": {"properties": on, "required": list(names)}}


def _setting(row: Setting) -> Schema:
    """What YAML may say of a setting; the exporter itself checks ranges and formats."""
    word: Schema = {"type": ["string", "number"]}
    kinds: dict[str, Schema] = {
        "one": word,
        "flag": FLAG,
        "list": {"anyOf": [word, {"type": "array", "items": word}]},
        "mapping": {"type": "object", "additionalProperties": word},
        "records": LIST,
    }
    choices = row.value_type.placeholder.split("|")
    known = {"enum": choices} if row.value_type.shape == "one" and len(choices) > 1 else kinds[row.value_type.shape]
    return {"description": row.help, **known}


def text() -> str:
    """The content of the file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file."""
    (CHART / "values.schema.json").write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
