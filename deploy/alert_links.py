"""Rules whose alerts link to your runbooks and your Grafana: ``python -m deploy.alert_links --help``.

The rules in this repository have relative links, because addresses differ from site to site. This makes copies of them,
in which nothing else is changed, so that an upgrade is to run it again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

RULES = Path(__file__).resolve().parent.parent / "prometheus/rules"

_RUNBOOK = re.compile(r"""(\brunbook_url: ["']?)docs/runbooks/""")
_DASHBOARD = re.compile(r"""(\bdashboard_url: (?:>-\s+)?["']?)/d/""")
_ADDRESS = re.compile(r"https?://[^\s/]\S*")


def linked(rules: str, runbooks: str, grafana: str) -> str:
    """The text of a rule file with absolute links; ``runbooks`` is the address of the folder docs/runbooks."""
    rules = _RUNBOOK.sub(lambda match: f"{match[1]}{runbooks.rstrip('/')}/", rules)
    return _DASHBOARD.sub(lambda match: f"{match[1]}{grafana.rstrip('/')}/d/", rules)


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no address such as https://git.example.com/energy")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the copies. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.alert_links", description=__doc__)
    parser.add_argument("--runbooks", type=_address, required=True, help="address of the folder docs/runbooks")
    parser.add_argument("--grafana", type=_address, required=True, help="address of Grafana")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("files", type=Path, nargs="*", help="rule files or manifests; default: prometheus/rules")
    wanted = parser.parse_args(arguments)
    wanted.output.mkdir(parents=True, exist_ok=True)
    for path in wanted.files or sorted(RULES.glob("*.yml")):
        text = linked(path.read_text(encoding="utf-8"), wanted.runbooks, wanted.grafana)
        (wanted.output / path.name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{wanted.output / path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
