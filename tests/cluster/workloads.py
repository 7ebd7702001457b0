"""Objects that the check applies: pods of the worker's image, and what makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .machine import NODE
from .programs import WORKER

NAMESPACE = "team-nlp"

Object = dict[str, Any]


def container(name: str = "main", duty: float = 0.05, *words: str, gpus: Mapping[str, int] | None = None) -> Object:
    """A container of the worker; ``gpus``: resource and number."""
    limits = {resource: str(number) for resource, number in (gpus or {}).items()}
    return {
        "name": name,
        "image": WORKER,
        "args": [f"-duty={duty:g}", *words],
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": limits},
    }


def template(*containers: Object, labels: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A pod's template."""
    # An exporter that reads names must not be told them by a token of the pod's own.
    fixed = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": dict(labels or {})}, "spec": {**fixed, "containers": list(containers), **spec}}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    """A pod that nothing owns."""
    made = template(*containers, labels={"app": name}, **spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _named(name, made), "spec": made["spec"]}


def deployment(name: str, *containers: Object, kind: str = "Deployment", replicas: int = 1, **spec: Any) -> Object:
    """A Deployment, or a StatefulSet."""
    labels = {"app": name}
    inner = {"replicas": replicas, "selector": {"matchLabels": labels}}
    inner["template"] = template(*containers, labels=labels, **spec)
    if kind == "StatefulSet":
        inner["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": _named(name), "spec": inner}


def job(name: str, *containers: Object, completions: int = 1, parallelism: int = 1, **spec: Any) -> Object:
    """A Job."""
    made = template(*containers, labels={"app": name}, restartPolicy="Never", **spec)
    inner = {"completions": completions, "parallelism": parallelism, "backoffLimit": 4, "template": made}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _named(name), "spec": inner}


def cron_job(name: str, *containers: Object, schedule: str = "* * * * *") -> Object:
    """A CronJob."""
    inner = {"schedule": schedule, "jobTemplate": {"spec": job(name, *containers)["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _named(name), "spec": inner}


def namespace(name: str) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def in_namespace(name: str, made: Object) -> Object:
    """The same object in another namespace, without labels: they may not be as long as a name."""
    metadata = {"name": made["metadata"]["name"], "namespace": name}
    return {**made, "metadata": metadata}


def static_pod(name: str, *containers: Object) -> Object:
    """A pod that the kubelet finds in a folder: without requests that the scheduler would see."""
    return pod(name, *containers)


def running(pods: Sequence[Object], kinds: Sequence[str] = ("containerStatuses",)) -> list[tuple[Object, Object]]:
    """Pods and those of their containers that run, of these kinds."""
    return [
        (each, status)
        for each in pods
        for kind in kinds
        for status in each["status"].get(kind, ())
        if "running" in status["state"] and each["spec"].get("nodeName") == NODE
    ]


def _named(name: str, made: Object | None = None) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": dict(made["metadata"]["labels"]) if made else {}}
