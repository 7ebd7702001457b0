"""What attacks on the port do to an honest client's scrapes and to the sampler.

``python -m benchmarks.security [ATTACK...]`` runs some of them. Everybody is a process of its own: the exporter, two
honest clients that scrape four times a second each, and the attacker.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import bcrypt
import trustme

from tests.support.program import free_port
from tests.support.served import PASSWORD, WebFolder, users

from .service import Service, cpu_seconds
from .table import quantile, show, verdict

GOAL_SCRAPE = 0.100
GOAL_SLIP = 0.100
BCRYPT_COST = 12
ATTACK_SECONDS, REST_SECONDS = 8.0, 3.0
QUIET_CORES, QUIET_SECONDS = 0.3, 60.0
"""An attack waits at most so long until the machine has no other work than this."""

BUSY_CORES = 0.5
"""Where others use so much while it runs, a goal that was not met says nothing."""


_SINGLE = {"rotation": "the server's certificate is replaced once a second", "nothing": "no attack"}
_PLAIN = {
    "slow": "2,000 slow clients",
    "silent": "2,000 silent connections",
    "idle": "2,000 idle after a page of health",
    "giant": "giant headers, 100/s",
    "endless": "20 endless headers, 1 MiB/s each",
    "pipelined": "2,000 pipelined requests, twice a second",
    "connects": "connections, 1,000/s",
    "stuck": "100 that never read, with the password",
    "guesses": "wrong passwords of one user",
    "guesses_of_many": "wrong passwords of many users",
}
_TLS = _PLAIN | {
    "hello": "2,000 ClientHellos, then silence",
    "hello_drip": "2,000 ClientHellos, a byte a second",
    "garbage": "64 KiB of noise, 200/s",
    "handshakes": "handshakes, 100/s",
    "expired": "expired client certificates, 50/s",
}


class Scrape(NamedTuple):
    """One scrape of an honest client: when it was due, how long it took, and what the page said, if it came."""

    due: float
    took: float
    outcome: str
    page: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """What the exporter used: CPU seconds so far, and bytes and descriptors now."""

    cpu: float
    resident: int
    descriptors: int

    @classmethod
    def of(cls, service: Service) -> Use:
        """Look."""
        return cls(service.cpu_seconds(), service.resident_bytes(), len(os.listdir(f"/proc/{service.pid}/fd")))


@dataclass(slots=True)
class Run:
    """One attack, and how it went."""

    what: str
    port: str
    whence: str
    began: float = 0.0
    ended: float = 0.0
    attacker_cpu: float = 0.0
    busy: float = 0.0
    uses: list[Use] = field(default_factory=list)
    after: Use | None = None

    def row(self, fresh: Sequence[Scrape], kept: Sequence[Scrape]) -> tuple[str, ...]:
        """Its line of the table."""
        new, old = ([one for one in scrapes if self.began <= one.due < self.ended] for scrapes in (fresh, kept))
        assert self.after is not None
        worst = max((one.took for one in [*new, *old]), default=float("inf"))
        failed = sum(one.outcome != "ok" for one in [*new, *old])
        slip, missed = _slip([one for one in [*new, *old] if one.page])
        seconds = self.ended - self.began
        good = worst < GOAL_SCRAPE and not failed and not missed and slip < GOAL_SLIP
        exporter_cpu = self.uses[-1].cpu - self.uses[0].cpu
        others = (self.busy - exporter_cpu - self.attacker_cpu) / seconds
        unsure = not good and others > BUSY_CORES
        return (
            self.what,
            self.port,
            self.whence,
            *_milliseconds(new),
            *_milliseconds(old),
            str(failed),
            f"{slip * 1e3:.0f}",
            f"{missed:.0f}",
            f"{100 * exporter_cpu / seconds:.0f}%",
            f"{100 * self.attacker_cpu / seconds:.0f}%",
            f"{100 * others:.0f}%",
            f"{max(use.resident for use in self.uses) / 2**20:.0f}",
            f"{self.after.resident / 2**20:.0f}",
            str(max(use.descriptors for use in self.uses)),
            str(self.after.descriptors),
            "machine busy" if unsure else verdict(good),
        )


HEAD = (
    *("attack", "port", "from", "new: median", "p99", "worst", "kept: median", "p99", "worst", "failed"),
    *("sample late", "missed", "exporter CPU", "attacker", "others", "MiB", "after", "fds", "after", "goal"),
)


def main(*only: str) -> None:
    """Run the attacks on a port that speaks TLS and on one that does not, and print the table."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))  # what the exporter is born with
    rows = []
    failures: set[str] = set()
    for tls in (True, False):
        attacks = _TLS if tls else _PLAIN
        wanted = [(name, what) for name, what in (_SINGLE | attacks).items() if not only or name in only]
        if not tls:
            wanted = [(name, what) for name, what in wanted if name != "rotation"]
        if wanted:
            with (
                _exporter(tls=tls) as (service, port, web),
                _honest(port, web, tls, "new") as fresh,
                _honest(port, web, tls, "kept") as kept,
            ):
                time.sleep(4.0)
                runs = [
                    _run(name, Run(what, "TLS" if tls else "plain", whence), service, port, web)
                    for name, what in wanted
                    for whence in (("",) if name in _SINGLE else ("others", "same"))
                ]
            rows += [run.row(fresh, kept) for run in runs]
            failures |= {one.outcome for one in [*fresh, *kept] if one.outcome != "ok"}
    show(
        f"Security: TLS with RSA 2048, basic auth with bcrypt of cost {BCRYPT_COST}; milliseconds of honest scrapes",
        HEAD,
        rows,
    )
    print(f"goal: every honest scrape below {GOAL_SCRAPE * 1e3:g} ms, none fails, no sample is missed or that late")
    for failure in sorted(failures):
        print(f"a scrape failed: {failure}")


