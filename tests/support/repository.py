"""Where the repository and its tests lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
REPOSITORY = TESTS.parent
HOSTS = TESTS / "hosts"

RULE_FILES = sorted((REPOSITORY / "prometheus/rules").glob("*.yml"))
"""The rules that are shipped."""

DEMO_BUDGETS = REPOSITORY / "prometheus/demo/budgets.yml"
"""Rules of the demonstration's budgets, which production does not get."""
