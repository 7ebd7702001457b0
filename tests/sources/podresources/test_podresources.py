"""The kubelet's PodResources API: queried over real gRPC, with the device names of every vendor, and its failures."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import StreamEnded
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.host import Host
from exporter.records import Allocation, Unavailable
from exporter.sources.podresources.cards import DeviceResolver, Part
from exporter.sources.podresources.grpc import MAX_BYTES, call
from exporter.sources.podresources.source import POLL_SECONDS, STARTING_SECONDS, PodResourcesSource
from exporter.sources.podresources.wire import DeviceAssignment, decode
from tests.support.fake_kubelet import LIST, Claim, Container, Kubelet, Messages, Pod, grpc, pod
from tests.support.patience import patience

CARD = "GPU-2c1f4a86-9e0b-4d7c-8b0a-0f5c1d2e3f40"
MIG = "MIG-6b1e0a52-1d2c-5b3a-8e4f-9a8b7c6d5e4f"


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    return Messages(tmp_path_factory.mktemp("proto"))


@pytest.fixture
def path() -> Iterator[Path]:
    """Where the socket goes: a path of at most 107 bytes, which those of pytest may exceed."""
    folder = tempfile.mkdtemp(prefix="kubelet-")
    yield Path(folder) / "kubelet.sock"
    shutil.rmtree(folder)


@pytest.fixture
def kubelet(messages: Messages, path: Path) -> Iterator[Kubelet]:
    made = Kubelet(messages, path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path / "proc"), str(tmp_path / "sys"))


@pytest.fixture
def source(host: Host, path: Path) -> PodResourcesSource:
    return PodResourcesSource(host, str(path))


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def failure(read: Callable[[], object]) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        read()
    return caught.value


# --- what it is told -----------------------------------------------------------------------------------


def test_every_container_with_a_card_is_reported(kubelet: Kubelet, source: PodResourcesSource) -> None:
    kubelet.pods = [
        pod("serving", "llama-0", "vllm", CARD),
        pod("kube-system", "proxy", "proxy"),
        Pod("train", "job", (Container("main", {"nvidia.com/mig-1g.10gb": [MIG]}), Container("sidecar"))),
    ]
    reading = source.read(0.0)
    assert reading.allocations == (
        Allocation(CARD, "serving", "llama-0", "vllm"),
        Allocation(MIG, "train", "job", "main"),
    )
    assert reading.rest_seconds == POLL_SECONDS
    kubelet.pods = []
    assert source.read(10.0).allocations == ()


def test_replicas_of_a_card_weigh_as_many_times(kubelet: Kubelet, source: PodResourcesSource) -> None:
    kubelet.pods = [pod("a", "two", "c", f"{CARD}::0", f"{CARD}::3"), pod("b", "one", "c", f"{CARD}::1")]
    assert source.read(0.0).allocations == (
        Allocation(CARD, "a", "two", "c", 2.0),
        Allocation(CARD, "b", "one", "c", 1.0),
    )


def test_shares_of_hami_weigh_as_many_times(kubelet: Kubelet, source: PodResourcesSource) -> None:
    """Project-HAMi/HAMi rm/devices.go: ``GPU-<uuid>-<n>``."""
    kubelet.pods = [pod("a", "two", "c", f"{CARD}-0", f"{CARD}-3"), pod("b", "one", "c", f"{CARD}-1")]
    assert source.read(0.0).allocations == (
        Allocation(CARD, "a", "two", "c", 2.0),
        Allocation(CARD, "b", "one", "c", 1.0),
    )


def test_a_name_of_a_card_in_an_unknown_form_is_logged_once(
    kubelet: Kubelet, source: PodResourcesSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_machine(tmp_path)
    kubelet.pods = [pod("a", "one", "c", f"vgpu/{CARD}", "mlx5_0"), pod("b", "two", "c", f"vgpu/{CARD}")]
    for now in (0.0, 10.0):
        assert source.read(now).allocations == ()
    (record,) = caplog.records
    assert f"vgpu/{CARD}" in record.getMessage()
    assert "a/one" in record.getMessage()


def test_a_claim_referred_to_twice_is_one(kubelet: Kubelet, source: PodResourcesSource, tmp_path: Path) -> None:
    write(tmp_path / "proc/driver/nvidia/gpus/0000:41:00.0/information", "Device Minor: \t 0\n")
    claim = Claim("gpu.nvidia.com", "gpu-0")
    kubelet.pods = [
        Pod("a", "pod", (Container("one", claims=(claim, claim)), Container("other", claims=(claim,)))),
    ]
    assert source.read(0.0).allocations == (
        Allocation("0000:41:00.0", "a", "pod", "one"),
        Allocation("0000:41:00.0", "a", "pod", "other"),
    )


NAMES = [
    (CARD, Part(CARD)),
    (f"{CARD}::12", Part(CARD)),
    (f"{CARD}-3", Part(CARD)),  # HAMi
    (f"{CARD}[2-1]", Part(CARD)),
    (f"{CARD}_vgpu/7", Part(CARD)),
    (f"{CARD}0", None),
    (f"{CARD[:-1]}", None),
    (f"vgpu/{CARD}", None),
    (f"{MIG}-0", Part(MIG)),
    (f"MIG-{CARD}/7/0::2", Part(f"MIG-{CARD}/7/0")),
    (MIG, Part(MIG)),
    (f"{MIG}::0", Part(MIG)),
    (f"MIG-{CARD}/7/0", Part(f"MIG-{CARD}/7/0")),
    ("nvidia1", Part("0000:41:00.0")),
    ("nvidia1/vgpu3", Part("0000:41:00.0")),
    ("nvidia1/gi5", Part("0000:41:00.0", 1.0, "5")),
    ("nvidia1/gi5/vgpu0", Part("0000:41:00.0", 1.0, "5")),
    ("nvidia7", None),
    ("0000:83:00.0", Part("0000:83:00.0")),
    ("0000:83:00.0-slice-2", Part("0000:83:00.0")),
    ("0000:83:00.0/mxgpu1", Part("0000:83:00.0")),
    ("0000:83:00.0_share_4", Part("0000:83:00.0")),
    ("0000:b3:00.1", Part("0000:b3:00.0")),
    ("amdgpu_xcp_30", Part("0000:83:00.0")),
    ("amdgpu_xcp_31", None),
    ("card2-0", Part("0000:b3:00.0")),
    ("card2", Part("0000:b3:00.0")),
    ("card3", Part("0000:83:00.0")),
    ("card9-0", None),
    ("all", None),
    ("", None),
    (f"{CARD}\n", None),
]
"""What device plugins call their devices, and what that is on the machine of `write_machine`."""

CLAIMS = [
    (Claim("gpu.nvidia.com", "gpu-1"), Part("0000:41:00.0")),
    (Claim("gpu.nvidia.com", "gpu-1-mig-1g10gb-19-0"), Part("0000:41:00.0", 1 / 7)),
    (Claim("gpu.nvidia.com", "gpu-1-mig-2g20gb-me-15-4"), Part("0000:41:00.0", 2 / 7)),
    (Claim("gpu.nvidia.com", "gpu-1-mig-9-0-4"), Part("0000:41:00.0", 0.5)),
    (Claim("gpu.nvidia.com", "gpu-9"), None),
    (Claim("gpu.nvidia.com", "gpu-vfio-1"), None),
    (Claim("compute-domain.nvidia.com", "channel-0"), None),
    (Claim("gpu.amd.com", "gpu-3-130"), Part("0000:83:00.0")),
    (Claim("gpu.intel.com", "0000-b3-00-0-0x0bda"), Part("0000:b3:00.0")),
    (Claim("gpu.intel.com", "0000-b3-00-1-0x0bda"), Part("0000:b3:00.0")),
    (Claim("gpu.example.com", "gpu-1"), None),
]


def write_machine(root: Path) -> None:
    """An NVIDIA card with minor 1; an Intel card with a virtual function; an AMD card with a partition."""
    write(root / "proc/driver/nvidia/gpus/0000:41:00.0/information", f"GPU UUID: \t {CARD}\nDevice Minor: \t 1\n")
    devices = root / "sys/bus/pci/devices"
    for address in ("0000:83:00.0", "0000:b3:00.0", "0000:b3:00.1"):
        (devices / address).mkdir(parents=True)
    link(devices / "0000:b3:00.1/physfn", devices / "0000:b3:00.0")
    link(root / "sys/class/drm/card2/device", devices / "0000:b3:00.0")
    partition = root / "sys/devices/platform/amdgpu_xcp_30"
    (partition / "drm/renderD130").mkdir(parents=True)
    link(root / "sys/class/drm/card3/device", partition)
    (root / "sys/devices/platform/amdgpu_xcp_31/drm/renderD131").mkdir(parents=True)
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    write(nodes / "0/properties", "cpu_cores_count 64\nlocation_id 0\ndomain 0\ndrm_render_minor 0\n")
    # Bus 0x83, slot 0, and the number of the partition where the function would be.
    write(nodes / "1/properties", f"cpu_cores_count 0\nlocation_id {0x8302}\ndomain 0\ndrm_render_minor 130\n")


@pytest.mark.parametrize(("name", "part"), NAMES)
def test_names_of_device_plugins(host: Host, tmp_path: Path, name: str, part: Part | None) -> None:
    write_machine(tmp_path)
    assert DeviceResolver(host).resolve(DeviceAssignment("ns", "pod", "c", "", "example.com/gpu", name)) == part


@pytest.mark.parametrize(("claim", "part"), CLAIMS)
def test_names_of_dra_drivers(host: Host, tmp_path: Path, claim: Claim, part: Part | None) -> None:
    write_machine(tmp_path)
    assert (
        DeviceResolver(host).resolve(DeviceAssignment("ns", "pod", "c", claim.driver, claim.pool, claim.device)) == part
    )


@pytest.mark.parametrize(("name", "_"), NAMES)
def test_a_machine_that_shows_nothing_of_its_cards(host: Host, name: str, _: Part | None) -> None:
    """Then only what the name itself contains is known."""
    part = DeviceResolver(host).resolve(DeviceAssignment("ns", "pod", "c", "", "example.com/gpu", name))
    assert part is None or part.device in name


# --- the wire ------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20)
PODS = st.lists(
    st.builds(
        Pod,
        TEXT,
        TEXT,
        st.lists(
            st.builds(
                Container,
                TEXT,
                st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=2),
                st.lists(st.builds(Claim, TEXT.filter(bool), TEXT, TEXT), max_size=2).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
    ),
    max_size=4,
)


@given(PODS)
def test_what_protobuf_writes_is_read_back(messages: Messages, pods: list[Pod]) -> None:
    expected = []
    for each in pods:
        for container in each.containers:
            place = each.namespace, each.name, container.name
            expected += [
                DeviceAssignment(*place, "", kind, id_) for kind, ids in container.devices.items() for id_ in ids
            ]
            expected += [DeviceAssignment(*place, claim.driver, claim.pool, claim.device) for claim in container.claims]
    assert list(decode(messages.listing(pods))) == expected


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read_but_never_worse(data: bytes) -> None:
    """Fault 49."""
    with contextlib.suppress(ValueError):
        list(decode(data))


@given(PODS.filter(bool), st.data())
def test_what_is_cut_short_is_refused_or_shorter(messages: Messages, pods: list[Pod], data: st.DataObject) -> None:
    """Fault 49: no cut makes another pod or another device of what was there."""
    whole = messages.listing(pods)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        found = list(decode(cut))
    except ValueError:
        return
    assert found == list(decode(whole))[: len(found)]


def test_later_versions_may_have_more_fields() -> None:
    def field(number: int, kind: int, value: bytes) -> bytes:
        return bytes([number << 3 | kind]) + value

    def part(number: int, value: bytes) -> bytes:
        return field(number, 2, bytes([len(value)]) + value)

    devices = part(1, b"nvidia.com/gpu") + part(2, CARD.encode()) + field(9, 1, bytes(8)) + field(10, 5, bytes(4))
    container = part(1, b"c") + part(2, devices) + field(11, 0, b"\xff\x01")
    message = part(1, part(1, b"pod") + part(2, b"ns") + part(3, container) + part(12, b"news"))
    assert list(decode(message)) == [DeviceAssignment("ns", "pod", "c", "", "nvidia.com/gpu", CARD)]


def test_a_full_node(kubelet: Kubelet, source: PodResourcesSource) -> None:
    """110 pods with 8 replicas each is what a kubelet runs at most by default."""
    kubelet.pods = [pod("ns", f"pod-{n}", "main", *[f"{CARD}::{8 * n + i}" for i in range(8)]) for n in range(110)]
    found = source.read(0.0).allocations
    assert found is not None
    assert {(each.pod, each.share) for each in found} == {(f"pod-{n}", 8.0) for n in range(110)}


# --- how it fails --------------------------------------------------------------------------------------


def test_no_kubelet(source: PodResourcesSource) -> None:
    """Fault 49."""
    error = failure(lambda: source.read(0.0))
    assert (error.reason, "hosts" in error.fix or "mount" in error.fix) == ("not_found", True)


def test_nothing_is_loaded_without_a_socket(tmp_path: Path) -> None:
    """Outside Kubernetes it costs nothing."""
    program = (
        "import sys\n"
        "from exporter.host import Host\n"
        "from exporter.sources.podresources.source import PodResourcesSource\n"
        "try: PodResourcesSource(Host(), sys.argv[1]).read(0.0)\n"
        "except Exception: pass\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('h2', 'hpack', 'hyperframe', 'grpc')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "none.sock")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_not_installed(kubelet: Kubelet, source: PodResourcesSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "exporter.sources.podresources.grpc")
    monkeypatch.setitem(sys.modules, "h2.config", None)
    error = failure(lambda: source.read(0.0))
    assert (error.reason, error.fix) == ("not_found", "pip install h2")


def test_a_socket_that_is_roots(kubelet: Kubelet, source: PodResourcesSource) -> None:
    """Fault 49: as another user than root."""
    kubelet.path.chmod(0o600 if os.geteuid() == 0 else 0)
    kubelet.path.parent.chmod(0o755)
    user = os.geteuid()
    try:
        os.seteuid(65534 if user == 0 else user)
        error = failure(lambda: source.read(0.0))
    finally:
        os.seteuid(user)
    assert error.reason == "permission"
    assert "run as uid 0" in error.fix


def test_a_folder_that_is_roots(kubelet: Kubelet, source: PodResourcesSource) -> None:
    """Fault 49: a socket that may not even be looked at is not one that is missing."""
    user = os.geteuid()
    kubelet.path.parent.chmod(0o700 if user == 0 else 0)
    try:
        os.seteuid(65534 if user == 0 else user)
        assert failure(lambda: source.read(0.0)).reason == "permission"
    finally:
        os.seteuid(user)
        kubelet.path.parent.chmod(0o700)


def test_the_kubelet_restarts(kubelet: Kubelet, path: Path) -> None:
    """Fault 49: the socket is another file afterwards, and the first answers lack pods, or their devices."""
    now = [time.time()]
    source = PodResourcesSource(Host(wall=lambda: now[0]), str(path))
    kubelet.pods = [pod("ns", "pod", "c", CARD), pod("ns", "ends", "c", MIG)]
    before = source.read(0.0)
    kubelet.stop()
    assert failure(lambda: source.read(10.0)).reason == "not_found"
    for listed in ([], [pod("ns", "pod", "c")]):
        kubelet.pods = listed
        if not path.exists():
            kubelet.start()
        now[0] = path.stat().st_mtime + 1.5
        assert source.read(20.0) == before
    kubelet.pods = [pod("ns", "pod", "c", CARD)]
    now[0] += STARTING_SECONDS
    assert source.read(30.0).allocations == (Allocation(CARD, "ns", "pod", "c"),)
    kubelet.pods = []
    assert source.read(40.0).allocations == ()


def test_the_first_answers_to_a_new_exporter_are_used(kubelet: Kubelet, path: Path) -> None:
    """There is nothing better yet."""
    source = PodResourcesSource(Host(wall=lambda: path.stat().st_mtime + 1.0), str(path))
    kubelet.pods = []
    assert source.read(0.0).allocations == ()
    kubelet.pods = [pod("ns", "pod", "c", CARD)]
    assert source.read(10.0).allocations == (Allocation(CARD, "ns", "pod", "c"),)


def test_a_socket_without_a_listener(source: PodResourcesSource, path: Path) -> None:
    """Fault 49: as a kubelet that was killed leaves it."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    error = failure(lambda: source.read(0.0))
    assert (error.reason, str(path) in error.message) == ("error", True)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("UNIMPLEMENTED", "not_found"),
        ("PERMISSION_DENIED", "permission"),
        ("DEADLINE_EXCEEDED", "timeout"),
        ("RESOURCE_EXHAUSTED", "error"),
        ("INTERNAL", "error"),
    ],
)
def test_the_kubelet_refuses(kubelet: Kubelet, source: PodResourcesSource, status: str, reason: str) -> None:
    """Fault 49: it limits the rate of requests, and a feature may be off."""
    kubelet.answer = lambda context: context.abort(grpc.StatusCode[status], "nöt nöw")
    error = failure(lambda: source.read(0.0))
    assert error.reason == reason
    assert error.message.endswith("nöt nöw")


