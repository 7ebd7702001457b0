"""Neither the program nor a document sends its reader to a registry for what is not published (newcomers tried it)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import __version__
from tests.support.repository import REPOSITORY

NAME = "ai-energy-exporter"
_INSTALLERS = r"pip|pipx|uv|apt|apt-get|dnf|yum|zypper|helm"
_OURS = rf"(?<![\w./-]){NAME}(?![\w/-])"
"""The bare name, which an installer looks up; a path to a file, a folder or a file's name is none."""
UNPUBLISHED = re.compile(
    rf"\b(?:{_INSTALLERS})\b[^\n`|&;]*?\b(?:install|download|upgrade)\b(?!\s+{NAME} (?:deploy|dist)/)[^\n`|&;]*?{_OURS}"
    r"|\bhelm repo add\b|\boci://"
    rf"|\b(?:docker|podman|nerdctl|crictl) pull\b[^\n`]*{NAME}"
    rf"|\b(?:ghcr|quay|docker|gcr)\.io/[\w./-]*{NAME}"
    rf"|\bpypi\.org/\S*{NAME}|\bgithub\.com/\S*{NAME}"
)
_FROM_THE_INDEX = re.compile(r"\bpip install ([\w.-]+)")

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
FILES = [
    *DOCUMENTS,
    *(REPOSITORY / name for name in ("Dockerfile", "Makefile", "deploy/compose/compose.yaml")),
    *sorted(path for path in (REPOSITORY / "deploy/helm/ai-energy-exporter").rglob("*") if path.is_file()),
]
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")


def strings() -> Iterator[tuple[str, str]]:
    """File and text of every string of the program, docstrings included."""
    for path in sorted((REPOSITORY / "exporter").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(path.relative_to(REPOSITORY)), node.value


def test_no_hint_of_the_program_names_what_is_not_published() -> None:
    assert [found for found in strings() if UNPUBLISHED.search(found[1])] == []


def test_what_a_hint_installs_is_a_package_that_the_project_itself_installs() -> None:
    """So it is in the index, under this name, and fits."""
    wanted = {(where, name) for where, text in strings() for name in _FROM_THE_INDEX.findall(text)}
    assert len(wanted) >= 3
    pinned = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    assert {found for found in wanted if found[1] not in pinned} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_document_names_what_is_not_published(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if UNPUBLISHED.search(line)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("needs the package bcrypt: pip install 'ai-energy-exporter[auth]'", True),
        ("sudo apt-get install -y ai-energy-exporter", True),
        ("dnf install ai-energy-exporter", True),
        ("helm install energy ai-energy-exporter --version 1", True),
        ("helm repo add energy https://example.com", True),
        ("docker pull ai-energy-exporter:0.1.0", True),
        ("image: ghcr.io/someone/ai-energy-exporter:0.1.0", True),
        ("pip install bcrypt", False),
        ("sudo /opt/ai-energy-exporter/bin/pip install '.[kubernetes,auth]'", False),
        (f"sudo apt-get install ./dist/ai-energy-exporter_{__version__}_amd64.deb", False),
        ("helm install ai-energy-exporter deploy/helm/ai-energy-exporter --set a=b", False),
        ("docker push registry.example.com/ai-energy-exporter:0.1.0", False),
        ("sudo systemctl enable --now ai-energy-exporter", False),
    ],
)
def test_the_lint_finds_them(text: str, found: bool) -> None:
    assert bool(UNPUBLISHED.search(text)) == found


VERSIONED = re.compile(
    rf"(?:{NAME}(?::|_|-)|--version |newTag: |VERSION=|^(?:appV|v)ersion: \"?)(\d+\.\d+\.\d+)(?![\w.]*\.\d)",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    "path",
    [*FILES, REPOSITORY / "deploy/kubernetes/parts/daemonset/kustomization.yaml"],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_there_is_one_version(path: Path) -> None:
    assert set(VERSIONED.findall(path.read_text(encoding="utf-8"))) <= {__version__}


def test_files_that_name_the_version_are_found() -> None:
    named = {path.name for path in FILES if VERSIONED.search(path.read_text(encoding="utf-8"))}
    assert {"Chart.yaml", "Dockerfile", "compose.yaml", "install.md", "image.md", "deploy-kubernetes.md"} <= named
    assert "Makefile" not in named
