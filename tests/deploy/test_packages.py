"""What is packaged, as far as it can be checked without a network and a machine to install it on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from deploy.packages import build, manual, release, sbom, tree
from exporter.config.command_line import COMMANDS
from exporter.config.settings_table import TABLE
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "packages"
UNIT = REPOSITORY / "deploy" / "systemd" / f"{tree.NAME}.service"


def wheel(folder: Path, name: str, version: str = "1.0", metadata: str = "", **files: str) -> Path:
    """A wheel with some files; ``__`` in a keyword is a slash, ``_dot_`` a dot."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}\n"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", head)
        for at, content in files.items():
            archive.writestr(at.replace("__", "/").replace("_dot_", "."), content)
    return path


def test_the_unit_is_the_tested_one_with_the_command_of_the_package() -> None:
    shipped = tree.unit().splitlines()
    changed = [line for line in shipped if line not in UNIT.read_text(encoding="utf-8").splitlines()]
    assert changed == [f"ExecStart=/usr/bin/{tree.NAME}"]
    assert len(shipped) == len(UNIT.read_text(encoding="utf-8").splitlines())


def test_a_package_has_its_files_at_their_places(tmp_path: Path) -> None:
    files = tree.tree([wheel(tmp_path, "one", one____init___dot_py="")])
    assert {
        "etc/ai-energy-exporter/environment",
        "usr/bin/ai-energy-exporter",
        "usr/lib/ai-energy-exporter/one-1.0.dist-info/METADATA",
        "usr/lib/systemd/system/ai-energy-exporter.service",
        "usr/lib/sysusers.d/ai-energy-exporter.conf",
        "usr/share/ai-energy-exporter/60-ai-energy-exporter.rules",
        "usr/share/doc/ai-energy-exporter/copyright",
        "usr/share/man/man1/ai-energy-exporter.1.gz",
    } <= files.keys()
    assert {at for at, file in files.items() if file.mode & 0o111} == {"usr/bin/ai-energy-exporter"}
    assert {at.split("/")[0] for at in files} == {"etc", "usr"}, "nothing that only a run of the program makes"


def test_a_wheel_that_cannot_just_be_unpacked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tree.UnfitWheelError, match="one version of Python"):
        tree.modules(wheel(tmp_path, "one", **{"one__fast.cpython-311-x86_64-linux-gnu.so": ""}))
    with pytest.raises(tree.UnfitWheelError, match="outside"):
        tree.modules(wheel(tmp_path, "two", **{"two-1.0.data__scripts__two": ""}))
    assert "usr/lib/ai-energy-exporter/three/fast.abi3.so" in tree.modules(
        wheel(tmp_path, "three", **{"three__fast.abi3.so": ""})
    )


def test_pyyaml_s_loader_for_one_python_is_left_out(tmp_path: Path) -> None:
    found = tree.modules(
        wheel(tmp_path, "pyyaml", **{"yaml___yaml.cpython-311-x86_64-linux-gnu.so": "", "yaml__a.py": ""})
    )
    assert {Path(at).name for at in found} == {"METADATA", "a.py"}


@needs("dpkg-deb")
def test_the_debian_package_is_the_same_each_time_and_names_its_settings(tmp_path: Path) -> None:
    files = {f"{tree.CONFIGURATION}": tree.File(b"#\n"), "usr/bin/x": tree.File(b"#!/bin/sh\n", 0o755)}
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(build.deb(tmp_path / name, files, "1.2.3", "amd64", 1_700_000_000))
    assert made[0].read_bytes() == made[1].read_bytes()
    other = build.deb(tmp_path, files | {"usr/bin/x": tree.File(b"", 0o755)}, "1.2.3", "amd64", 1_700_000_000)
    assert other.read_bytes() != made[0].read_bytes()

    def said(*arguments: str) -> str:
        command = ["dpkg-deb", arguments[0], str(made[0]), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience(60)).stdout

    assert said("--info", "conffiles") == f"/{tree.CONFIGURATION}\n"
    assert said("--field", "Version") == "1.2.3\n"
    rows = {line.split()[-1]: line.split()[:2] for line in said("--contents").splitlines()}
    assert rows["./usr/bin/x"] == ["-rwxr-xr-x", "root/root"]


