"""Keeps one NVIDIA card busy with matrix products; needs the driver and nothing else (CUDA driver API, PTX).

``python -m benchmarks.gpu_load`` prints ``ready`` once a product was right, then answers each line ``SECONDS DUTY
PERIOD`` with the products it made and the seconds that took: busy for DUTY of every PERIOD seconds. It ends with its
input. CUDA_VISIBLE_DEVICES chooses the card.
"""

from __future__ import annotations

import ctypes
import sys
import time
from ctypes import c_float, c_int, c_uint, c_uint64, c_void_p
from typing import Any

LIBRARY = "libcuda.so.1"
SIZE = 1024
"""Rows and columns of the matrices: 2 GFLOP and 4 MiB each, a millisecond on a data-centre card."""

TILE = 16
AHEAD = 4
"""Products that are queued at a time, so that the card does not wait for us between two of them."""

ONE = 0x3F800000

TARGETS = (("6.0", "sm_50"), ("6.0", "sm_70"), ("7.0", "sm_80"), ("7.8", "sm_90"), ("8.7", "sm_100"))
"""Versions of PTX and the oldest architecture each names; drivers translate what is older than the card, newer ones
perhaps not the oldest."""

PTX = """
.version {version}
.target {target}
.address_size 64

.visible .entry product(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{{
    .reg .pred %more;
    .reg .b32 %r<12>;
    .reg .f32 %f<3>;
    .reg .b64 %d<10>;

    ld.param.u64 %d0, [a];
    ld.param.u64 %d1, [b];
    ld.param.u64 %d2, [c];
    ld.param.u32 %r0, [n];
    cvta.to.global.u64 %d0, %d0;
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;

    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;      // column
    mov.u32 %r5, %ctaid.y;
    mov.u32 %r6, %ntid.y;
    mov.u32 %r7, %tid.y;
    mad.lo.u32 %r8, %r5, %r6, %r7;      // row

    mul.lo.u32 %r9, %r8, %r0;
    mul.wide.u32 %d3, %r9, 4;
    mul.wide.u32 %d4, %r4, 4;
    mul.wide.u32 %d5, %r0, 4;
    add.u64 %d6, %d0, %d3;              // a[row][0]
    add.u64 %d7, %d1, %d4;              // b[0][column]
    add.u64 %d8, %d2, %d3;
    add.u64 %d8, %d8, %d4;              // c[row][column]

    mov.f32 %f0, 0f00000000;
    mov.u32 %r10, 0;
next:
    ld.global.f32 %f1, [%d6];
    ld.global.f32 %f2, [%d7];
    fma.rn.f32 %f0, %f1, %f2, %f0;
    add.u64 %d6, %d6, 4;
    add.u64 %d7, %d7, %d5;
    add.u32 %r10, %r10, 1;
    setp.lt.u32 %more, %r10, %r0;
    @%more bra next;

    st.global.f32 [%d8], %f0;
    ret;
}}
"""
"""One thread for each element of c = a × b."""


class CudaError(Exception):
    """A call that the driver refused, or no driver at all."""


class Products:
    """Matrices on the first card that CUDA shows. Raises `CudaError`."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from None
        device, context = c_int(), c_void_p()
        self._call("cuInit", c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._function = self._load()
        self._matrices = [c_uint64() for _ in range(3)]
        for matrix in self._matrices:
            self._call("cuMemAlloc_v2", ctypes.byref(matrix), ctypes.c_size_t(4 * SIZE * SIZE))
            self._call("cuMemsetD32_v2", matrix, c_uint(ONE), ctypes.c_size_t(SIZE * SIZE))
        size = c_uint(SIZE)
        self._values: list[Any] = [*self._matrices, size]
        self._arguments = (c_void_p * 4)(*[ctypes.addressof(value) for value in self._values])
        self._check()

    def make(self, count: int, rows: int = SIZE // TILE) -> None:
        """Make so many products, or so many ``rows`` of blocks of each, and wait for them."""
        blocks, threads = c_uint(SIZE // TILE), c_uint(TILE)
        for _ in range(count):
            self._call(
                "cuLaunchKernel",
                self._function,
                *(blocks, c_uint(rows), c_uint(1)),
                *(threads, threads, c_uint(1)),
                c_uint(0),
                c_void_p(),
                self._arguments,
                c_void_p(),
            )
        self._call("cuCtxSynchronize")

    def _load(self) -> c_void_p:
        module, function = c_void_p(), c_void_p()
        refused = []
        for version, target in TARGETS:
            text = PTX.format(version=version, target=target).encode() + b"\0"
            try:
                self._call("cuModuleLoadData", ctypes.byref(module), text)
                break
            except CudaError as error:
                refused.append(f"{target}: {error}")
        else:
            raise CudaError("; ".join(refused))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, b"product")
        return function

    def _check(self) -> None:
        """A product of two matrices of ones is one of SIZE."""
        self.make(1)
        corner = (c_float * 2)()
        self._call("cuMemcpyDtoH_v2", corner, c_uint64(self._matrices[2].value), ctypes.c_size_t(8))
        if list(corner) != [SIZE, SIZE]:
            raise CudaError(f"the card multiplies wrongly: {list(corner)} instead of {SIZE}")

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise CudaError(f"{name} gave CUresult {code}")


def work(products: Products, seconds: float, duty: float, period: float) -> tuple[int, float]:
    """Be busy for ``duty`` of every ``period`` seconds; returns how many products that were, and how long it took."""
    made, began = 0, time.perf_counter()
    now = began
    while (now := time.perf_counter()) < began + seconds:
        phase = (now - began) % period
        if phase < duty * period:
            products.make(AHEAD)
            made += AHEAD
        else:
            time.sleep(min(period - phase, began + seconds - now))
    return made, now - began


def main() -> int:
    """Obey until the input ends. Returns the exit status: 1 if there is no card to work on."""
    try:
        products = Products()
        print("ready", flush=True)
        for line in sys.stdin:
            made, took = work(products, *map(float, line.split()))
            print(f"{made} {took:.6f}", flush=True)
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
