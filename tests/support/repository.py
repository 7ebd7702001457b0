"""Where the repository and its tests lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
REPOSITORY = TESTS.parent
HOSTS = TESTS / "hosts"
