"""The workload of a cgroup, from paths as the kubelet, container engines, systemd, LXC and Slurm create them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.host import Host
from exporter.records import HOST, NOWHERE, PATH_SEPARATOR, GroupKey, Model, Process, ProcessKey, SourceHealth, Workload
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.models.servers import ModelServers
from exporter.workloads.namer import WorkloadNamer
from exporter.workloads.paths.precedence import PATHS as RESOLVERS
from exporter.workloads.paths.precedence import path_resolvers
from exporter.workloads.protocol import Namer

A = "3f4e2a9c8b7d6e5f40312233445566778899aabbccddeeff0011223344556677"
B = "b2a102854b4969b2ce98dc329c86b4fb2b06e4ad2cc8da9d8a7578c9cd2004a2"
UID = "72f7f152-440c-66ac-9084-e0fc1d8a910c"
UID_ = UID.replace("-", "_")
OTHER = "0d206349-0faf-445c-8c3f-2d2153784f15"
STATIC = "5d3bdb1e3d3d1b3b0f4f9c8f8c9a7e21"  # MD5 of a manifest

KUBEPODS = "/kubepods.slice/kubepods-burstable.slice"
POD = f"{KUBEPODS}/kubepods-burstable-pod{UID_}.slice"
KIND = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
USER = "/user.slice/user-1000.slice/user@1000.service"


def kubernetes(container: str = "", uid: str = UID) -> Workload:
    return Workload("", uid, container[:12], "kubernetes", container, uid)


def engine(runtime: str, container: str = A, pod: str = "") -> Workload:
    return Workload("", pod[:12], container[:12], runtime, container, pod)


def unit(name: str) -> Workload:
    return Workload(container=name, runtime="systemd")


def job(number: int, user: str = "") -> Workload:
    return Workload(
        container=f"job_{number}",
        runtime="slurm",
        owner_kind="User" if user else "",
        owner_name=user,
        labels=(("slurm_job_id", str(number)),),
    )


def batch(runtime: str, name: str) -> Workload:
    return Workload(container=name, runtime=runtime)


def yarn(name: str) -> Workload:
    return batch("yarn", name)._replace(owner_kind="Application", owner_name="application_1500000000000_0001")


def nomad(allocation: str, task: str) -> Workload:
    return Workload(pod=allocation, container=task, runtime="nomad")


PATHS: dict[str, Workload] = {
    # Docker: moby daemon/oci_linux.go (cgroupfs: /docker/ID or --cgroup-parent; systemd: system.slice:docker:ID)
    f"/docker/{A}": engine("docker"),
    f"/docker/{A}/init": engine("docker"),  # entrypoints that delegate: moby hack/dind
    f"/docker/{A}/system.slice/nginx.service": engine("docker"),
    f"/docker/{A}/init.scope": engine("docker"),
    f"/docker/{A}/user.slice/user-0.slice/session-1.scope": engine("docker"),
    f"/docker/{A}/docker/{B}": engine("docker", B),
    f"/docker/{A}/docker/{B}/init": engine("docker", B),
    f"/system.slice/docker-{A}.scope": engine("docker"),
    f"/system.slice/docker-{A}.scope/init": engine("docker"),
    f"/system.slice/docker-{A}.scope/docker/{B}": engine("docker", B),
    f"/system.slice/docker-{A}.scope/system.slice/docker-{B}.scope": engine("docker", B),
    f"{USER}/user.slice/docker-{A}.scope": engine("docker"),
    f"{USER}/app.slice/docker.service/user.slice:docker:{A}": engine("docker"),
    f"/ml.slice/docker-{A}.scope": engine("docker"),
    f"/actions_job/{A}": engine("docker"),
    f"/ecs/6c3e6b8f5a1d4b0f9e8d7c6b5a493827/{A}": engine("docker"),  # amazon-ecs-agent taskresource/cgroup
    f"/ecs.slice/ecstasks-6c3e6b8f5a1d4b0f9e8d7c6b5a493827.slice/docker-{A}.scope": engine("docker"),
    f"/lxc/101/ns/docker/{A}": engine("docker"),
    f"/../{A}": engine("unknown"),  # seen from inside a cgroup namespace, cgroup_namespaces(7)
    "/docker/buildkit/nzgdk0xpvtq1f4gyqvt1cjr4b": Workload(container="buildkit", runtime="docker"),
    "/system.slice/docker-nzgdk0xpvtq1f4gyqvt1cjr4b.scope": Workload(container="buildkit", runtime="docker"),
    # BuildKit in dockerd 20.10.24 with the systemd driver: its runc does not know it, the name is literal
    "/system.slice/system.slice:docker:e544pjzgq3mcvey9kdncftbff": Workload(container="buildkit", runtime="docker"),
    # Kubernetes, cgroupfs driver: pkg/kubelet/cm/pod_container_manager_linux.go
    f"/kubepods/burstable/pod{UID}/{A}": kubernetes(A),
    f"/kubepods/besteffort/pod{UID}/{A}": kubernetes(A),
    f"/kubepods/pod{UID}/{A}": kubernetes(A),
    f"/kubepods/pod{UID}": kubernetes(),
    f"/kubepods/burstable/pod{UID}": kubernetes(),
    f"/kubepods/burstable/pod{STATIC}/{A}": kubernetes(A, STATIC),
    f"/kubepods/burstable/pod{UID}/crio-{A}": kubernetes(A),
    f"/kubepods/burstable/pod{UID}/crio-conmon-{A}": kubernetes(A),
    f"/kubepods/burstable/pod{UID}/{A}/init.scope": kubernetes(A),
    f"/kubepods/burstable/pod{UID}/{A}/docker/{B}": kubernetes(A),
    f"/kubepods/burstable/pod{UID}/{A}/kubepods/burstable/pod{OTHER}/{B}": kubernetes(A),
    # Kubernetes, systemd driver: pkg/kubelet/cm/cgroup_manager_linux.go, ToSystemd
    f"{POD}/cri-containerd-{A}.scope": kubernetes(A),
    f"{POD}/cri-containerd-{A}.scope/system.slice/cron.service": kubernetes(A),
    f"{POD}/crio-{A}.scope": kubernetes(A),
    f"{POD}/crio-{A}.scope/container": kubernetes(A),
    f"{POD}/crio-conmon-{A}.scope": kubernetes(A),
    f"{POD}/docker-{A}.scope": kubernetes(A),
    f"{POD}/cri-containerd-{A}.scope/user.slice/libpod-{B}.scope": kubernetes(A),
    POD: kubernetes(),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{A}.scope": kubernetes(A),
    f"/kubepods.slice/kubepods-pod{UID_}.slice": kubernetes(),
    f"{KUBEPODS}/kubepods-burstable-pod{STATIC}.slice/crio-{A}.scope": kubernetes(A, STATIC),
    f"/../kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope": kubernetes(A),
    # containerd given a systemd path without SystemdCgroup=true: containerd#4857 and the like
    f"/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{A}": kubernetes(A),
    f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}": kubernetes(A),
    f"/system.slice/containerd.service/kubepods-pod{UID_}.slice:cri-containerd:{A}": kubernetes(A),
    # Kubernetes in containers: kind (--cgroup-root=/kubelet), k3d, minikube
    f"/docker/{B}/{KIND}/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope": kubernetes(A),
    f"/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice": kubernetes(),
    f"/system.slice/docker-{B}.scope/kubepods/besteffort/pod{UID}/{A}": kubernetes(A),
    f"/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}": kubernetes(A),
    f"/docker/{B}/kubepods/burstable/pod{UID}/{A}": kubernetes(A),
    f"/machine.slice/libpod-{B}.scope/container/{KIND}/kubelet-kubepods-burstable-pod{UID_}.slice/"
    f"cri-containerd-{A}.scope": kubernetes(A),
    f"{USER}/user.slice/docker-{B}.scope/{KIND}/kubelet-kubepods-burstable-pod{UID_}.slice": kubernetes(),
    f"/docker/{A}/kubelet.slice/kubelet-kubepods.slice": engine("docker"),  # the node, not a pod
    f"/docker/{A}/kubelet.slice/kubelet.service": engine("docker"),
    # A CRI's container outside of kubepods
    f"/system.slice/crio-{A}.scope": engine("kubernetes"),
    f"/system.slice/crio-conmon-{A}.scope": engine("kubernetes"),
    f"/system.slice/cri-containerd-{A}.scope": engine("kubernetes"),
    f"/k8s.io/{A}": engine("kubernetes"),
    # Quality-of-service groups own nothing
    "/kubepods": HOST,
    "/kubepods/burstable": HOST,
    "/kubepods.slice": HOST,
    KUBEPODS: HOST,
    "/kubelet": HOST,
    # Podman: libpod/container_internal_linux.go, pod_internal_linux.go, podman-run(1) --cgroups
    f"/machine.slice/libpod-{A}.scope": engine("podman"),
    f"/machine.slice/libpod-{A}.scope/container": engine("podman"),
    f"/machine.slice/libpod-{A}.scope/container/system.slice/httpd.service": engine("podman"),
    f"/machine.slice/libpod-conmon-{A}.scope": engine("podman"),
    f"/libpod_parent/libpod-{A}": engine("podman"),
    f"/libpod_parent/libpod-{A}/conmon": engine("podman"),
    f"/libpod_parent/{B}": engine("podman", "", B),
    f"/libpod_parent/{B}/libpod-{A}": engine("podman", A, B),
    f"/machine.slice/machine-libpod_pod_{B}.slice": engine("podman", "", B),
    f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope": engine("podman", A, B),
    f"{USER}/user.slice/libpod-{A}.scope": engine("podman"),
    f"{USER}/user.slice/libpod-{A}.scope/container": engine("podman"),
    f"{USER}/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope/container": engine("podman", A, B),
    f"/system.slice/foo.service/libpod-payload-{A}": engine("podman"),
    f"{USER}/app.slice/redis.service/libpod-payload-{A}": engine("podman"),
    f"/machine.slice/libpod-{B}.scope/container/docker/{A}": engine("docker"),
    "/system.slice/foo.service/runtime": unit("foo.service"),
    # Buildah in podman 4.3.1: one container for each step of a build, cgroupfs and systemd driver
    # Commands under ``ai-energy-exporter run``; in a container they are the container's.
    f"{USER}/app.slice/vte-1.scope/ai-energy-run.train.py.4711": Workload(container="train.py", runtime="run"),
    "/ai-energy-run.make.1/podman-build": Workload(container="make", runtime="run"),
    f"/docker/{A}/ai-energy-run.make.1": engine("docker"),
    "/buildah-buildah2248002461": Workload(container="buildah", runtime="podman"),
    "/system.slice/runc-buildah-buildah3834082189.scope": Workload(container="buildah", runtime="podman"),
    f"{USER}/user.slice/crun-buildah-buildah1.scope": Workload(container="buildah", runtime="podman"),
    "/buildah-buildahs": HOST,
    # runc 1.1.5 --systemd-cgroup run web1, without an engine
    "/system.slice/runc-web1.scope": Workload(container="web1", runtime="runc"),
    r"/user.slice/user-0.slice/crun-a\x2db.scope/child": Workload(container="a-b", runtime="crun"),
    f"/system.slice/runc-{A}.scope": engine("runc"),
    # containerd without Kubernetes: nerdctl
    f"/default/{A}": engine("containerd"),
    f"/system.slice/nerdctl-{A}.scope": engine("containerd"),
    f"{USER}/user.slice/nerdctl-{A}.scope": engine("containerd"),
    # systemd: systemd.slice(5), systemd.scope(5), systemd-escape(1), docs/CGROUP_DELEGATION.md
    "/system.slice/nginx.service": unit("nginx.service"),
    "/system.slice/foo.service/payload": unit("foo.service"),
    "/system.slice/foo.service/payload/deeper/bar.service": unit("foo.service"),
    "/system.slice/foo@bar.service": unit("foo@bar.service"),
    r"/system.slice/systemd-fsck@dev-disk-by\x2duuid-7c1a\x2d20b4.service": unit(
        "systemd-fsck@dev-disk-by-uuid-7c1a-20b4.service"
    ),
    r"/system.slice/caf\xc3\xa9.service": unit("café.service"),
    r"/system.slice/bell\x07.service": unit(r"bell\x07.service"),
    "/system.slice/_cpu.service": unit("cpu.service"),
    "/system.slice/system-getty.slice/getty@tty1.service": unit("getty@tty1.service"),
    r"/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service": unit("serial-getty@ttyS0.service"),
    "/ml.slice/ml-train.slice/torchrun.service": unit("torchrun.service"),
    "/system.slice/docker.service": unit("docker.service"),
    "/system.slice/containerd.service": unit("containerd.service"),
    "/runtime.slice/kubelet.service": unit("kubelet.service"),
    "/system.slice/run-u42.service": unit("run-u42.service"),
    "/system.slice/ollama.service": unit("ollama.service"),
    "/init.scope": unit("init.scope"),
    "/qemu.slice/100.scope": unit("100.scope"),  # Proxmox virtual machines
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope": unit("machine-qemu-1-vm.scope"),
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator": unit("machine-qemu-1-vm.scope"),
    "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service": unit("systemd-nspawn@web.service"),
    "/user.slice/user-1000.slice": unit("user-1000.slice"),
    "/user.slice/user-1000.slice/session-3.scope": unit("user-1000.slice"),
    f"{USER}/init.scope": unit("user-1000.slice"),
    f"{USER}/app.slice/app-gnome-firefox-1234.scope": unit("user-1000.slice"),
    f"{USER}/app.slice/ollama.service": unit("user-1000.slice"),
    "/user.slice/user-0.slice/session-c1.scope": unit("user-0.slice"),
    # LXC, LXD, Incus, Proxmox: lxc.container.conf(5)
    "/lxc.payload.web1": unit("web1"),
    "/lxc.payload.web1/system.slice/ssh.service": unit("web1"),
    "/lxc.payload-101": unit("101"),
    "/lxc.monitor.web1": unit("web1"),
    "/lxc/web1": unit("web1"),
    "/lxc/101/ns/init.scope": unit("101"),
    "/lxc.monitor/101": unit("101"),
    # Slurm: src/plugins/cgroup/v1 and v2, slurm.schedmd.com/cgroups.html
    "/slurm/uid_1000/job_123/step_batch/task_0": job(123, "1000"),
    "/slurm/uid_1000/job_123": job(123, "1000"),
    "/slurm/uid_1000/job_123/step_extern": job(123, "1000"),
    "/slurm_gpu01/uid_2101171/job_280678/step_interactive/task_0": job(280678, "2101171"),
    "/system.slice/slurmstepd.scope/job_1392969/step_0/user/task_0": job(1392969),
    "/system.slice/slurmstepd.scope/job_42/step_extern/user": job(42),
    "/system.slice/slurmstepd.scope/job_42/step_batch/slurm": job(42),
    "/system.slice/slurmstepd.scope/job_42": job(42),
    "/system.slice/gpu01_slurmstepd.scope/job_7/step_batch/user/task_special": job(7),
    f"/docker/{A}/system.slice/slurmstepd.scope/job_5/step_0/user/task_0": job(5),  # a cluster in containers
    f"{POD}/cri-containerd-{A}.scope/system.slice/slurmstepd.scope/job_5": kubernetes(A),
    "/system.slice/slurmstepd.scope/system": unit("slurmstepd.scope"),
    "/system.slice/slurmd.service": unit("slurmd.service"),
    "/slurm/uid_1000": HOST,
    # Slurm 26.05 names a job's directory by its SLUID: guilbaults/slurm-job-exporter#66
    "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0/user/task_0": batch("slurm", "s5K1KKYAYG5D00"),
    "/system.slice/slurmstepd.scope/s5K1KKYAZ2QW00": batch("slurm", "s5K1KKYAZ2QW00"),
    "/system.slice/gpu01_slurmstepd.scope/s5K1KKYAYG5D00/step_batch": batch("slurm", "s5K1KKYAYG5D00"),
    "/system.slice/gpu01_slurmstepd.scope/system": unit("gpu01_slurmstepd.scope"),
    "/slurm_gpu01/uid_7/s5K1KKYAYG5D00/step_0": Workload(
        container="s5K1KKYAYG5D00", runtime="slurm", owner_kind="User", owner_name="7"
    ),
    # PBS: PrincetonUniversity/jobstats#17, openpbs pbs_cgroups.PY
    "/pbspro.service/jobid/1234.server": batch("pbs", "1234.server"),
    "/pbs_jobs.service/jobid/1235[7].server/step": batch("pbs", "1235[7].server"),
    r"/pbspro.slice/pbspro-1236.pbs\x2dhead.slice": batch("pbs", "1236.pbs-head"),
    "/pbspro.service": unit("pbspro.service"),
    "/system.slice/pbs.service": unit("pbs.service"),
    # HTCondor: condor_utils/cgroup.cpp
    "/system.slice/condor.service/condor_var_lib_condor_execute_slot1_1@node1": batch("htcondor", "slot1_1@node1"),
    "/system.slice/condor.service/condor_var_lib_condor_execute_slot1_12@node1": batch("htcondor", "slot1_12@node1"),
    "/htcondor/condor_scratch_execute_slot2@node1/x": batch("htcondor", "slot2@node1"),
    "/system.slice/condor.service": unit("condor.service"),
    # YARN: hadoop CGroupsHandlerImpl.java
    "/hadoop-yarn/container_e17_1500000000000_0001_01_000001": yarn("container_e17_1500000000000_0001_01_000001"),
    "/yarn/container_1500000000000_0001_01_000002": yarn("container_1500000000000_0001_01_000002"),
    "/hadoop-yarn": HOST,
    # Nomad: hashicorp/nomad#23405, Roblox/nomad-driver-containerd#133
    "/nomad.slice/share.slice/b30be889-ebb4-8524-cc84-bfd79acd6057.promtail.scope": nomad("b30be889", "promtail"),
    "/nomad.slice/reserve.slice/d2a4176c-d6f0-14d6-95ef-6b3b332be2d8.web.api.scope": nomad("d2a4176c", "web.api"),
    "/nomad.slice/c1a4176c-d6f0-14d6-95ef-6b3b332be2d8.old.scope": nomad("c1a4176c", "old"),
    "/nomad/c1a4176c-d6f0-14d6-95ef-6b3b332be2d8.old-v1": nomad("c1a4176c", "old-v1"),
    "/nomad.slice/share.slice": HOST,
    # Kata: kata-containers#4886
    f"/kata_overhead/{A}": engine("kata")._replace(provisional=True),
    f"/vc/{A}": engine("kata")._replace(provisional=True),
    f"/kubepods/besteffort/pod{UID}/kata_{A}": kubernetes(),
    # Podman's health checks: podman#22884, #7484, #22589
    f"/system.slice/{A}-startup-1b5d1787b55c20ba.service": engine("podman"),
    f"/system.slice/{A}-3c0a9d0c4a7e11ef.service": engine("podman"),
    f"{USER}/app.slice/{A}.service": engine("podman"),
    # An id below an unknown parent names no engine
    f"/jailer/{A}": engine("unknown"),
    f"/batch.slice/{A}": engine("unknown"),
    f"/moby/{A}": engine("docker"),
    # containerd: ctr run IMAGE NAME
    "/default/web1": Workload(container="web1", runtime="containerd"),
    "/default/web1/sub": Workload(container="web1", runtime="containerd"),
    "/k8s.io/abc": Workload(container="abc", runtime="containerd"),
    "/default": HOST,
    # Units for one connection: systemd#29103, systemd.socket(5)
    "/system.slice/system-mariadbcheck.slice/mariadbcheck@147486-192.0.2.68:9200-198.51.100.7:30001.service": unit(
        "mariadbcheck@.service"
    ),
    "/system.slice/sshd@3-[::1]:22-[::1]:4.service": unit("sshd@3-[::1]:22-[::1]:4.service"),
    "/system.slice/sshd@3-2001:db8::1:22-2001:db8::2:50122.service": unit("sshd@.service"),
    "/system.slice/varlink@12-48211-0.service": unit("varlink@.service"),
    "/system.slice/vm@0-vsock:5000-2.service": unit("vm@.service"),
    "/system.slice/backup@2026-11-28.service": unit("backup@2026-11-28.service"),
    "/system.slice/postgresql@15-main.service": unit("postgresql@15-main.service"),
    # Talos: siderolabs/talos#4602
    "/podruntime/kubelet": unit("podruntime/kubelet"),
    "/podruntime/runtime": unit("podruntime/runtime"),
    "/podruntime/etcd": unit("podruntime/etcd"),
    "/system/apid": unit("system/apid"),
    "/system/runtime": unit("system/runtime"),
    "/podruntime": HOST,
    # Virtual machines: xapi-project/xen-api#6330, libvirt without systemd
    "/vm.slice/qemu-dm": unit("qemu-dm"),
    "/vm.slice/varstored": unit("varstored"),
    "/vm.slice/a.service": unit("a.service"),
    "/vm.slice": HOST,
    "/machine/web.libvirt-qemu/vcpu0": unit("web"),
    "/machine/qemu-1-web.libvirt-qemu": unit("qemu-1-web"),
    "/libvirt/qemu/web/emulator": unit("web"),
    "/machine": HOST,
    "/libvirt/qemu": HOST,
    # Of the host
    "/": HOST,
    "": HOST,
    "/system.slice": HOST,
    "/user.slice": HOST,
    "/machine.slice": HOST,
    "/system.slice/boot-efi.mount": HOST,
    "/system.slice/system-getty.slice": HOST,
    "/mygroup": HOST,
    "/lxc": HOST,
    "/lxc.pivot": HOST,
    "/docker": HOST,
    f"/docker/{A[:12]}": HOST,  # no engine shortens ids in paths
    f"/podcasts/{UID}": HOST,
    "/user.slice/user-1000": HOST,
}


@pytest.mark.parametrize("path", PATHS)
def test_owner_of_a_real_path(path: str) -> None:
    assert WorkloadNamer().workload(GroupKey(path, 1)) == PATHS[path]


def test_the_table_is_wide_enough_to_be_worth_something() -> None:
    assert len(PATHS) >= 80
    assert {owner.runtime for owner in PATHS.values()} == {
        "kubernetes", "docker", "podman", "containerd", "systemd", "slurm", "host",
        "pbs", "htcondor", "yarn", "nomad", "kata", "runc", "crun", "run", "unknown",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/system.slice/evil\nname.service\n",
        "/system.slice/b\udcffd.service",
        "/system.slice/\ud800.service",
        "/lxc.payload.b\udcff\nd",
        f"/docker/{A}\n",
        f"/kubepods/pod{UID}\n/{A}\n",
        "/system.slice/slurmstepd.scope/job_1\n",
        "/system.slice/slurmstepd.scope/job_٣",
        r"/system.slice/\xff\xfe.service",
        "/user-١.slice",
        "\0",
        "/" * 4096,
        "/" + "a_" * 2048,
        "/" + "a-" * 2048,
        "/x-pod" * 700,
        "/slurm_" * 600,
        "/docker" * 600,
        "/" + ":" * 4096,
        f"/{'a' * 4096}.service",
    ],
)
def test_hostile_paths_never_raise_and_their_labels_can_be_written(path: str) -> None:
    """Fault 45: newline, NUL, bytes that are no UTF-8, 4 kB names; none may break or stall the scrape."""
    start = time.thread_time()
    owner = WorkloadNamer().workload(GroupKey(path, 1))
    assert time.thread_time() - start < 0.05
    assert "".join(owner[:9]).encode()
    assert owner.runtime in {"systemd", "host"}


@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted({part for path in PATHS for part in path.split("/")})),
            st.text(alphabet=st.characters(codec=None), max_size=40),
        ),
        max_size=8,
    )
)
def test_any_mixture_of_components_has_exactly_one_owner(parts: list[str]) -> None:
    """Fault 45: whatever the tree looks like, a group belongs to one row whose id and label agree."""
    owner = WorkloadNamer().workload(GroupKey("/" + "/".join(parts), 1))
    assert owner == HOST or owner.container or owner.pod
    if owner.container_id:
        assert owner.container == owner.container_id[:12]
    assert "".join(owner[:9]).encode()


@pytest.mark.parametrize(
    ("paths", "owner"),
    [
        (("/system.slice/slurmd.service", "/slurm/uid_1000/job_7/step_0/task_0"), job(7, "1000")),
        ((f"/docker/{A}", "/slurm/uid_1000/job_7"), job(7, "1000")),
        ((f"{POD}/crio-{A}.scope", "/system.slice/condor.service/condor_x_slot1@n"), batch("htcondor", "slot1@n")),
        (("/system.slice/containerd.service", f"/kubepods/pod{UID}", f"/kubepods/pod{UID}/{A}"), kubernetes(A)),
        (("/user.slice", "/system.slice/a.service", f"/docker/{A}"), engine("docker")),
        (("/batch/x", "/system.slice/a.service"), unit("a.service")),
        (("/system.slice/a.service", "/system.slice/b.service"), unit("a.service")),
        (("/batch/x", "/batch/y"), HOST),
    ],
)  # fmt: skip
def test_a_process_in_several_trees_belongs_to_the_strongest(paths: tuple[str, ...], owner: Workload) -> None:
    assert WorkloadNamer().workload(GroupKey(PATH_SEPARATOR.join(paths), 0)) == owner


@pytest.mark.parametrize("order", [1, -1])
def test_the_overhead_of_a_kata_sandbox_is_its_pods(order: int) -> None:
    overhead = GroupKey(f"/kata_overhead/{A}", 1)
    machine = GroupKey(f"/kubepods/besteffort/pod{UID}/kata_{A}", 2)
    namer = WorkloadNamer()
    for group in (overhead, machine)[::order]:
        namer.workload(group)
    assert namer.renamed() == ({overhead} if order == 1 else set())
    assert namer.workload(overhead) == namer.workload(machine) == kubernetes()
    namer.forget(machine)
    assert namer.workload(overhead) == kubernetes()
    namer.forget(overhead)
    assert namer.workload(overhead).provisional
    assert namer.settled(overhead) == engine("kata")


def test_steps_of_slurm_are_rows_if_wanted() -> None:
    namer = WorkloadNamer(paths=path_resolvers(["slurm", "lsf.service"]))
    split = {
        "/slurm/uid_1000/job_7/step_0/task_1": ("job_7/step_0", "7.0"),
        "/slurm_vm/uid_1000/job_7/step_batch": ("job_7/step_batch", "7.batch"),
        "/system.slice/slurmstepd.scope/job_7/step_extern/user/task_0": ("job_7/step_extern", "7.extern"),
        "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0": ("s5K1KKYAYG5D00/step_0", None),
        "/slurm/uid_1000/job_7": ("job_7", None),
        "/system.slice/lsf.service/job7": ("lsf.service/job7", None),
    }
    found = {path: namer.workload(GroupKey(path, 1)) for path in split}
    assert {path: (row.container, dict(row.labels).get("slurm_step_id")) for path, row in found.items()} == split
    assert WorkloadNamer(paths=path_resolvers(["lsf.service"])).workload(GroupKey("/slurm/uid_1/job_7/step_0", 1)) == (
        job(7, "1")
    )


def test_a_split_unit_is_one_row_for_each_group_in_it() -> None:
    namer = WorkloadNamer(paths=path_resolvers(["lsf.service", "grid", r"vm.slice", "gw@a.service"]))
    split = {
        "/system.slice/lsf.service/job7": "lsf.service/job7",
        r"/system.slice/lsf.service/job\x2d8/step": "lsf.service/job-8",
        "/system.slice/grid.service/a": "grid.service/a",
        "/vm.slice/qemu-dm/vm1": "qemu-dm",
        "/system.slice/gw@a.service/x": "gw@a.service/x",
        "/system.slice/lsf.service": "lsf.service",
        "/system.slice/other.service/a": "other.service",
    }
    assert {path: namer.workload(GroupKey(path, 1)).container for path in split} == split
    assert namer.workload(GroupKey(f"/system.slice/lsf.service/docker-{A}.scope", 1)) == engine("docker")


def test_resolvers_never_contradict_an_id_that_is_in_the_path() -> None:
    for path, owner in PATHS.items():
        assert owner.container_id in path
        assert owner.pod_uid in path.replace("_", "-")


def test_the_first_resolver_that_matches_a_path_wins() -> None:
    resolved: list[str] = []

    def named(path: str) -> Workload | None:
        resolved.append(path)
        return Workload(container="api-name") if "known" in path else None

    namer = WorkloadNamer(paths=(named, *RESOLVERS))
    assert namer.workload(GroupKey("/known", 1)).container == "api-name"
    assert namer.workload(GroupKey("/init.scope", 1)) == unit("init.scope")
    assert resolved == ["/known", "/init.scope"]


POD_UID = "3b3f7a1e-6f0c-4a43-9a50-2f1f0c1b8d11"
POD_GROUP = GroupKey(f"/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice", 10)
CONTAINER_GROUP = GroupKey(f"{POD_GROUP.path}/cri-containerd-{A}.scope", 11)
SANDBOX_GROUP = GroupKey(f"{POD_GROUP.path}/cri-containerd-{B}.scope", 12)
NAMES = ContainerMetadata(
    "team-nlp", "llama-0", "vllm", POD_UID, "vllm/vllm-openai:v0.11", "StatefulSet", "llama", {"app": "llama", "x": "1"}
)


class FakeProvider:
    """A provider with the metadata that a test puts into it."""

    def __init__(self) -> None:
        self.known: dict[str, ContainerMetadata] = {}
        self.pending: set[str] = set()
        self.up = True
        self.retries = 0

    def put(self, key: str, metadata: ContainerMetadata) -> None:
        self.known[key] = metadata
        self.pending.add(key)

    def find(self, workload: Workload) -> ContainerMetadata | None:
        return self.known.get(workload.container_id) or self.known.get(workload.pod_uid)

    def expects(self, workload: Workload) -> bool:
        return workload.runtime == "kubernetes" and workload.container_id not in self.known

    def changed(self) -> set[str]:
        changed, self.pending = self.pending, set()
        return changed

    def health(self) -> SourceHealth:
        return SourceHealth("kubernetes", self.up, None, "", "", {}, 0.0, 0.0)

    def retry(self) -> None:
        self.retries += 1

    def close(self) -> None:
        self.up = False


def test_a_name_that_is_pending_is_provisional_and_reported_when_known() -> None:
    provider = FakeProvider()
    namer = WorkloadNamer([provider], labels=["app", "missing"])
    before = namer.workload(CONTAINER_GROUP)
    assert before.provisional
    assert (before.pod, before.container) == (POD_UID, A[:12])
    assert not namer.renamed()
    provider.put(A, NAMES)
    assert namer.renamed() == {CONTAINER_GROUP}
    assert not namer.renamed()
    assert namer.workload(CONTAINER_GROUP) == Workload(
        "team-nlp",
        "llama-0",
        "vllm",
        "kubernetes",
        A,
        POD_UID,
        "vllm/vllm-openai:v0.11",
        "StatefulSet",
        "llama",
        (("app", "llama"),),
    )


def test_a_pod_known_before_its_container_leaves_the_container_provisional() -> None:
    provider = FakeProvider()
    namer = WorkloadNamer([provider])
    provider.put(POD_UID, ContainerMetadata("team-nlp", "llama-0", pod_uid=POD_UID))
    assert namer.workload(POD_GROUP)[:4] == ("team-nlp", "llama-0", "", "kubernetes")
    assert not namer.workload(POD_GROUP).provisional
    assert namer.workload(CONTAINER_GROUP).provisional


def test_a_settled_sandbox_that_no_api_lists_is_the_pods() -> None:
    provider = FakeProvider()
    namer = WorkloadNamer([provider])
    assert namer.settled(SANDBOX_GROUP)[:3] == ("", POD_UID, B[:12])
    provider.put(POD_UID, ContainerMetadata("team-nlp", "llama-0", pod_uid=POD_UID))
    assert namer.settled(SANDBOX_GROUP) == namer.workload(POD_GROUP)
    assert namer.settled(SANDBOX_GROUP)[:5] == ("team-nlp", "llama-0", "", "kubernetes", "")


def test_a_workload_of_no_provider_is_not_provisional() -> None:
    namer = WorkloadNamer([FakeProvider()])
    assert not namer.workload(GroupKey("/system.slice/ssh.service", 1)).provisional
    assert not namer.workload(GroupKey(f"/docker/{A}", 1)).provisional


def restarted(provider: FakeProvider) -> WorkloadNamer:
    """A namer that restored the names of the container from an earlier run."""
    provider.put(A, NAMES)
    workload = WorkloadNamer([provider], labels=["app"]).workload(CONTAINER_GROUP)
    provider.known.clear()
    namer = WorkloadNamer([provider], ByCommand(), labels=["app"])
    namer.remember(workload)
    return namer


def test_restored_names_hold_while_no_provider_has_metadata() -> None:
    """Fault 49: the API server is down when the exporter is restarted."""
    namer = restarted(FakeProvider())
    workload = namer.workload(CONTAINER_GROUP)
    assert workload[:4] == ("team-nlp", "llama-0", "vllm", "kubernetes")
    assert (workload.provisional, workload.image, workload.labels) == (False, NAMES.image, (("app", "llama"),))
    assert namer.model(CONTAINER_GROUP, Process(ProcessKey(7, 100), "vllm")) == Model(
        "qwen", "team-nlp", "inference", "command"
    )
    assert namer.workload(POD_GROUP).provisional is False
    assert namer.workload(POD_GROUP)[:4] == ("team-nlp", "llama-0", "", "kubernetes")
    assert namer.workload(SANDBOX_GROUP).provisional, "it may be a container that is new"
    assert namer.settled(SANDBOX_GROUP)[:4] == ("team-nlp", "llama-0", "", "kubernetes")


@pytest.mark.parametrize("providers", [[], [FakeProvider()]], ids=["none", "another runtime's"])
def test_restored_names_hold_without_a_provider_of_the_runtime(providers: list[FakeProvider]) -> None:
    """The engine's socket is off, or gone, when the exporter is restarted."""
    namer = WorkloadNamer(providers)
    namer.remember(Workload(container="trainer", runtime="docker", container_id=A, image="hreal/spin:1"))
    group = GroupKey(f"/docker/{A}", 1)
    named = namer.workload(group)
    assert (named.container, named.runtime, named.image, named.provisional) == (
        "trainer",
        "docker",
        "hreal/spin:1",
        False,
    )
    assert named == namer.settled(group), "the same name at once and when it has ended"
    assert namer.workload(GroupKey(f"/docker/{B}", 1)).container == B[:12]
    namer.forget(group)
    assert namer.workload(group).container == A[:12]