def test_no_such_method(kubelet: Kubelet) -> None:
    error = failure(lambda: call(str(kubelet.path), "/v1.PodResourcesLister/Other", 5.0))
    assert error.reason == "not_found"


def test_slow(kubelet: Kubelet) -> None:
    """Fault 49."""
    release = threading.Event()

    def wait(_: Any) -> bytes:
        release.wait(patience(60))
        return b""

    kubelet.answer = wait
    try:
        assert failure(lambda: call(str(kubelet.path), LIST, 0.2)).reason == "timeout"
    finally:
        release.set()


def test_the_longest_answer(kubelet: Kubelet) -> None:
    """Sixteen MiB, as the kubelet's own clients take."""
    kubelet.answer = lambda _: bytes(MAX_BYTES)
    assert len(call(str(kubelet.path), LIST, 60.0)) == MAX_BYTES
    kubelet.answer = lambda _: bytes(MAX_BYTES + 1)
    error = failure(lambda: call(str(kubelet.path), LIST, 60.0))
    assert (error.reason, "16 MiB" in error.message) == ("implausible", True)


def test_an_answer_of_something_else(kubelet: Kubelet, source: PodResourcesSource) -> None:
    """Fault 49: gRPC, but not this API."""
    kubelet.answer = lambda _: b"\x0bnot protobuf"
    error = failure(lambda: source.read(0.0))
    assert (error.reason, "not an answer of PodResources v1" in error.message) == ("implausible", True)