def _run(name: str, run: Run, service: Service, port: int, web: WebFolder) -> Run:
    begin = _rotate if name == "rotation" else _attack
    _wait_for_quiet()
    run.began, busy = time.monotonic(), _busy()
    with begin(name, run, port, web) as go_on:
        while time.monotonic() - run.began < ATTACK_SECONDS:
            run.uses.append(Use.of(service))
            go_on()
            time.sleep(0.1)
    run.ended, run.busy = time.monotonic(), _busy() - busy
    time.sleep(REST_SECONDS)
    run.after = Use.of(service)
    return run


def _busy() -> float:
    """CPU seconds that the whole machine has worked."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _wait_for_quiet() -> None:
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        busy = _busy()
        time.sleep(1.0)
        if _busy() - busy < QUIET_CORES:
            return


@contextlib.contextmanager
def _attack(name: str, run: Run, port: int, web: WebFolder) -> Iterator[Callable[[], None]]:
    if name == "nothing":
        yield lambda: None
        return
    command = [sys.executable, "-m", "benchmarks.attacks", name, str(port), run.whence, str(web.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as attacker:
        yield lambda: None
        assert attacker.poll() is None, f"the attacker failed: {name}"
        run.attacker_cpu = cpu_seconds(attacker.pid)


@contextlib.contextmanager
def _rotate(name: str, run: Run, port: int, web: WebFolder) -> Iterator[Callable[[], None]]:
    certificates = iter([_certificate(web) for _ in range(int(ATTACK_SECONDS))])
    run.began = at = time.monotonic()

    def go_on() -> None:
        nonlocal at
        if time.monotonic() >= at and (certificate := next(certificates, None)) is not None:
            at += 1.0
            _install(web, certificate)

    yield go_on


@contextlib.contextmanager
def _exporter(*, tls: bool) -> Iterator[tuple[Service, int, WebFolder]]:
    port = free_port()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    with tempfile.TemporaryDirectory() as name:
        web = WebFolder(Path(name))
        if tls:
            more = "  client_ca_file: ca.crt\n  client_auth_type: VerifyClientCertIfGiven\n"
            path = web.serve_tls(more, users(prometheus=hashed))
            web.issue("attacker.example", ended=True, name="expired")
            _install(web, _certificate(web))
        else:
            path = web.write(users(prometheus=hashed))
        command = [sys.executable, "-m", "exporter", "--demo", "--log.level=error", f"--web.config.file={path}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", f"--state.file={name}/state"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                yield Service(process.pid, ""), port, web
            finally:
                process.terminate()


def _certificate(web: WebFolder) -> trustme.LeafCert:
    return web.authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)


def _install(web: WebFolder, certificate: trustme.LeafCert) -> None:
    web.replace("server.crt", b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    web.replace("server.key", certificate.private_key_pem.bytes())


@contextlib.contextmanager
def _honest(port: int, web: WebFolder, tls: bool, kind: str) -> Iterator[list[Scrape]]:
    """Scrape meanwhile; the list is filled at the end."""
    command = [sys.executable, "-m", "benchmarks.honest", str(port), kind]
    if tls:
        command.append(str(web.folder / "ca.crt"))
    scrapes: list[Scrape] = []
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as client,
    ):
        yield scrapes
        client.communicate()
        output.seek(0)
        for line in output:
            due, took, outcome, *page = line.split()
            scrapes.append(Scrape(float(due), float(took), outcome, tuple(map(float, page)) if outcome == "ok" else ()))


def _slip(scrapes: Sequence[Scrape]) -> tuple[float, float]:
    """How late the latest sample came, against a steady schedule through the earliest, and how many were missed."""
    samples = sorted({one.page for one in scrapes if len(one.page) == 3})
    if not samples:
        return float("inf"), float("inf")
    phases = [at - number - missed for at, number, missed in samples]
    return max(phases) - min(phases), samples[-1][2] - samples[0][2]


def _milliseconds(scrapes: Sequence[Scrape]) -> tuple[str, str, str]:
    took = [one.took * 1e3 for one in scrapes] or [float("inf")]
    return f"{median(took):.1f}", f"{quantile(took, 0.99):.0f}", f"{max(took):.0f}"


if __name__ == "__main__":
    main(*sys.argv[1:])
