"""The cloud region of this machine, from what the machine has already: no request, no geolocation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from .tables import PROVIDERS

INSTANCE_DATA = Path("/run/cloud-init/instance-data.json")
"""cloud-init's description of the instance (cloud-init 18.4 and later), which every user may read."""

REGION_VARIABLE = "NODE_REGION"
"""The label ``topology.kubernetes.io/region``, which Kubernetes 1.35 and later copy from the node to its pods."""

_LARGEST_BYTES = 1 << 20
_VENDORS = (
    ("sys_vendor", "Amazon EC2", "aws"),
    ("bios_version", ".amazon", "aws"),  # Xen instances
    ("product_name", "Google Compute Engine", "gcp"),
    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "azure"),  # of all machines of Azure, and of no others
)
"""What the firmware of a cloud's virtual machine says: file below class/dmi/id, its text or the end of it, provider."""


def detect(sysfs: str = "/sys", environ: Mapping[str, str] = os.environ, instance_data: Path = INSTANCE_DATA) -> str:
    """The zone in the form of `exporter.impact.tables.look_up`, "" if the machine does not say where it is.

    cloud-init knows provider and region. In a pod its file is not visible: there the firmware says whose machine it
    is, and the label of the node which region; a region alone may be that of any provider, or a name of one's own.
    """
    try:
        with instance_data.open("rb") as file:
            content = json.loads(file.read(_LARGEST_BYTES))
        names = content["v1"]
        provider, region = str(names["cloud_name"]).lower(), str(names.get("region") or "").lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        provider, region = _vendor(Path(sysfs, "class/dmi/id")), environ.get(REGION_VARIABLE, "").lower()
    provider = {"gce": "gcp", "google": "gcp"}.get(provider, provider)
    return f"{provider}/{region}" if provider in PROVIDERS and region else ""


def _vendor(folder: Path) -> str:
    for name, text, provider in _VENDORS:
        try:
            found = (folder / name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if found.endswith(text):
            return provider
    return ""
