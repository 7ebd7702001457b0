"""At which address a port of a process is reached: within the exporter's network, in a pod's, and not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.network.addresses import HeldByAnother, reachable_address
from exporter.records import Unavailable

PID = 77
PORT = 8000
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
FIB = """Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- {0}
        /32 host LOCAL
     |-- {0}
        /32 link BROADCAST
"""


def listens(address: bytes, port: int, state: str, inode: int, user: int) -> str:
    """A line of /proc/net/tcp: each word of four bytes in the machine's order, here little-endian."""
    words = "".join(address[start : start + 4][::-1].hex().upper() for start in range(0, len(address), 4))
    socket_of = f"{state} 00000000:00000000 00:00000000 00000000  {user:4}        0 {inode} 1 0000 100 0 0 10 0"
    return f"   0: {words}:{port:04X} 00000000:0000 {socket_of}\n"


def ipv4(text: str, port: int = PORT, state: str = "0A", *, inode: int = 4, user: int = 0) -> str:
    return listens(socket.inet_aton(text), port, state, inode, user)


def ipv6(text: str, port: int = PORT, *, inode: int = 6, user: int = 0) -> str:
    return listens(socket.inet_pton(socket.AF_INET6, text), port, "0A", inode, user)


class Network:
    """A written /proc with the exporter and one process."""

    def __init__(self, folder: Path, *, pod: bool, tcp: str = "", tcp6: str = "", inet6: str = "") -> None:
        self.host = Host(procfs=str(folder))
        for process, address in (("self", "10.0.0.5"), (str(PID), "10.244.1.9" if pod else "10.0.0.5")):
            (folder / process / "net").mkdir(parents=True)
            (folder / process / "net/fib_trie").write_text(FIB.format(address))
        (folder / str(PID) / "net/tcp").write_text(HEAD + tcp)
        (folder / str(PID) / "net/tcp6").write_text(HEAD + tcp6)
        (folder / str(PID) / "net/if_inet6").write_text(inet6)

    def hold(self, *inodes: int, pid: int = PID, children: str = "") -> Network:
        """Let a process hold sockets, and have children."""
        files, task = (Path(self.host.procfs) / str(pid) / name for name in ("fd", f"task/{pid}"))
        files.mkdir(parents=True)
        task.mkdir(parents=True)
        (task / "children").write_text(children)
        (files / "3").symlink_to("/dev/null")
        for inode in inodes:
            (files / str(10 + inode)).symlink_to(f"socket:[{inode}]")
        return self

    def address(self) -> str:
        return reachable_address(self.host, PID, PORT)


@pytest.mark.parametrize(
    ("tcp", "tcp6", "expected"),
    [
        (ipv4("0.0.0.0"), "", "127.0.0.1"),
        (ipv4("127.0.0.1"), "", "127.0.0.1"),
        (ipv4("10.0.0.5"), "", "10.0.0.5"),
        ("", ipv6("::"), "127.0.0.1"),
        ("", ipv6("::ffff:127.0.0.1"), "127.0.0.1"),
        ("", ipv6("::1"), "::1"),
        (ipv4("127.0.0.1"), ipv6("::1"), "127.0.0.1"),
        (ipv4("0.0.0.0"), ipv6("::"), "127.0.0.1"),
    ],
)
def test_in_the_exporters_network(tmp_path: Path, tcp: str, tcp6: str, expected: str) -> None:
    assert Network(tmp_path, pod=False, tcp=tcp, tcp6=tcp6).address() == expected


@pytest.mark.parametrize(
    ("tcp", "tcp6", "expected"),
    [
        (ipv4("0.0.0.0"), "", "10.244.1.9"),
        ("", ipv6("::"), "10.244.1.9"),
        ("", ipv6("fd00::9"), "fd00::9"),
    ],
)
def test_in_a_pod(tmp_path: Path, tcp: str, tcp6: str, expected: str) -> None:
    assert Network(tmp_path, pod=True, tcp=tcp, tcp6=tcp6).address() == expected


