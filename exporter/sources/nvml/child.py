"""The process in which NVIDIA's driver is called."""

from __future__ import annotations

import sys

from ..driver_child import run
from .source import NvmlSource

if __name__ == "__main__":
    run(sys.argv[1:], NvmlSource)
