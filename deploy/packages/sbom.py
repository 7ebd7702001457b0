"""Writes the bill of materials of what is packaged, as CycloneDX 1.6.

Components are the pins of requirements.lock, so also those of the image, with the hashes of the lock. Licences and
dependencies are those that the packages themselves declare; what one does not declare is absent.
"""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def document(lock: str, wheels: Iterable[Path], program: tuple[str, str], epoch: int) -> str:
    """The bill as JSON, for ``program`` (name, version). ``wheels`` are its own and those of the pins.

    Raises KeyError if there is no wheel of a pin.
    """
    about = {_name(found["Name"]): found for found in map(_metadata, wheels)}
    pinned = pins(lock)
    references = {name: f"pkg:pypi/{name}@{version}" for name, (version, _) in pinned.items()}
    name, version = program
    root = f"pkg:pypi/{name}@{version}"
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{root}?{epoch}&{lock}")
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": _component("application", name, version, root, about[name]),
        },
        "components": [
            _component("library", pin, number, references[pin], about[pin])
            | {
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": f"https://pypi.org/project/{pin}/{number}/",
                        "hashes": [{"alg": "SHA-256", "content": content} for content in hashes],
                    }
                ]
            }
            for pin, (number, hashes) in pinned.items()
        ],
        "dependencies": [
            {"ref": reference, "dependsOn": _needed(about[of], references)}
            for of, reference in {name: root, **references}.items()
        ],
    }
    return json.dumps(bill, indent=2, ensure_ascii=False) + "\n"


def pins(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Name → version and hashes of each pin of a lock."""
    return {name: (version, re.findall(r"[0-9a-f]{64}", hashes)) for name, version, hashes in _PIN.findall(lock)}


def _component(kind: str, name: str, version: str, reference: str, about: Message) -> dict[str, Any]:
    component: dict[str, Any] = {"type": kind, "bom-ref": reference, "name": name, "version": version}
    component["purl"] = reference
    if about["Summary"]:
        component["description"] = about["Summary"]
    if expression := about["License-Expression"]:
        component["licenses"] = [{"expression": expression}]
    elif (named := about["License"]) and "\n" not in named:
        component["licenses"] = [{"license": {"name": named}}]
    return component


def _needed(about: Message, references: Mapping[str, str]) -> list[str]:
    """References of the pins that it depends on, in an extra or not: all of them are installed."""
    names = {_name(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in about.get_all("Requires-Dist", [])}
    return [references[name] for name in sorted(names & references.keys())]


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        return Parser().parsestr(archive.read(path).decode(), headersonly=True)


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()
