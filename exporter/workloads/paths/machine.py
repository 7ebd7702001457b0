"""Named groups of hosts that are made for virtual machines or for Kubernetes, outside systemd's units.

Sources: libvirt src/util/vircgroup.c, XCP-ng (xapi-project/xen-api#6330), Talos (siderolabs/talos#4602).
"""

from __future__ import annotations

import re

from ...records import Workload
from .systemd import printable

_LIBVIRT = re.compile(r"/(?:machine|libvirt)/(?:qemu/|lxc/)?([^/]+?)(?:\.libvirt-(?:qemu|lxc))?(?=/|\Z)")
_NAMED = re.compile(r"/(?:vm\.slice/([^/]+)|((?:podruntime|system)/[^/]+))")


def resolve(path: str) -> Workload | None:
    """One row per libvirt machine, device model of Xen, and service of Talos (``podruntime/kubelet``).

    The runtime is ``systemd``, as for other services of the machine itself.
    """
    match = _LIBVIRT.match(path)
    if match is not None and match[1] not in ("qemu", "lxc"):
        return _service(match[1])
    if match := _NAMED.match(path):
        name = match[1] or match[2]
        return None if name.endswith((".service", ".scope", ".slice")) else _service(name)
    return None


def _service(name: str) -> Workload:
    return Workload(container=printable(name), runtime="systemd")
