"""The metrics service of a TPU's runtime: Google's gRPC server and protobuf on a port of this machine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.fake_kubelet import grpc

METHOD = "/tpu.monitoring.runtime.RuntimeMetricService/GetRuntimeMetric"
TOTAL = "tpu.runtime.hbm.memory.total.bytes"
USED = "tpu.runtime.hbm.memory.usage.bytes"
DUTY = "tpu.runtime.tensorcore.dutycycle.percent"


class Messages:
    """The messages of tpu_metrics.proto, compiled by protoc."""

    def __init__(self, folder: Path) -> None:
        source = Path(__file__).parent / "tpu_metrics.proto"
        compiled = folder / "tpu_metrics.bin"
        arguments = ["protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled}", str(source)]
        assert importlib.import_module("grpc_tools.protoc").main(arguments) == 0
        self._pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
        self._factory = importlib.import_module("google.protobuf.message_factory")
        descriptors = importlib.import_module("google.protobuf.descriptor_pb2")
        for file in descriptors.FileDescriptorSet.FromString(compiled.read_bytes()).file:
            self._pool.Add(file)

    def make(self, name: str) -> Any:
        """An empty message."""
        full = f"tpu.monitoring.runtime.{name}"
        return self._factory.GetMessageClass(self._pool.FindMessageTypeByName(full))()

    def response(self, name: str, values: Mapping[int, float]) -> bytes:
        """A ``MetricResponse``: bytes as integers, percents as doubles, as libtpu has them."""
        answer = self.make("MetricResponse")
        answer.metric.name = name
        for device, value in values.items():
            metric = answer.metric.metrics.add()
            metric.attribute.key = "device-id"
            metric.attribute.value.int_attr = device
            metric.timestamp.seconds = 1767225600
            if name == DUTY:
                metric.gauge.as_double = value
            else:
                metric.gauge.as_int = int(value)
        encoded: bytes = answer.SerializeToString()
        return encoded


class FakeTpu:
    """Serves ``values`` (metric → device → value) from `start` to `stop`."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self.values: dict[str, dict[int, float]] = {}
        self.address = ""
        self._server: Any = None

    def start(self) -> None:
        """Listen on any free port."""
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self])
        self.address = f"localhost:{self._server.add_insecure_port('localhost:0')}"
        self._server.start()

    def stop(self) -> None:
        """Close all connections, as when the program ends."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def service(self, call: Any) -> Any:
        """Google's server looks up the handler of a method."""
        return grpc.unary_unary_rpc_method_handler(self._get) if call.method == METHOD else None

    def _get(self, request: bytes, context: Any) -> bytes:
        asked = self.messages.make("MetricRequest")
        asked.ParseFromString(request)
        if asked.metric_name not in self.values:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no metric {asked.metric_name}")
        return self.messages.response(asked.metric_name, self.values[asked.metric_name])
