"""Jobs and tasks of batch systems and schedulers other than Slurm: PBS, HTCondor, Hadoop YARN, Nomad.

Sources: openpbs src/hooks/cgroups/pbs_cgroups.PY, condor_procd and condor_starter, hadoop
CGroupsHandlerImpl.java, nomad client/lib/cgroupslib.
"""

from __future__ import annotations

import re

from ...records import Workload
from .systemd import printable, unit_name

_PBS = re.compile(r"/(?:pbspro|pbs_jobs|pbs)\.(?:service/jobid/([^/]+)|slice/(?:pbspro|pbs_jobs|pbs)-([^/]+)\.slice)")
_CONDOR = re.compile(r"/condor_[^/]*?(slot[0-9]+(?:_[0-9]+)*(?:@[^/]+)?)(?:\.scope)?(?=/|\Z)")
_YARN = re.compile(r"/(container_(?:e[0-9]+_)?([0-9]+_[0-9]+)_[0-9]+_[0-9]+)(?=/|\Z)")
_NOMAD = re.compile(r"/nomad(?:\.slice(?:/[a-z]+\.slice)?)?/([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.([^/]+)")


def resolve(path: str) -> Workload | None:
    """One row per PBS job, HTCondor slot, YARN container (its owner is the application) and Nomad task.

    A Nomad task has its allocation, by the eight digits that Nomad shows, as pod.
    """
    if match := _PBS.search(path):
        return Workload(container=printable(match[1]) if match[1] else unit_name(match[2]), runtime="pbs")
    if match := _CONDOR.search(path):
        return Workload(container=printable(match[1]), runtime="htcondor")
    if match := _YARN.search(path):
        owner = f"application_{match[2]}"
        return Workload(container=match[1], runtime="yarn", owner_kind="Application", owner_name=owner)
    if match := _NOMAD.search(path):
        task = unit_name(match[2].removesuffix(".scope"))
        return Workload(pod=match[1], container=task, runtime="nomad") if task else None
    return None