def test_labels_of_a_pod_are_all_that_a_provider_has() -> None:
    """Restored names have only the chosen ones, so they are not known until a provider has them."""
    provider = FakeProvider()
    namer = restarted(provider)
    workload = namer.workload(CONTAINER_GROUP)
    assert namer.pod_labels(workload) is None
    provider.put(A, replace(NAMES, labels={"app": "kai-resource-reservation", "x": "y"}))
    assert namer.pod_labels(workload) == {"app": "kai-resource-reservation", "x": "y"}


def test_an_id_is_not_restored_as_a_name() -> None:
    """The API server was down in the whole earlier run: its answer is awaited before the row is published."""
    namer = WorkloadNamer([FakeProvider()])
    namer.remember(Workload(pod=POD_UID, container=A[:12], runtime="kubernetes", container_id=A, pod_uid=POD_UID))
    assert namer.workload(CONTAINER_GROUP).provisional


def test_metadata_takes_precedence_over_restored_names() -> None:
    provider = FakeProvider()
    namer = restarted(provider)
    namer.workload(CONTAINER_GROUP)
    provider.put(POD_UID, ContainerMetadata("team-nlp", "llama-0", pod_uid=POD_UID))
    assert namer.workload(CONTAINER_GROUP).container == "vllm", "only the pod has metadata, this container has not"
    provider.put(A, replace(NAMES, image="vllm/vllm-openai:v0.12"))
    assert namer.renamed() == {CONTAINER_GROUP}
    assert namer.workload(CONTAINER_GROUP).image == "vllm/vllm-openai:v0.12"


