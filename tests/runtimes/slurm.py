"""A real Slurm on this host, without systemd, with cgroup v1; one for each way to account jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from .trial import MARK, SPIN, Row, Started, background, version

PLUGINS = ("jobacct_gather/cgroup", "jobacct_gather/linux", "jobacct_gather/none")

_CONFIG = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort=24110
SlurmdPort=24111
SrunPortRange=24120-24160
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType={plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=500 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=FORCE:4
"""


def starter(plugin: str) -> Callable[[Path], AbstractContextManager[Started]]:
    """A context with one job, accounted by ``plugin``."""

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Started]:
        host = socket.gethostname()
        folder.chmod(0o755)
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir()
        config = folder / "slurm.conf"
        config.write_text(_CONFIG.format(host=host, folder=folder, plugin=plugin, cpus=os.cpu_count()), "utf-8")
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=yes\nConstrainRAMSpace=no\n", "utf-8")
        shutil.copy("/etc/munge/munge.key", folder / "munge/key")
        for path in (folder / "munge", folder / "munge/key"):
            shutil.chown(path, "munge", "munge")
        munge = folder / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        munged = ["munged", "-F", *(f"--{option}={munge}/{name}" for option, name in files.items())]
        with contextlib.ExitStack() as stack:
            own = {"SLURM_CONF": str(config)}
            environ = os.environ | own
            for name, command in (
                ("munged", ["runuser", "-u", "munge", "--", *munged]),
                ("slurmctld", ["slurmctld", "-D", "-f", str(config)]),
                ("slurmd", ["slurmd", "-D", "-f", str(config), "-N", host]),
            ):
                stack.enter_context(background(command, folder / f"{name}.log", 3.0, **own))
            stack.callback(_remove_groups, host)
            script = f"srun -n1 /bin/sh -c '{SPIN}' {MARK}"
            done = subprocess.run(
                ["sbatch", "--parsable", "-n1", "-t5", "-J", "check", "-o", "/dev/null", "--wrap", script],
                env=environ, check=True, capture_output=True, text=True,
            )  # fmt: skip
            job = done.stdout.strip()
            stack.callback(subprocess.run, ["scancel", "--full", "--signal=KILL", job], env=environ, check=False)
            yield Started(f"{version('slurmd', '-V')}, {plugin}", (Row(f"job_{job}", "slurm"),))

    return start


def _remove_groups(host: str) -> None:
    for controller in ("freezer", "cpuset", "cpuacct", "memory", "devices"):
        root = Path(f"/sys/fs/cgroup/{controller}/slurm_{host}")
        for directory, _, _ in list(os.walk(root, topdown=False)):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
