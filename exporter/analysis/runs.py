"""Training runs: what each used, from when to when, and for how many GPU-hours; as the rules ``run:…`` define them.

A run is one owner of pods (a Job, a PyTorchJob) and a model that the exporter reports as training; without an owner the
pod, outside Kubernetes the container. All containers of its pods that work for the model belong to it.
"""

from __future__ import annotations

from collections import defaultdict

from . import amounts
from .growth import Labels, Source
from .lines import Amounts, Line, Period
from .window import Window

NO_RUN = "(no training run)"
LABELS = ("cluster", "namespace", "run", "model_name")

_INFO = ("owner_name", "model_name")
_SITE = ("cluster", "instance", "namespace", "model_name")


def read(source: Source, window: Window) -> list[Line]:
    """A line for each run, and one for all other containers. Raises `QueryError`."""
    used: defaultdict[Labels, Amounts] = defaultdict(Amounts)
    periods: dict[Labels, Period] = {}
    rest = Amounts()
    for part in source.parts(window):
        described, presence = source.described(_INFO, part), source.presence(part)
        training = source.of("energy_model_joules_total", _SITE, part, 'phase="training"')
        for place, used_here in amounts.of_containers(source, part).items():
            cluster, instance, namespace, pod, container = place
            owner, model = described.get(place, ("", ""))
            if (cluster, instance, namespace, model) not in training or not model:
                rest = rest.plus(used_here)
                continue
            key = (cluster, namespace, (owner or pod) if pod else container, model)
            used[key] = used[key].plus(used_here)
            if place in presence:
                periods[key] = presence[place].joined(periods.get(key))
    found = [Line(key, each, period=periods.get(key)) for key, each in used.items()]
    return [*found, Line(("", "", NO_RUN, ""), rest)] if rest.joules else found