def test_ids_are_not_restored_as_names_of_a_pod() -> None:
    """A container without a name had only ids; its pod may have a name from another container."""
    namer = restarted(FakeProvider())
    namer.remember(Workload(pod=POD_UID, container=B[:12], runtime="kubernetes", container_id=B, pod_uid=POD_UID))
    assert namer.workload(POD_GROUP).pod == "llama-0"


def test_forget_removes_all_state_of_a_group() -> None:
    """Fault 43: churn leaves no state behind."""
    provider = FakeProvider()
    namer = WorkloadNamer([provider])
    for inode in range(100):
        group = CONTAINER_GROUP._replace(inode=inode)
        namer.workload(group)
        namer.forget(group)
    provider.put(A, NAMES)
    provider.put(POD_UID, NAMES)
    assert not namer.renamed()
    provider.known.clear()
    again = restarted(provider)
    again.workload(CONTAINER_GROUP)
    again.forget(CONTAINER_GROUP)
    assert again.workload(CONTAINER_GROUP).provisional


class ByCommand:
    """Resolves a model by label, else by the name of the process."""

    def __init__(self) -> None:
        self.pending: set[GroupKey] = set()
        self.calls: list[tuple[Workload, ContainerMetadata | None]] = []
        self.servers = ModelServers(Host())

    def resolve(
        self, process: Process, _group: GroupKey | None, workload: Workload, metadata: ContainerMetadata | None
    ) -> Model | None:
        self.calls.append((workload, metadata))
        if metadata is not None and "model" in metadata.labels:
            return Model(metadata.labels["model"], workload.namespace, "inference", "label")
        return Model("qwen", workload.namespace, "inference", "command") if process.comm == "vllm" else None

    def changed(self) -> set[GroupKey]:
        changed, self.pending = self.pending, set()
        return changed

    def close(self) -> None:
        self.pending.clear()


