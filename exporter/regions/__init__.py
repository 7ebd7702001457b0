"""What a program imports, or copies, to have the energy of its regions measured."""

from .client import Client, Region, region, step

__all__ = ["Client", "Region", "region", "step"]
