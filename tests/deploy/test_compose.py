"""The local stack, as far as it can be checked without containers: what it mounts, binds, pins and calls exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.sources.demo import servers
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each = pytest.mark.parametrize("name", SERVICES)


def test_profiles() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "exporter-demo": ["demo"],
        "model-servers-demo": ["demo"],
        "exporter": ["host"],
        "prometheus": None,
        "alertmanager": None,
        "grafana": None,
    }


SOCKETS = "/run/ai-energy-exporter"
"""Where programs of the machine report their regions."""


@each
def test_images_are_pinned(name: str) -> None:
    """By digest, or the file and the document say that their content is not verified."""
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z0-9/-]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", image), image
    if "build" in SERVICES[name]:
        assert image == f"ai-energy-exporter:{__version__}"
    elif "@" not in image:
        for path in (FOLDER / "compose.yaml", REPOSITORY / "docs" / "install.md"):
            text = " ".join(path.read_text(encoding="utf-8").replace("#", "").split())
            assert "their content is not verified" in text, path


@each
def test_ports_are_bound_to_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


def test_no_port_is_taken_twice_in_a_profile() -> None:
    for profile in ("demo", "host"):
        ports = [
            port
            for service in SERVICES.values()
            if profile in service.get("profiles", [profile])
            for port in service.get("ports", [])
        ]
        assert len(ports) == len(set(ports)) == 4


@each
def test_everybody_tells_how_he_is_and_may_do_nothing_more_than_needed(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["restart"] == "unless-stopped"


@each
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            assert (volume["source"], volume["read_only"]) == ("/sys", True)
            continue
        source, _, rest = re.sub(r"\$\{\w+:-(.+?)\}", r"\1", volume).partition(":")
        if source.startswith("."):
            assert rest.endswith(":ro")
            assert (FOLDER / source).exists(), source
        elif source.startswith("/"):
            assert (name, source, rest) == ("exporter", SOCKETS, SOCKETS)
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", ["exporter", "exporter-demo"])
def test_the_exporter_takes_its_flags(name: str) -> None:
    given = parse(SERVICES[name]["command"])
    settings = load(given.flags, {})
    assert settings.web_listen_address
    assert settings.demo == (name == "exporter-demo")


def test_names_on_the_network_are_those_that_prometheus_scrapes() -> None:
    wanted = {
        "exporters": {"exporter:9400"},
        "model-servers": {"model-servers:9500"},
        "alertmanagers": {"alertmanager:9093"},
    }
    for name, targets in wanted.items():
        groups = yaml.safe_load((FOLDER / "targets" / f"{name}.yml").read_text(encoding="utf-8"))
        assert {target for group in groups for target in group["targets"]} == targets
    assert {target.partition(":")[0] for targets in wanted.values() for target in targets} <= _aliases()


def _aliases() -> set[str]:
    found = set(SERVICES)
    for service in SERVICES.values():
        found |= set(service.get("networks", {}).get("default", {}).get("aliases", []))
    return found


def test_prometheus_reads_targets_where_they_are_mounted() -> None:
    config = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    files = {
        file
        for job in [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]
        for discovery in job.get("file_sd_configs", [])
        for file in discovery["files"]
    }
    assert files == {f"targets/{path.name}" for path in (FOLDER / "targets").glob("*.yml")}


@pytest.mark.parametrize("name", ["exporter", "exporter-demo", "model-servers-demo"])
def test_the_image_is_that_of_the_project(name: str) -> None:
    assert SERVICES[name]["build"] == {"context": "../.."}
    assert (FOLDER / "../.." / "Dockerfile").exists()


@pytest.mark.parametrize("name", ["exporter", "exporter-demo"])
def test_the_health_check_is_that_of_the_image_and_knows_the_address(name: str) -> None:
    """It reads the environment that the image has, and no flags."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text, flags=re.MULTILINE)
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *yaml.safe_load(check)]
    assert not any("address" in word for word in SERVICES[name]["command"])
    (listen,) = re.findall(r"AI_ENERGY_WEB_LISTEN_ADDRESS=(\S+)", text)
    assert SERVICES[name]["ports"] == [f"127.0.0.1:9400{listen}"]


def test_the_model_servers_of_the_demonstration_listen_where_they_are_asked() -> None:
    service = SERVICES["model-servers-demo"]
    assert service["entrypoint"][1:] == ["-m", servers.__name__]
    assert service["command"] == ["0.0.0.0:" + servers.DEFAULT_ADDRESS.rpartition(":")[2]]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    service = SERVICES["grafana"]
    provisioning = REPOSITORY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "${PROMETHEUS_URL}"
    assert service["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    scrape = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "energy.yaml").read_text())["providers"]
    path = provider["options"]["path"]
    assert f"../../grafana/dashboards:{path}:ro" in service["volumes"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (REPOSITORY / "grafana" / "dashboards" / Path(home).name).exists()
    assert Path(home).parent == Path(path)