def test_a_pod_that_has_only_ipv6(tmp_path: Path) -> None:
    line = "fd000000000000000000000000000009 02 40 00 80     eth0\nfe800000000000000000000000000001 02 40 20 80  eth0\n"
    network = Network(tmp_path, pod=True, tcp6=ipv6("::"), inet6=line)
    (tmp_path / str(PID) / "net/fib_trie").write_text("")
    assert network.address() == "fd00::9"


@pytest.mark.parametrize(
    ("pod", "tcp", "said"),
    [
        (True, ipv4("127.0.0.1"), "loopback"),
        (False, "", "nothing listens"),
        (False, ipv4("0.0.0.0", PORT + 1), "nothing listens"),
        (False, ipv4("0.0.0.0", state="01"), "nothing listens"),
        (False, ipv4("127.0.0.1")[:88], "nothing listens"),
    ],
)
def test_what_cannot_be_reached(tmp_path: Path, pod: bool, tcp: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said) as raised:
        Network(tmp_path, pod=pod, tcp=tcp).address()
    assert raised.value.reason == "not_found"
    assert raised.value.fix


TWO = ipv4("127.0.0.1", inode=1) + ipv4("10.0.0.5", inode=2)


@pytest.mark.parametrize(
    ("tcp", "tcp6", "held", "expected"),
    [
        (TWO, "", [1, 2], "127.0.0.1"),
        (TWO, "", [1], "127.0.0.1"),
        (TWO, "", [2], "10.0.0.5"),
        (ipv4("127.0.0.1", inode=1), ipv6("::", inode=2), [2], "::1"),
        (ipv4("0.0.0.0", inode=1), ipv6("::", inode=2), [1], "127.0.0.1"),
        (ipv4("0.0.0.0", inode=1), ipv6("::", inode=2), [2], "::1"),
        (ipv4("0.0.0.0", inode=1) + ipv4("127.0.0.1", inode=2), "", [1], "10.0.0.5"),
    ],
)
def test_of_several_sockets_it_is_that_of_the_process(
    tmp_path: Path, tcp: str, tcp6: str, held: list[int], expected: str
) -> None:
    assert Network(tmp_path, pod=False, tcp=tcp, tcp6=tcp6).hold(*held).address() == expected


def test_of_several_sockets_in_a_pod_it_is_that_of_the_process(tmp_path: Path) -> None:
    tcp = ipv4("127.0.0.1", inode=1) + ipv4("10.244.1.9", inode=2)
    assert Network(tmp_path / "both", pod=True, tcp=tcp).hold(1, 2).address() == "10.244.1.9"
    with pytest.raises(Unavailable, match="loopback"):
        Network(tmp_path / "one", pod=True, tcp=tcp).hold(1).address()


def test_a_launcher_has_the_sockets_of_what_it_started(tmp_path: Path) -> None:
    network = Network(tmp_path, pod=False, tcp=TWO).hold(7, children="78 79 ")
    network.hold(children="80", pid=78).hold(pid=79).hold(2, pid=80)
    assert network.address() == "10.0.0.5"


@pytest.mark.parametrize("state", ["Z", ""])
def test_a_child_that_has_ended_holds_nothing(tmp_path: Path, state: str) -> None:
    """A zombie's descriptors are root's: only other processes' may be unknown."""
    network = Network(tmp_path, pod=False, tcp=ipv4("127.0.0.1", inode=1)).hold(children="78")
    if state:
        (tmp_path / "78").mkdir()
        (tmp_path / "78/stat").write_text(f"78 (a b) {state} {PID} 77")
    with pytest.raises(HeldByAnother):
        network.address()


@pytest.mark.parametrize(
    ("bound", "loopback", "expected"), [("::", True, "::1"), ("::", False, "127.0.0.1"), ("0.0.0.0", True, "127.0.0.1")]
)
def test_a_socket_of_ipv6_may_have_no_ipv4(tmp_path: Path, bound: str, loopback: bool, expected: str) -> None:
    line = "00000000000000000000000000000001 01 80 10 80       lo\n" if loopback else ""
    tcp, tcp6 = (ipv4(bound), "") if bound == "0.0.0.0" else ("", ipv6(bound))
    assert Network(tmp_path, pod=False, tcp=tcp, tcp6=tcp6, inet6=line).address() == expected


