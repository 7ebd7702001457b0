"""Why a server cannot be reached, by the error number of a socket."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ..records import Reason

SOCKET_REASONS: Mapping[int, Reason] = {
    errno.ENOENT: "not_found",
    errno.ECONNREFUSED: "not_found",
    errno.EHOSTUNREACH: "not_found",
    errno.ENETUNREACH: "not_found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ETIMEDOUT: "timeout",
}
"""Other numbers are the reason "error"."""