@pytest.mark.parametrize("name", build.SCRIPTS)
def test_scripts_are_shell_that_stops_at_an_error(name: str) -> None:
    path = FOLDER / "debian" / name
    subprocess.run(["sh", "-n", str(path)], check=True, capture_output=True, timeout=patience())
    assert path.read_text(encoding="utf-8").startswith("#!/bin/sh\nset -e\n")


def test_only_the_purge_removes_state() -> None:
    removes = {
        path.name
        for path in (*(FOLDER / "debian").iterdir(), FOLDER / "ai-energy-exporter.spec")
        if re.search(r"\brm\b.*/var/lib", path.read_text(encoding="utf-8"))
    }
    assert removes == {"postrm"}
    before, _, purged = (FOLDER / "debian" / "postrm").read_text(encoding="utf-8").partition('"$1" = purge')
    assert "/var/lib" not in before
    assert "rm -rf /var/lib/ai-energy-exporter" in purged


# --- man page ---------------------------------------------------------------------------------------------------


def test_the_man_page_has_every_setting_and_command_once() -> None:
    text = manual.document().replace("\\-", "-")
    assert [name for name in TABLE if len(re.findall(rf"^\\fB--{re.escape(name)}\\fR", text, re.MULTILINE)) != 1] == []
    assert [row.variable for row in TABLE.values() if f"[{row.variable}]" not in text] == []
    assert [name for name in COMMANDS if not re.search(rf"^\.B {name}\b", text, re.MULTILINE)] == []


@needs("groff")
def test_the_man_page_is_understood(tmp_path: Path) -> None:
    (tmp_path / "page").write_text(manual.document(), encoding="utf-8")
    command = ["groff", "-man", "-Tascii", "-P-cbou", "-ww", str(tmp_path / "page")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience(60))
    assert done.stderr == ""
    assert [name for name in TABLE if f"--{name}" not in done.stdout] == []


# --- bill of materials ------------------------------------------------------------------------------------------

LOCK = f"""\
# made by make lock
one==1.0 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via mine
two-words==2.0 \\
    --hash=sha256:{"c" * 64}
"""


def test_the_bill_has_what_is_pinned_and_declared(tmp_path: Path) -> None:
    needs_two = 'License-Expression: MIT\nRequires-Dist: Two_Words>=1; extra == "x"\nRequires-Dist: else'
    wheels = [
        wheel(tmp_path, "mine", "9", "Requires-Dist: one>=1"),
        wheel(tmp_path, "one", "1.0", needs_two),
        wheel(tmp_path, "two_words", "2.0", "License: BSD"),
    ]
    bill = json.loads(sbom.document(LOCK, wheels, ("mine", "9"), 1_700_000_000))
    one, two = bill["components"]
    assert (one["purl"], one["licenses"], two["licenses"]) == (
        "pkg:pypi/one@1.0",
        [{"expression": "MIT"}],
        [{"license": {"name": "BSD"}}],
    )
    assert [each["content"][0] for each in one["externalReferences"][0]["hashes"]] == ["a", "b"]
    assert "licenses" not in bill["metadata"]["component"]
    assert {each["ref"]: each["dependsOn"] for each in bill["dependencies"]} == {
        "pkg:pypi/mine@9": ["pkg:pypi/one@1.0"],
        "pkg:pypi/one@1.0": ["pkg:pypi/two-words@2.0"],
        "pkg:pypi/two-words@2.0": [],
    }
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    with pytest.raises(KeyError):
        sbom.document(LOCK, wheels[:2], ("mine", "9"), 0)


def test_the_bill_reads_every_pin_of_the_lock() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    assert sorted(sbom.pins(lock)) == sorted(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {digest for _, hashes in sbom.pins(lock).values() for digest in hashes} == set(
        re.findall(r"sha256:([0-9a-f]{64})", lock)
    )


def test_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "folder").mkdir()
    release.write_sums(tmp_path)
    release.write_sums(tmp_path)
    if shutil.which("sha256sum"):
        subprocess.run(
            ["sha256sum", "--check", "--strict", release.SUMS], cwd=tmp_path, check=True, capture_output=True
        )
    assert (tmp_path / release.SUMS).read_text().count("\n") == 1
