"""``python -m benchmarks.clients``: what each Kubernetes client costs in memory for the two calls that we need.

Needs PyPI: each is installed into a venv of its own. There it lists 110 pods over TLS, and reads the first event of
a watch.
"""

from __future__ import annotations

import itertools
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import trustme

from tests.support.fake_kubernetes_api import FakeApiServer, make_pod

from .table import show

PODS = 110
REPOSITORY = Path(__file__).resolve().parent.parent

_HTTP = """
LIST = URL + "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1"
WATCH = LIST + "&watch=1&resourceVersion="
"""

CLIENTS = {
    "this exporter": (
        "",
        "from exporter.clients import http_client\nfrom exporter.workloads.metadata import kubernetes_api, provider",
        """
import time
from exporter.host import Host
from exporter.records import Workload
feed = kubernetes_api.ApiServer(http_client.HttpClient(URL, {}, ca_file=CA), "node-1")
names = provider.BackgroundProvider(feed, Host())
found = set()
while len(found) < 2 * PODS:
    found.update(names.changed())
    time.sleep(0.01)
while not names.changed():
    time.sleep(0.01)
""",
    ),
    "standard library": (
        "",
        "import http.client, json, ssl",
        """
host, port = URL.split("//")[1].split(":")
def get(path):
    connection = http.client.HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=CA))
    connection.request("GET", path.removeprefix(URL))
    return connection.getresponse()
body = json.loads(get(LIST).read())
assert len(body["items"]) == PODS
version = body["metadata"]["resourceVersion"]
del body
stream = get(WATCH + version)
json.loads(stream.readline())
""",
    ),
    "urllib3": (
        "urllib3",
        "import json, urllib3",
        """
pool = urllib3.PoolManager(ca_certs=CA)
body = json.loads(pool.request("GET", LIST).data)
assert len(body["items"]) == PODS
version = body["metadata"]["resourceVersion"]
del body
stream = pool.request("GET", WATCH + version, preload_content=False)
json.loads(next(stream.read_chunked()))
""",
    ),
    "requests": (
        "requests",
        "import requests, json",
        """
session = requests.Session()
session.trust_env = False
session.verify = CA
body = session.get(LIST).json()
assert len(body["items"]) == PODS
version = body["metadata"]["resourceVersion"]
del body
stream = session.get(WATCH + version, stream=True).iter_lines()
json.loads(next(stream))
""",
    ),
    "httpx": (
        "httpx",
        "import httpx, json, ssl",
        """
client = httpx.Client(verify=ssl.create_default_context(cafile=CA))
body = client.get(LIST).json()
assert len(body["items"]) == PODS
version = body["metadata"]["resourceVersion"]
del body
stream = client.send(client.build_request("GET", WATCH + version), stream=True).iter_lines()
json.loads(next(stream))
""",
    ),
    "lightkube": (
        "lightkube",
        "import lightkube\nfrom lightkube.resources.core_v1 import Pod",
        """
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, Context, User
config = KubeConfig(clusters={"c": Cluster(server=URL, certificate_auth=CA)}, users={"u": User()},
                    contexts={"x": Context(cluster="c", user="u")}, current_context="x")
client = lightkube.Client(config=config)
found = client.list(Pod, namespace="*", fields={"spec.nodeName": "node-1"})
assert len(list(found)) == PODS
stream = client.watch(Pod, namespace="*", fields={"spec.nodeName": "node-1"}, resource_version=found.resourceVersion)
next(stream)
""",
    ),
    "kr8s": (
        "kr8s",
        "import kr8s",
        """
import os
os.environ.pop("KUBERNETES_SERVICE_HOST", None)
api = kr8s.api(kubeconfig={"apiVersion": "v1", "kind": "Config", "current-context": "x",
    "clusters": [{"name": "c", "cluster": {"server": URL, "certificate-authority": CA}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]})
found = list(api.get("pods", namespace=kr8s.ALL, field_selector="spec.nodeName=node-1"))
assert len(found) == PODS
del found
stream = api.watch("pods", namespace=kr8s.ALL, field_selector="spec.nodeName=node-1")
next(iter(stream))
""",
    ),
    "kubernetes_asyncio": (
        "kubernetes_asyncio",
        "import asyncio\nfrom kubernetes_asyncio import client, watch",
        """
async def main():
    config = client.Configuration(host=URL)
    config.ssl_ca_cert = CA
    api = client.CoreV1Api(client.ApiClient(config))
    found = await api.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-1")
    assert len(found.items) == PODS
    version = found.metadata.resource_version
    del found
    stream = watch.Watch().stream(api.list_pod_for_all_namespaces, field_selector="spec.nodeName=node-1",
                                  resource_version=version)
    async for _ in stream:
        break
    report()
asyncio.run(main())
""",
    ),
    "kubernetes": (
        "kubernetes",
        "from kubernetes import client, watch",
        """
config = client.Configuration(host=URL)
config.ssl_ca_cert = CA
api = client.CoreV1Api(client.ApiClient(config))
found = api.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-1")
assert len(found.items) == PODS
version = found.metadata.resource_version
del found
stream = watch.Watch().stream(api.list_pod_for_all_namespaces, field_selector="spec.nodeName=node-1",
                              resource_version=version)
next(iter(stream))
""",
    ),
}

# The exporter has these loaded already; what comes on top is what a client costs.
_PROBE = f"""
import asyncio, json, logging, ssl, sys, threading, urllib.parse
URL, CA, PODS = sys.argv[1], sys.argv[2], {PODS}
def resident():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
before = resident()
"""
_REPORT = """
def report():
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    print(imported - before, resident() - before, peak - before, flush=True)
    sys.stdout.flush()
    import os
    os._exit(0)
"""


def main() -> None:
    """Install, measure, print the table."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    rows = []
    with tempfile.TemporaryDirectory() as folder, FakeApiServer(context) as server:
        ca = Path(folder, "ca.crt")
        authority.cert_pem.write_to_path(str(ca))
        for number in range(PODS):
            server.add(make_pod(number + 1))
        threading.Thread(target=_stir, args=(server,), daemon=True).start()
        for name, (package, load, calls) in CLIENTS.items():
            rows.append((name, *_measure(Path(folder, name.replace(" ", "-")), package, load, calls, server.url, ca)))
    show(
        f"Kubernetes clients: list {PODS} pods over TLS, then watch; MiB of resident memory on top of Python with ssl",
        ("client", "version", "packages", "on disk", "imported", "after both calls", "at its peak"),
        rows,
    )


def _measure(venv: Path, package: str, load: str, calls: str, url: str, ca: Path) -> tuple[str, ...]:
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin/python")
    empty = _size(venv)
    version, packages = "–", "0"
    if package:
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", package], check=True, capture_output=True)
        listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
        packages = str(len(listed))
        version = next(line.partition("==")[2] for line in listed if line.startswith(f"{package}=="))
    code = f"{_PROBE}{load}\nimported = resident()\n{_REPORT}{_HTTP}{calls}\nreport()\n"
    runs = []
    for _ in range(3):
        command = [python, "-c", code, url, str(ca)]
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True, env={}, timeout=60
        )
        runs.append([int(kib) / 1024 for kib in done.stdout.split()])
    imported, after, peak = (sorted(column)[1] for column in zip(*runs, strict=True))
    return version, packages, f"{_size(venv) - empty:.0f}", f"{imported:.1f}", f"{after:.1f}", f"{peak:.1f}"


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _stir(server: FakeApiServer) -> None:
    for number in itertools.count():
        server.add(make_pod(1, namespace=f"team-{number}"))
        time.sleep(0.2)


if __name__ == "__main__":
    main()
