"""The cloud region of this machine, from what cloud-init has left on its disk: no request, no geolocation."""

from __future__ import annotations

import json
from pathlib import Path

from .tables import PROVIDERS

INSTANCE_DATA = Path("/run/cloud-init/instance-data.json")
"""cloud-init's description of the instance (cloud-init 18.4 and later), which every user may read."""

_LARGEST_BYTES = 1 << 20


def detect(path: Path = INSTANCE_DATA) -> str:
    """The zone in the form of `exporter.impact.tables.look_up`, "" if the machine does not say where it is."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST_BYTES))
        names = content["v1"]
        provider, region = str(names["cloud_name"]).lower(), str(names.get("region") or "").lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    provider = {"gce": "gcp", "google": "gcp"}.get(provider, provider)
    return f"{provider}/{region}" if provider in PROVIDERS and region else ""