class Imposter:
    """Accepts one connection, waits for the request, and sends what a test wants."""

    def __init__(self, path: Path, say: Callable[[H2Connection, socket.socket], None]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._say = say
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(patience(30))
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        channel, _ = self._listener.accept()
        with channel:
            connection = H2Connection(H2Configuration(client_side=False))
            connection.initiate_connection()
            asked = False
            while not asked:
                asked = any(isinstance(event, StreamEnded) for event in connection.receive_data(channel.recv(65536)))
            self._say(connection, channel)
            with contextlib.suppress(BrokenPipeError):  # it heard enough
                channel.sendall(connection.data_to_send())
                channel.shutdown(socket.SHUT_WR)
                while channel.recv(65536):
                    pass


OK = [(":status", "200"), ("content-type", "application/grpc")]
FINE = [("grpc-status", "0")]


def _refuse(connection: H2Connection, _: socket.socket) -> None:
    connection.send_headers(1, [(":status", "404")], end_stream=True)


def _go_away(connection: H2Connection, _: socket.socket) -> None:
    connection.close_connection(ErrorCodes.NO_ERROR, last_stream_id=0)


def _reset(connection: H2Connection, _: socket.socket) -> None:
    connection.reset_stream(1, ErrorCodes.INTERNAL_ERROR)


def _speak_http1(connection: H2Connection, channel: socket.socket) -> None:
    connection.clear_outbound_data_buffer()
    channel.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _babble(connection: H2Connection, channel: socket.socket) -> None:
    connection.clear_outbound_data_buffer()
    channel.sendall(bytes(9))  # a frame of data that belongs to no stream


def _hang_up(connection: H2Connection, _: socket.socket) -> None:
    connection.clear_outbound_data_buffer()


def _half(connection: H2Connection, _: socket.socket) -> None:
    connection.send_headers(1, OK)
    connection.send_data(1, b"\0" + struct.pack(">I", 10) + b"half")
    connection.send_headers(1, FINE, end_stream=True)


def _nothing(connection: H2Connection, _: socket.socket) -> None:
    connection.send_headers(1, OK)
    connection.send_headers(1, FINE, end_stream=True)


def _compressed(connection: H2Connection, _: socket.socket) -> None:
    connection.send_headers(1, OK)
    connection.send_data(1, b"\1" + struct.pack(">I", 1) + b"x")
    connection.send_headers(1, FINE, end_stream=True)


def _boast(connection: H2Connection, _: socket.socket) -> None:
    connection.send_headers(1, OK)
    connection.send_data(1, b"\0\xff\xff\xff\xff")


def _drip(connection: H2Connection, channel: socket.socket) -> None:
    connection.send_headers(1, OK)
    deadline = time.monotonic() + patience()
    try:
        while time.monotonic() < deadline:
            connection.send_data(1, b"\0")
            channel.sendall(connection.data_to_send())
            time.sleep(0.01)
    except BrokenPipeError:
        connection.clear_outbound_data_buffer()


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (_refuse, "implausible"),
        (_go_away, "error"),
        (_reset, "error"),
        (_speak_http1, "error"),
        (_babble, "implausible"),
        (_hang_up, "error"),
        (_half, "implausible"),
        (_nothing, "implausible"),
        (_compressed, "implausible"),
        (_boast, "implausible"),
        (_drip, "timeout"),
    ],
)
def test_not_an_answer(path: Path, say: Callable[[H2Connection, socket.socket], None], reason: str) -> None:
    """Fault 49: a server that goes away, is another program, or never ends."""
    with Imposter(path, say):
        assert failure(lambda: call(str(path), LIST, 0.5 if say is _drip else patience())).reason == reason


def test_a_farewell_after_the_answer_does_not_harm(path: Path) -> None:
    def say(connection: H2Connection, _: socket.socket) -> None:
        connection.send_headers(1, OK)
        connection.send_data(1, b"\0" + struct.pack(">I", 2) + b"ok")
        connection.send_headers(1, FINE, end_stream=True)
        connection.close_connection()

    with Imposter(path, say):
        assert call(str(path), LIST, 10.0) == b"ok"


def test_a_path_too_long_for_a_socket() -> None:
    error = failure(lambda: call("/" + "x" * 200, LIST, 1.0))
    assert error.reason in {"error", "not_found"}
