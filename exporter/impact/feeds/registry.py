"""The registry of feeds: a service is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from . import electricity_maps, energi_data_service, uk_carbon_intensity, watttime
from .protocol import Feed, FeedKind, FeedOptions, Series

FEEDS: Mapping[str, FeedKind] = {
    kind.name: kind
    for kind in (electricity_maps.KIND, watttime.KIND, uk_carbon_intensity.KIND, energi_data_service.KIND)
}


def make(options: FeedOptions) -> Feed[Series]:
    """The feed of a service; it connects to nothing before it is read."""
    return FEEDS[options.name].make(options)