def test_models_come_from_the_resolver_and_are_unknown_without_one() -> None:
    group, process = GroupKey(f"/docker/{A}", 1), Process(ProcessKey(7, 100), "vllm")
    assert WorkloadNamer().model(group, process) is None
    models = ByCommand()
    namer: Namer = WorkloadNamer(models=models)
    assert namer.model(group, process) == Model("qwen", "", "inference", "command")
    assert namer.model(None, process._replace(comm="bash")) is None
    assert models.calls[-1] == (NOWHERE, None)
    assert namer.is_shared(NOWHERE), "processes without a known cgroup are not of one container"
    models.pending.add(group)
    assert namer.renamed() == {group}


def test_a_model_comes_from_the_metadata_of_the_pod() -> None:
    provider = FakeProvider()
    namer = WorkloadNamer([provider], ByCommand())
    provider.put(A, replace(NAMES, labels={"model": "llama"}))
    assert namer.model(CONTAINER_GROUP, Process(ProcessKey(7, 100), "vllm")) == Model(
        "llama", "team-nlp", "inference", "label"
    )


def test_providers_report_health_and_are_closed() -> None:
    provider = FakeProvider()
    namer = WorkloadNamer([provider])
    assert [health.name for health in namer.health()] == ["kubernetes"]
    namer.close()
    assert not namer.health()[0].up
