"""The doctor on a BMC: reachable, right, unit, age, scope, and the fix where it is not."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.commands.doctor import report
from exporter.config.loading import load
from exporter.host import Host
from exporter.sources.bmc.options import BmcOptions
from exporter.sources.bmc.source import BmcSource
from tests.sources.bmc import boards
from tests.support.mock_bmc import PASSWORD, MockBmc, login_file


def written(options: BmcOptions) -> str:
    out = io.StringIO()
    settings = load({"web.listen-address": ["127.0.0.1:0"]}, {})
    report(settings, [BmcSource(options, time.monotonic)], Host(clock=time.monotonic), out, pause_seconds=0.0)
    page = out.getvalue()
    assert PASSWORD not in page
    assert "token-" not in page
    return page


@pytest.fixture
def login(tmp_path: Path) -> Path:
    return login_file(tmp_path)


def test_a_bmc_that_works(login: Path) -> None:
    with MockBmc(boards.supplies_only()) as bmc:
        page = written(BmcOptions(bmc.url, str(login), fingerprint=bmc.fingerprint))
    first = next(line for line in page.splitlines() if "bmc" in line)
    assert first.startswith("  bmc          works   bmc-supplies (platform): 1611.346 kWh, 310.0 W now, every 10 s, ")
    assert first.endswith(" s old, in steps of 3.6 kJ, at the input of the power supplies")
    second = next(line for line in page.splitlines() if "bmc-supply-A" in line)
    assert "bmc-supply-A (platform): 150.0 W, every 10 s, " in second
    assert second.endswith(" s old, part of bmc-supplies")
    assert "Measured here: platform." in page


def test_a_bmc_that_is_not_configured_says_what_it_would_add() -> None:
    page = written(BmcOptions())
    assert "bmc          no      neither --bmc.redfish.url nor --bmc.ipmi is set (not_found)" in page
    assert "fix: on a server, either adds what fans, disks and power supplies use" in page


def test_what_is_wrong_has_its_fix(login: Path) -> None:
    with MockBmc(boards.hpe()) as bmc:
        right = BmcOptions(bmc.url, str(login), fingerprint=bmc.fingerprint)
        assert "every 10 s" in written(right)
        page = written(replace(right, fingerprint="0" * 64))
        assert f"its certificate is not the pinned one: its SHA-256 is {bmc.fingerprint} (permission)" in page
        page = written(replace(right, fingerprint=""))
        assert "its certificate is not trusted" in page
        assert "fix: name its CA in --bmc.redfish.ca" in page
        login.chmod(0o644)
        page = written(right)
        assert f"fix: chmod o= {login}" in page
        login.chmod(0o600)
        bmc.refuses = True
        assert "it refuses the login (permission)" in written(right)
    assert "(not_found)" in written(right)
