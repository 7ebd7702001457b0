"""The process in which libhlml is called."""

from __future__ import annotations

import sys

from ..driver_child import run
from .gaudi import GaudiSource

if __name__ == "__main__":
    run(sys.argv[1:], lambda host: (GaudiSource(host), None))
