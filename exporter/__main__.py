"""Run the exporter with ``python -m exporter``."""

import sys

from .cli import main

sys.exit(main())
