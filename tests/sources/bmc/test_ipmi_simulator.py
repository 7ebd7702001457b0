"""Our commands at OpenIPMI's BMC simulator: it understands them, and says that it has no DCMI.

The driver's device file has no counterpart without a kernel module, so what is sent there goes over the network.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.records import Unavailable
from exporter.sources.bmc.dcmi import DcmiReader
from tests.support.needs import needs
from tests.support.patience import patience, wait_for

pytestmark = [needs("ipmi_sim"), needs("ipmitool")]

_NETWORK = """name "test"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  user 2 true "energy" "test" admin 10 none md2 md5 straight
"""
_BMC = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
_REFUSED = re.compile(r"rsp=0x([0-9a-f]{2})")


class Simulator:
    """Sends commands as the kernel's driver would: the reply is the completion code, then data."""

    def __init__(self, port: int) -> None:
        self._login = [
            "ipmitool",
            "-I",
            "lanplus",
            "-C",
            "3",
            "-H",
            "127.0.0.1",
            "-p",
            str(port),
            "-U",
            "energy",
            "-P",
            "test",
        ]

    def command(self, netfn: int, cmd: int, data: bytes) -> bytes:
        words = [f"0x{byte:02x}" for byte in (netfn, cmd, *data)]
        found = subprocess.run(
            [*self._login, "raw", *words], check=False, capture_output=True, text=True, timeout=patience(30)
        )
        if refused := _REFUSED.search(found.stderr):
            return bytes.fromhex(refused[1])
        assert found.returncode == 0, found.stderr
        return b"\0" + bytes.fromhex(found.stdout)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder: Path = tmp_path_factory.mktemp("ipmi")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "lan.conf").write_text(_NETWORK.format(port=port))
    (folder / "bmc.emu").write_text(_BMC)
    (folder / "state").mkdir()
    command = ["ipmi_sim", "-c", f"{folder}/lan.conf", "-f", f"{folder}/bmc.emu", "-s", f"{folder}/state", "-n"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        found = Simulator(port)

        def answers() -> bool:
            try:
                return bool(found.command(0x06, 0x01, b""))
            except (AssertionError, subprocess.TimeoutExpired):
                return False

        try:
            wait_for(answers)
            yield found
        finally:
            process.kill()


def test_it_is_a_bmc(simulator: Simulator) -> None:
    """Get Device ID: IPMI 2.0, as it was configured."""
    reply = simulator.command(0x06, 0x01, b"")
    assert (reply[0], reply[1], reply[5]) == (0, 0, 0x02)


def test_a_bmc_without_dcmi_says_so(simulator: Simulator) -> None:
    """openipmi 2.0.33: 0xC1, invalid command."""
    with pytest.raises(Unavailable) as caught:
        DcmiReader(simulator, lambda: 0.0, 10.0).read()
    assert (caught.value.reason, "(0xC1)" in caught.value.message) == ("not_found", True)
    assert "unset --bmc.ipmi" in caught.value.fix
