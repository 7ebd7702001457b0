"""Checks what the exporter needs from a machine: permissions, /proc and cgroups, descriptors, a port, a state file."""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..config.settings import Settings
from ..config.value_types import Address
from ..host import Host
from ..records import Unavailable
from ..sources.usage.cgroup_tree import find_hierarchy
from ..sources.usage.process_clock import ProcessTable
from ..sources.usage.scope import is_whole
from .healthcheck import runs_here

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the host's own PID namespace (include/linux/proc_ns.h)."""

_CAP_DAC_OVERRIDE = 1 << 1
_CAP_DAC_READ_SEARCH = 1 << 2

FEW_DESCRIPTORS = 1024


class HostCheck(NamedTuple):
    """The result of one check; ``fix`` is "" if it passed."""

    what: str
    text: str
    fix: str = ""


def run_checks(settings: Settings, host: Host) -> Iterator[HostCheck]:
    """Run all checks, one after the other; raises nothing."""
    yield rights(host)
    yield processes(host)
    yield groups(host)
    yield descriptors()
    yield state_file(settings.state_file)
    yield history_file(settings.history_file)
    for address in settings.web_listen_address:
        yield port(address, lambda: runs_here(settings))
    yield clock(host)


def clock(host: Host) -> HostCheck:
    """Resolution of the CPU time of one process."""
    table = ProcessTable(host)
    native = table.native
    table.close()
    if native:
        return HostCheck("clock", "CPU time of a process is read from its own clock, in nanoseconds")
    ticks = os.sysconf("SC_CLK_TCK")
    return HostCheck("clock", f"CPU time of a process is read from /proc, in steps of {1000 / ticks:g} ms ({ticks} Hz)")


def rights(host: Host) -> HostCheck:
    """Whether files of root can be read, as RAPL's are since Linux 5.10 (CVE-2020-8694)."""
    user = os.geteuid()
    if user == 0:
        outside = _outer_uid(host)
        if outside == 0:
            return HostCheck("rights", "uid 0: can read files of root; no capability is needed")
        return HostCheck(
            "rights",
            f"uid 0 of a user namespace, which is uid {outside} outside: cannot read files of the host's root",
            "run in the host's user namespace: not in a rootless engine; --userns=host (Docker, Podman), "
            "hostUsers: true (Kubernetes)",
        )
    effective = 0
    try:
        status = host.text("/proc/self/status")
    except Unavailable:
        status = ""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    if effective & (_CAP_DAC_READ_SEARCH | _CAP_DAC_OVERRIDE):
        return HostCheck("rights", f"uid {user} with a capability to read files of root")
    fix = "run as uid 0 (all capabilities may be dropped), or give the files to a group: docs/permissions.md"
    text = f"uid {user}: cannot read files of root, as RAPL's counters are unless a udev rule gave them to a group"
    return HostCheck("rights", text, fix)


def _outer_uid(host: Host) -> int:
    """The uid of our uid 0 in the parent user namespace (user_namespaces(7)); 0 if unknown."""
    try:
        for line in host.text("/proc/self/uid_map").splitlines():
            inside, outside, _ = map(int, line.split())
            if inside == 0:
                return outside
    except (Unavailable, ValueError):
        pass
    return 0


def processes(host: Host) -> HostCheck:
    """Whether this procfs shows the host's processes, or only those of our container."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
        seen_as = os.readlink(host.proc("self"))
    except OSError as error:
        return HostCheck("processes", f"{host.procfs}: {error.strerror}", "mount procfs, or set --path.procfs")
    if namespace == _INITIAL_PID_NAMESPACE:
        return HostCheck("processes", f"{host.procfs} shows all processes of the host")
    if seen_as != str(os.getpid()):
        return HostCheck("processes", f"{host.procfs} shows the processes of an outer PID namespace")
    return HostCheck(
        "processes",
        f"{host.procfs} shows only the processes of our own PID namespace",
        "share the host's: hostPID: true (Kubernetes), --pid=host (Docker, Podman)",
    )


def groups(host: Host) -> HostCheck:
    """Which cgroup tree counts CPU seconds, and whether it is the root of the host's tree."""
    try:
        tree = find_hierarchy(host)
    except Unavailable as error:
        return HostCheck("cgroups", error.message, error.fix or "mount the host's /sys, or set --path.cgroupfs")
    version = "v2" if tree.file == "cpu.stat" else "v1"
    text = f"{version} at {tree.root}"
    if is_whole(tree):
        return HostCheck("cgroups", f"{text}, the whole host")
    fix = "mount the host's /sys/fs/cgroup read-only and name it in --path.cgroupfs"
    return HostCheck("cgroups", f"{text}, only our own subtree of the host's", fix)


def descriptors() -> HostCheck:
    """How many files may be open: keeping one for each process and group halves the cost of reading it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{'any number of' if soft == resource.RLIM_INFINITY else soft} files may be open"
    if soft != resource.RLIM_INFINITY and soft < FEW_DESCRIPTORS:
        return HostCheck("descriptors", text, "works, but slower; raise the limit: ulimit -n 65536, LimitNOFILE=65536")
    return HostCheck("descriptors", text)


def state_file(path: str) -> HostCheck:
    """Whether the checkpoint can be written."""
    if not path:
        return HostCheck("state file", "none (--state.file): counters start at 0 after a restart")
    return _writable("state file", path)


def history_file(path: str) -> HostCheck:
    """Whether the history can be written."""
    if not path:
        return HostCheck("history", "none (--history.file): report asks Prometheus")
    if importlib.util.find_spec("sqlite3") is None or importlib.util.find_spec("_sqlite3") is None:
        return HostCheck("history", "this Python has no module sqlite3", "install it, or leave --history.file out")
    return _writable("history", path)


def _writable(what: str, path: str) -> HostCheck:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return HostCheck(what, f"{folder} is not a directory", f"mkdir -p {folder}")
    if os.path.isdir(path):
        return HostCheck(what, f"{path} is a directory", "name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        return HostCheck(
            what,
            f"{folder} is not writable for this user",
            "chown the directory to this user, or mount it writable",
        )
    return HostCheck(what, f"{path} can be written")


def port(address: Address, served: Callable[[], bool] = lambda: False) -> HostCheck:
    """Whether the address is free and this user may listen on it, or an exporter of these settings has it already."""
    family = socket.AF_INET6 if ":" in address.host or not address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and served():
            return HostCheck("address", f"{address} is in use by an exporter that runs with these settings")
        fix = "stop what listens there (dcgm-exporter has the same port), or set --web.listen-address"
        return HostCheck("address", f"{address}: {error.strerror or error}", fix)
    return HostCheck("address", f"{address} is free")
