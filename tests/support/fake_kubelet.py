"""A kubelet's PodResources API: Google's gRPC server and protobuf on a unix socket, with pods that a test writes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

grpc: Any = importlib.import_module("grpc")
"""Without types of its own, like everything of Google's here."""

LIST = "/v1.PodResourcesLister/List"


class Claim(NamedTuple):
    """A device that a container has through a ResourceClaim."""

    driver: str
    device: str
    pool: str = "node-1"


class Container(NamedTuple):
    """A container of a pod: ``devices`` are ids by resource name."""

    name: str
    devices: dict[str, list[str]] = {}  # noqa: RUF012 - nobody changes it
    claims: tuple[Claim, ...] = ()


class Pod(NamedTuple):
    """A pod that the kubelet runs."""

    namespace: str
    name: str
    containers: tuple[Container, ...]


def pod(namespace: str, name: str, container: str, *ids: str, resource: str = "nvidia.com/gpu") -> Pod:
    """A pod of one container that was given these devices."""
    return Pod(namespace, name, (Container(container, {resource: list(ids)} if ids else {}),))


def claiming(namespace: str, name: str, container: str, *claims: Claim) -> Pod:
    """A pod of one container that was given devices through claims."""
    return Pod(namespace, name, (Container(container, claims=claims),))


class Messages:
    """The messages of podresources.proto, compiled by protoc."""

    def __init__(self, folder: Path) -> None:
        source = Path(__file__).parent / "podresources.proto"
        compiled = folder / "podresources.bin"
        arguments = ["protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled}", str(source)]
        assert importlib.import_module("grpc_tools.protoc").main(arguments) == 0
        pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
        self._factory = importlib.import_module("google.protobuf.message_factory")
        for file in (
            importlib.import_module("google.protobuf.descriptor_pb2")
            .FileDescriptorSet.FromString(compiled.read_bytes())
            .file
        ):
            pool.Add(file)
        self._pool = pool

    def make(self, name: str) -> Any:
        """An empty message."""
        return self._factory.GetMessageClass(self._pool.FindMessageTypeByName(f"v1.{name}"))()

    def listing(self, pods: Iterable[Pod]) -> bytes:
        """A ``ListPodResourcesResponse`` with all that a kubelet fills in besides: CPUs, memory, NUMA, CDI names."""
        answer = self.make("ListPodResourcesResponse")
        for each in pods:
            resources = answer.pod_resources.add(name=each.name, namespace=each.namespace)
            for container in each.containers:
                entry = resources.containers.add(name=container.name, cpu_ids=[0, 1, 63])
                entry.memory.add(memory_type="hugepages-1Gi", size=1 << 40).topology.nodes.add(ID=1)
                for resource, ids in container.devices.items():
                    entry.devices.add(resource_name=resource, device_ids=ids).topology.nodes.add(ID=1)
                for number, claim in enumerate(container.claims):
                    given = entry.dynamic_resources.add(claim_name=f"claim-{number}", claim_namespace=each.namespace)
                    device = given.claim_resources.add(
                        driver_name=claim.driver, pool_name=claim.pool, device_name=claim.device
                    )
                    device.cdi_devices.add(name=f"k8s.{claim.driver}/claim=0000-{claim.device}")
        encoded: bytes = answer.SerializeToString()
        return encoded


class Kubelet:
    """Listens on ``path`` between `start` and `stop`.

    ``answer`` is given gRPC's context of the call and may be replaced, to fail in any way a server can.
    """

    def __init__(self, messages: Messages, path: Path) -> None:
        self.messages = messages
        self.path = path
        self.pods: list[Pod] = []
        self.calls = 0
        self.answer: Callable[[Any], bytes] = lambda _: self.messages.listing(self.pods)
        self._server: Any = None

    def start(self) -> None:
        """Listen; the socket is a new file each time, as after a restart of the kubelet."""
        self._server = grpc.server(
            ThreadPoolExecutor(2), handlers=[self], options=[("grpc.max_send_message_length", 64 << 20)]
        )
        assert self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def stop(self) -> None:
        """Close all connections and remove the socket."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None
        self.path.unlink(missing_ok=True)

    def service(self, call: Any) -> Any:
        """Google's server looks up the handler of a method."""
        return grpc.unary_unary_rpc_method_handler(self._list) if call.method == LIST else None

    def _list(self, request: bytes, context: Any) -> bytes:
        self.messages.make("ListPodResourcesRequest").ParseFromString(request)
        self.calls += 1
        return self.answer(context)
