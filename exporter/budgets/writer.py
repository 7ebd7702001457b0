"""Writes groups of rules as YAML that people can read: a rule file of Prometheus, or a PrometheusRule object."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import yaml

FORMATS = ("rules", "prometheusrule")

_HEAD = """\
# Written by `ai-energy-exporter budgets {source}`: change that file, not this one.
#
# budget:energy_joules:rate5m is the power of whatever a budget selects. Windows add it up, one sample for each minute:
# cheap, and whole across restarts. Prometheus must keep its data for longer than the longest window.
"""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(content: Any) -> str:
    """YAML for people: keys in their order, texts of several lines as blocks."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def render(groups: Sequence[dict[str, Any]], layout: str, source: str) -> str:
    """The text of a file of ``layout`` (one of `FORMATS`); ``source`` is named in its head."""
    content: dict[str, Any] = {"groups": list(groups)}
    if layout == "prometheusrule":
        content = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {
                "name": "energy-budgets",
                "labels": {"app.kubernetes.io/name": "ai-energy-exporter", "app.kubernetes.io/component": "budgets"},
            },
            "spec": content,
        }
    return f"{_HEAD.format(source=source)}\n{dump(content)}"


def write(text: str, path: str) -> None:
    """Put the text in place of a file, all at once: Prometheus never loads half of it. Raises OSError."""
    folder = os.path.dirname(path) or "."
    handle, temporary = tempfile.mkstemp(prefix=".budgets-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)  # Prometheus is another user
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