def test_a_server_of_ipv4_has_no_address_of_ipv6(tmp_path: Path) -> None:
    line = "fd000000000000000000000000000009 02 40 00 80     eth0\n"
    tcp, tcp6 = ipv4("0.0.0.0", inode=1), ipv6("::", inode=2)
    network = Network(tmp_path, pod=True, tcp=tcp, tcp6=tcp6, inet6=line).hold(1)
    (tmp_path / str(PID) / "net/fib_trie").write_text("")
    with pytest.raises(Unavailable):
        network.address()


def test_an_address_that_two_servers_share(tmp_path: Path) -> None:
    """SO_REUSEPORT: the kernel chooses which of them responds; workers of one server are one server."""
    tcp = ipv4("0.0.0.0", inode=1) + ipv4("0.0.0.0", inode=2)
    with pytest.raises(HeldByAnother, match="another process, too") as raised:
        Network(tmp_path / "two", pod=False, tcp=tcp).hold(1).address()
    assert raised.value.address == "127.0.0.1"
    workers = Network(tmp_path / "one", pod=False, tcp=tcp).hold(1, children="78").hold(2, pid=78)
    assert workers.address() == "127.0.0.1"


def test_a_table_longer_than_a_page(tmp_path: Path) -> None:
    others = "".join(ipv4("127.0.0.1", port, inode=port) for port in range(20_000, 22_000))
    assert Network(tmp_path, pod=False, tcp=others + ipv4("10.0.0.5")).address() == "10.0.0.5"


def test_a_port_that_another_process_has(tmp_path: Path) -> None:
    """A second server that is told the port of the first, while it loads its model."""
    network = Network(tmp_path, pod=False, tcp=ipv4("127.0.0.1", inode=1)).hold(children="78").hold(5, pid=78)
    with pytest.raises(Unavailable, match="another process"):
        network.address()


@pytest.mark.parametrize(
    ("tcp", "tcp6"),
    [
        (TWO, ""),
        (ipv4("0.0.0.0"), ipv6("::", user=1000)),
        (ipv4("127.0.0.1"), ipv6("::")),
    ],
)
@pytest.mark.parametrize("child", [True, False])
def test_sockets_of_which_nobody_says_whose_they_are(tmp_path: Path, tcp: str, tcp6: str, child: bool) -> None:
    """As those of other users, to an exporter without rights: a guess would count the tokens of another model."""
    network = Network(tmp_path, pod=False, tcp=tcp, tcp6=tcp6)
    if child:
        network.hold(children="78")
        (tmp_path / "78").mkdir()
        (tmp_path / "78/stat").write_text(f"78 (a b) S {PID} 77")
    with pytest.raises(Unavailable, match=f"which of these sockets is of pid {PID} cannot be read") as raised:
        network.address()
    assert raised.value.reason == "permission"
    assert "CAP_SYS_PTRACE" in raised.value.fix


def test_the_same_port_of_two_processes() -> None:
    """Each at an address of its own, as two model servers that are told to."""
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.3', int(sys.argv[1])));"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with (
        first,
        subprocess.Popen(
            [sys.executable, "-c", script, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        assert reachable_address(Host(), os.getpid(), port) == "127.0.0.1"
        assert reachable_address(Host(), other.pid, port) == "127.0.0.3"
        with socket.create_server(("127.0.0.1", 0)) as third, pytest.raises(Unavailable, match="another process"):
            reachable_address(Host(), other.pid, third.getsockname()[1])
        other.kill()


def test_a_real_launcher() -> None:
    script = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        '\'import socket, sys; s = socket.create_server(("127.0.0.1", 0));'
        "print(s.getsockname()[1], flush=True); sys.stdin.read()'])"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout
        assert reachable_address(Host(), launcher.pid, int(launcher.stdout.readline())) == "127.0.0.1"


def test_a_real_port_of_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert reachable_address(Host(), os.getpid(), server.getsockname()[1]) == "127.0.0.1"
    with socket.create_server(("127.0.0.3", 0)) as server:
        assert reachable_address(Host(), os.getpid(), server.getsockname()[1]) == "127.0.0.3"
