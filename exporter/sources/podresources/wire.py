"""The few messages of PodResources v1 that name GPUs, decoded from protobuf's wire format.

Field numbers: kubernetes staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. What is not listed
here (CPUs, memory, topology) is skipped, as is any field of a later version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class DeviceAssignment(NamedTuple):
    """One device of one container. ``driver`` is the driver of its DRA claim, "" for a device plugin.

    ``kind`` is the plugin's resource name (``nvidia.com/gpu``), or the DRA pool.
    """

    namespace: str
    pod: str
    container: str
    driver: str
    kind: str
    device: str


def decode(message: bytes) -> Iterator[DeviceAssignment]:
    """Every device in a ``ListPodResourcesResponse``. Raises ValueError if it is not such a message."""
    for pod in _parts(message, 1):
        name, namespace = _text(pod, 1), _text(pod, 2)
        for container in _parts(pod, 3):
            container_names = namespace, name, _text(container, 1)
            for devices in _parts(container, 2):
                kind = _text(devices, 1)
                for device in _parts(devices, 2):
                    yield DeviceAssignment(*container_names, "", kind, device.decode("utf-8", "replace"))
            for claim in _parts(container, 5):
                for resource in _parts(claim, 4):
                    yield DeviceAssignment(*container_names, _text(resource, 2), _text(resource, 3), _text(resource, 4))


def _text(message: bytes, number: int) -> str:
    """The last value of a string field: the one that counts (protobuf.dev/programming-guides/encoding)."""
    value = b""
    for value in _parts(message, number):  # noqa: B007 - the last one is what is wanted
        pass
    return value.decode("utf-8", "replace")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; a fixed-size number is its bytes. Raises ValueError if it is malformed."""
    for number, _, value in _fields(message):
        yield number, value


def _parts(message: bytes, wanted: int) -> Iterator[bytes]:
    """Values of a string or message field. Raises ValueError if the message is truncated or malformed."""
    for number, kind, value in _fields(message):
        if number == wanted and isinstance(value, bytes):
            if kind != _BYTES:
                raise ValueError(f"field {number} has wire type {kind}")
            yield value


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or at + length > end:
            raise ValueError("cut short")
        yield number, kind, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An integer of at most 64 bits, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer without end")
