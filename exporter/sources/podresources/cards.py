"""Resolves the device names of device plugins and DRA drivers to cards.

Sources of the names: NVIDIA/k8s-device-plugin internal/rm, GoogleCloudPlatform/container-engine-accelerators,
NVIDIA/k8s-dra-driver-gpu deviceinfo.go and mig.go, ROCm/k8s-device-plugin internal/pkg, ROCm/k8s-gpu-dra-driver
docs, intel/intel-device-plugins-for-kubernetes cmd/gpu_plugin, intel/intel-resource-drivers-for-kubernetes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ...host import Host, list_dir
from ...records import Unavailable
from .wire import DeviceAssignment

_PCI = r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"

_HEX_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"((?:GPU|MIG)-{_HEX_UUID}|MIG-GPU-{_HEX_UUID}/\d+/\d+)(?:[^0-9a-f\s]\S*)?")
"""NVIDIA: a card, a MIG device by its new or its old name (before driver R470), or a share of one.

Each plugin has a suffix of its own for a share: ``::3`` (NVIDIA/k8s-device-plugin), ``-3`` (Project-HAMi/HAMi)."""

_GKE = re.compile(r"nvidia(\d+)(?:/gi(\d+))?(?:/vgpu\d+)?")
_ADDRESS = re.compile(rf"({_PCI})(?:[^0-9a-f.\s]\S*)?")
_PARTITION = re.compile(r"(amdgpu_xcp_\d+)(?:-slice-\d+)?")
_CARD = re.compile(r"card(\d+)(?:-\d+)?")

_NVIDIA_CLAIM = re.compile(r"gpu-(\d+)(?:-mig-(?:(\d+)g[^-].*-\d+-\d+|\d+-\d+-(\d+)))?")
"""``gpu-<minor>``, ``gpu-<minor>-mig-<profile>-<profile id>-<start>``, and before that form
``gpu-<minor>-mig-<profile id>-<start>-<memory slices>``."""

_AMD_CLAIM = re.compile(r"gpu-(\d+)-\d+")
_INTEL_CLAIM = re.compile(r"([0-9a-f]{4})-([0-9a-f]{2})-([0-9a-f]{2})-([0-7])-0x[0-9a-f]+")

_COMPUTE_SLICES, _MEMORY_SLICES = 7, 8
"""Slices of a MIG-capable card; an A30 has 4 of each."""


class Part(NamedTuple):
    """A card by UUID or PCI address, or a MIG device by UUID; ``share`` of it, and its MIG instance if named."""

    device: str
    share: float = 1.0
    gpu_instance: str = ""


class DeviceResolver:
    """Looks names up in /sys and /proc. Create one for each answer of the kubelet, so that it is never stale."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._minors: dict[str, str] | None = None
        self._uuids: set[str] | None = None

    def resolve(self, assignment: DeviceAssignment) -> Part | None:
        """The card of a device; None if it is not a GPU or cannot be found."""
        return self._of_claim(assignment) if assignment.driver else self._of_plugin(assignment.device)

    def _of_plugin(self, name: str) -> Part | None:
        if match := _UUID.fullmatch(name):
            return Part(match[1])
        if match := _GKE.fullmatch(name):
            return self._of_minor(match[1], gpu_instance=match[2] or "")
        if match := _ADDRESS.fullmatch(name):
            return Part(self._physical(match[1]))
        if match := _PARTITION.fullmatch(name):
            return self._of_partition(match[1])
        match = _CARD.fullmatch(name)
        return self._of_drm(match[1]) if match else None

    def names_card(self, name: str) -> bool:
        """Whether a name contains the UUID of an NVIDIA card of this host."""
        if self._uuids is None:
            self._uuids = self._read_uuids()
        return any(uuid in name for uuid in self._uuids)

    def _of_claim(self, assignment: DeviceAssignment) -> Part | None:
        if assignment.driver == "gpu.nvidia.com" and (match := _NVIDIA_CLAIM.fullmatch(assignment.device)):
            compute, memory = match[2], match[3]
            share = int(compute) / _COMPUTE_SLICES if compute else int(memory) / _MEMORY_SLICES if memory else 1.0
            return self._of_minor(match[1], share=min(1.0, share))
        if assignment.driver == "gpu.amd.com" and (match := _AMD_CLAIM.fullmatch(assignment.device)):
            return self._of_drm(match[1])
        if assignment.driver == "gpu.intel.com" and (match := _INTEL_CLAIM.fullmatch(assignment.device)):
            return Part(self._physical(f"{match[1]}:{match[2]}:{match[3]}.{match[4]}"))
        return None

    def _of_minor(self, minor: str, *, share: float = 1.0, gpu_instance: str = "") -> Part | None:
        """``/dev/nvidia<minor>``, which need not be NVML's index."""
        if self._minors is None:
            self._minors = self._read_minors()
        address = self._minors.get(minor)
        return None if address is None else Part(address, share, gpu_instance)

    def _read_minors(self) -> dict[str, str]:
        found = ((address, key, value) for address, key, value in self._information() if key == "Device Minor")
        return {value: address for address, _, value in found}

    def _read_uuids(self) -> set[str]:
        """UUIDs without their prefix ``GPU-``."""
        found = (re.search(_HEX_UUID, value) for _, key, value in self._information() if key == "GPU UUID")
        return {match[0] for match in found if match}

    def _information(self) -> Iterator[tuple[str, str, str]]:
        """What the kernel module reports about its cards: PCI address, key, value."""
        root = self._host.proc("driver/nvidia/gpus")
        try:
            for address in list_dir(root):
                for line in self._host.text(f"{root}/{address}/information").splitlines():
                    key, _, value = line.partition(":")
                    yield address.lower(), key.strip(), value.strip()
        except Unavailable:
            return

    def _of_drm(self, card: str) -> Part | None:
        """``/dev/dri/card<N>``."""
        device = os.path.basename(os.path.realpath(self._host.sys(f"class/drm/card{card}/device")))
        if re.fullmatch(_PCI, device):
            return Part(self._physical(device))
        return self._of_partition(device) if _PARTITION.fullmatch(device) else None

    def _of_partition(self, name: str) -> Part | None:
        """The card of an AMD partition, which is a platform device: KFD's topology has the PCI device.

        ``location_id`` is bus and slot; a partition has its number in place of the function (kfd_topology.c).
        """
        try:
            files = list_dir(self._host.sys(f"devices/platform/{name}/drm"))
            nodes = self._host.sys("class/kfd/kfd/topology/nodes")
            for node in list_dir(nodes):
                text = self._host.text(f"{nodes}/{node}/properties")
                known = dict(line.split(maxsplit=1) for line in text.splitlines())
                if f"renderD{known.get('drm_render_minor')}" in files:
                    container_names, domain = int(known["location_id"]), int(known.get("domain", "0"))
                    return Part(f"{domain:04x}:{container_names >> 8 & 0xFF:02x}:{container_names >> 3 & 0x1F:02x}.0")
        except (Unavailable, ValueError, KeyError):
            pass
        return None

    def _physical(self, address: str) -> str:
        """Address of the physical function (SR-IOV): the card."""
        parent = self._host.sys("bus/pci/devices", address, "physfn")
        return os.path.basename(os.path.realpath(parent)) if os.path.exists(parent) else address
