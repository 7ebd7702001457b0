"""What the suite needs of a machine is installed where that is possible, and said where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.__main__ import skipped
from tests.support import prerequisites
from tests.support.patience import patience
from tests.support.prerequisites import Prerequisite, install, lacking, run
from tests.support.repository import REPOSITORY

APT = """#!/bin/sh
echo "apt-get $* $(cat "$POLICY")" >> "$LOG"
for word; do last=$word; done
[ "$last" = update ] || {{ printf '#!/bin/sh\\n' > "{folder}/a-tool"; chmod 755 "{folder}/a-tool"; }}
"""
SUDO = """#!/bin/sh
echo "sudo $*" >> "$LOG"
shift
exec "$@"
"""
PASSWORD = "#!/bin/sh\necho sudo: a password is required >&2\nexit 1\n"
LINE = "missing: a-tool, which makes a (Debian package a-package)\n"


class FakeDebian:
    """A machine without ``a-tool``, where programs can be put in the way of the real ones."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log, self.policy = folder / "bin", folder / "log", folder / "policy-rc.d"
        self.bin.mkdir()

    def add(self, name: str, script: str) -> None:
        """Put a program into the PATH."""
        (self.bin / name).write_text(script.format(folder=self.bin) if script == APT else script)
        (self.bin / name).chmod(0o755)

    def asked(self) -> list[str]:
        """Lines that the programs logged."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    made = FakeDebian(tmp_path)
    monkeypatch.setattr(prerequisites, "TABLE", (Prerequisite("a-tool", "a-package", "makes a"),))
    monkeypatch.setattr(prerequisites, "POLICY", made.policy)
    monkeypatch.delenv("CI", raising=False)
    for name, value in {"PATH": f"{made.bin}:{os.defpath}", "LOG": str(made.log), "POLICY": str(made.policy)}.items():
        monkeypatch.setenv(name, value)
    return made


def test_root_installs_what_is_missing_says_so_and_no_package_may_start_a_service(
    debian: FakeDebian, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.add("apt-get", APT)
    assert install("test") == 0
    assert debian.asked() == [
        "apt-get -qq update #!/bin/sh",
        "exit 101",
        "apt-get -qq install --yes --no-install-recommends a-package #!/bin/sh",
        "exit 101",
    ]
    assert not debian.policy.exists()
    assert "  a-package: a-tool makes a\n" in capsys.readouterr().out
    assert (lacking("a-tool"), install("test"), len(debian.asked())) == ("", 0, 4)


def test_a_policy_that_is_there_stays(debian: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.policy.write_text("#!/bin/sh\nexit 0\n")
    debian.add("apt-get", APT)
    assert install("test") == 0
    assert debian.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_user_installs_with_sudo(debian: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    debian.add("apt-get", APT)
    debian.add("sudo", SUDO)
    assert install("test") == 0
    assert lacking("a-tool") == ""
    assert [line for line in debian.asked() if line.startswith("sudo") and not line.startswith("sudo -n ")] == []


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({"apt-get": APT, "sudo": PASSWORD}, "that takes root, and sudo asks for a password"),
        ({"apt-get": "#!/bin/sh\necho no network >&2\nexit 100\n", "sudo": SUDO}, ""),
    ],
)
def test_what_cannot_be_installed_is_said_and_only_ci_fails(
    debian: FakeDebian,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    programs: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name, script in programs.items():
        debian.add(name, script)
    assert install("test") == 0
    complaints = capsys.readouterr().err
    assert complaints.endswith(LINE)
    assert reason in complaints
    assert lacking("a-tool") == "a-tool is missing: apt-get install a-package"
    monkeypatch.setenv("CI", "1")
    assert install("test") == 1


def test_a_check_whose_tool_is_missing_is_left_out_and_said(
    debian: FakeDebian, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["a-tool", "check"]) == 0
    assert capsys.readouterr().err == "not checked, a-tool is missing: apt-get install a-package\n"
    debian.add("a-tool", "#!/bin/sh\nexit 3\n")
    assert run(["a-tool", "check"]) == 3


def test_a_program_that_no_package_provides_cannot_be_a_reason(debian: FakeDebian) -> None:
    with pytest.raises(KeyError):
        lacking("another-tool")


def test_skipped_tests_are_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "@pytest.mark.skipif(True, reason='a is missing')\n"
        "def test_a(n): ...\n"
        "def test_b(): pytest.skip('b is missing')\n"
        "@pytest.mark.xfail(reason='known')\n"
        "def test_c(): assert False\n"
        "def test_d(): ...\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", "test_it.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=patience(60))
    assert skipped([report, report]) == Counter({"a is missing": 6, "b is missing": 2})


def test_ci_installs_nothing_by_itself() -> None:
    text = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    targets = [line.split("make ")[1].split()[0] for line in text.splitlines() if " || status=1" in line]
    assert sorted(targets) == ["bare-test", "image-test", "lint", "test"]
    assert "apt-get" not in text
    assert "pip install" not in text
