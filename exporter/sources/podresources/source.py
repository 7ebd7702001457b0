"""GPUs allocated to containers, from the kubelet's PodResources API, whether or not they are in use."""

from __future__ import annotations

import importlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping

from ...host import Host, unavailable
from ...records import Allocation, Reading, Reason, Unavailable
from .cards import DeviceResolver
from .wire import DeviceAssignment, decode

_log = logging.getLogger("podresources")

_LOGGED = 200
"""Characters of a device name that are logged."""

SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"
"""Where the kubelet listens, unless its ``--root-dir`` was changed."""

POLL_SECONDS = 10.0
"""How often to query. The API has no notifications, and a pod holds a card for minutes at least."""

_LIST = "/v1.PodResourcesLister/List"
_TIMEOUT_SECONDS = 5.0

STARTING_SECONDS = 10.0
"""How long a kubelet that has started may list only some of its pods. Kubernetes 1.37 answered for a second with none,
then with some, none of them with devices: what an earlier answer had holds for so long."""

_MOUNT = (
    "nothing to do outside Kubernetes; in a pod mount the host's /var/lib/kubelet/pod-resources read-only "
    "(a kubelet with another --root-dir: set --path.pod-resources)"
)
_ROOT = "run as uid 0 (all capabilities may be dropped): the socket is root's, and a call needs write access to it"
_INSTALL = "pip install h2"
_OLD = "PodResources v1 needs Kubernetes 1.20 or newer"


class PodResourcesSource:
    """Queries the kubelet every `POLL_SECONDS`; without a socket, checks for one once a minute.

    Sources: KEP-606, KEP-3695, kubernetes.io "Monitoring device plugin resources". Before Kubernetes 1.34 the list
    also contains pods that ended, without devices.
    Every answer is complete, except those of a kubelet that has just started (`STARTING_SECONDS`).
    """

    name = "podresources"

    def __init__(self, host: Host, path: str = SOCKET) -> None:
        self._host = host
        self._path = path
        self._reported: set[tuple[str, str]] = set()
        self._last: tuple[Allocation, ...] = ()
        self._socket = (0, 0)

    def read(self, now: float) -> Reading:  # noqa: ARG002 - the age of the socket is on the wall clock
        """Query once. Raises `Unavailable` if there is no kubelet, or if it does not answer."""
        try:
            found = self._allocations(self._query())
        except ValueError as error:
            raise Unavailable("implausible", f"{self._path}: not an answer of PodResources v1: {error}") from None
        if not self._starting():
            self._last = found
        return Reading(allocations=self._last, rest_seconds=POLL_SECONDS)

    def close(self) -> None:
        """Nothing is kept open."""

    def _starting(self) -> bool:
        """Whether this is a kubelet that has started since the last answer, just now: each makes a new socket."""
        try:
            status = os.stat(self._path)
        except OSError:
            return bool(self._last)
        socket = status.st_ino, status.st_mtime_ns
        if self._last and socket != self._socket and 0.0 <= self._host.wall() - status.st_mtime < STARTING_SECONDS:
            return True
        self._socket = socket
        return False

    def _query(self) -> bytes:
        try:
            os.stat(self._path)
        except OSError as error:
            known = unavailable(error, self._path)
            raise _with_fix(known, {"not_found": _MOUNT, "permission": _ROOT}) from None
        try:
            client = importlib.import_module(".grpc", __package__)
        except ImportError as error:
            raise Unavailable("not_found", f"the module {error.name} is not installed", _INSTALL) from None
        try:
            message: bytes = client.call(self._path, _LIST, _TIMEOUT_SECONDS)
        except Unavailable as error:
            raise _with_fix(error, {"not_found": _OLD, "permission": _ROOT}) from None
        return message

    def _allocations(self, message: bytes) -> tuple[Allocation, ...]:
        """One for each container and card or MIG device; several replicas of the same device add up in ``share``."""
        resolver = DeviceResolver(self._host)
        shares: defaultdict[Allocation, float] = defaultdict(float)
        for assignment in dict.fromkeys(decode(message)):  # a claim that a container refers to twice is still one
            part = resolver.resolve(assignment)
            if part is None:
                self._report_unknown(assignment, resolver)
            else:
                allocation = Allocation(
                    part.device, assignment.namespace, assignment.pod, assignment.container, 0.0, part.gpu_instance
                )
                shares[allocation] += part.share
        return tuple([allocation._replace(share=share) for allocation, share in sorted(shares.items())])

    def _report_unknown(self, assignment: DeviceAssignment, resolver: DeviceResolver) -> None:
        """Log once for each kind of device that a name contains the UUID of a card and is not understood."""
        kind = (assignment.driver, assignment.kind)
        if kind not in self._reported and resolver.names_card(assignment.device):
            self._reported.add(kind)
            _log.warning(
                "device %r of %s in %s/%s contains the UUID of a GPU, but its form is unknown: it is not attributed "
                "as an allocation; please report it",
                *(assignment.device[:_LOGGED], assignment.driver or assignment.kind),
                *(assignment.namespace, assignment.pod),
            )


def _with_fix(error: Unavailable, fixes: Mapping[Reason, str]) -> Unavailable:
    return Unavailable(error.reason, error.message, fixes.get(error.reason, ""))
