"""Look at the status pages of very different nodes in Chromium, and at pages with a fault, which must be found.

``check.mjs`` does the looking. A folder as argument gets a picture of each page; ``--paint`` only measures the first
paint. Exit status 1 if a page has a finding, or if a planted fault has none.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import h11

from exporter.exposition.web.response import Handler, Response
from exporter.exposition.web.server import Server, ServerOptions
from tests.exposition.conftest import make_busy_node
from tests.support.served import LOCAL
from tests.support.status_pages import after_ten_minutes, crowded, pages

CHECK = Path(__file__).parent / "check.mjs"
MOST_BYTES = 60_000
BLANK = b'<!doctype html><html lang="en"><title>blank</title><p>A page without anything, for comparison.</p></html>'
LIVE = {"/busy": make_busy_node, "/crowded": crowded}


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    """A fault: the page with ``pattern`` replaced; a pattern that is not there is an error of this file."""

    def plant(page: str) -> str:
        planted, count = re.subn(pattern, by, page)
        assert count, f"nothing to replace: {pattern}"
        return planted

    return plant


_WIDE = f"<table><tr><td><pre>{'0' * 300}</pre></td></tr></table></main>"
_CUT = f'<main><div class="spark">{"cut text " * 60}</div>'
_RELOAD = '<meta http-equiv="refresh" content="300"><title>'
_GPUS = '<section class="card panel"><h2>GPUs'

FAULTS: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "a table wider than the page": ("wider than", replaced("</main>", _WIDE)),
    "text that is cut": ("cut", replaced("<main>", _CUT)),
    "a picture without a label": ("svg-img-alt", replaced(r' aria-label="at most[^"]*"', "")),
    "a button without a name": ("button-name", replaced(">Pause<", "><")),
    "a page without a language": ("html-has-lang", replaced(' lang="en"', "")),
    "text without contrast": ("color-contrast", replaced("--soft:#[0-9a-f]+", "--soft:#c0c8d2")),
    "a request elsewhere": ("elsewhere", replaced("</main>", '<img alt="" src="http://127.0.0.2:9/x.png"></main>')),
    "a page that reloads itself": ("meta-refresh", replaced("<title>", _RELOAD)),
    "a link to an explanation that is not there": ("leads nowhere", replaced('id="word-idle"', 'id="other"')),
    "what needs a script": ("without JavaScript", replaced(_GPUS, _GPUS.replace("class", "hidden class"))),
    "what Tab does not reach": ("Tab reaches", replaced("<summary>", '<summary tabindex="-1">')),
}
"""Name → a word of the finding that it must cause, and how it is planted into a page."""


def responder(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> Handler:
    """A handler that always returns this page."""

    def respond(_: h11.Request, __: str) -> Response:
        return Response(200, body, b"text/html; charset=utf-8", headers)

    return respond


def rendering(path: str) -> Handler:
    """A handler that renders the page of a node for each request, as the exporter does after each sample."""
    page, snapshot = after_ten_minutes(LIVE[path])

    def respond(_: h11.Request, __: str) -> Response:
        return Response(200, page(replace(snapshot)), b"text/html; charset=utf-8", page.headers)

    return respond


def main() -> int:
    """Serve the pages and check them. Returns the exit status."""
    clean = pages()
    handlers = {path: responder(body, page.headers) for path, (body, page) in clean.items()}
    planted = {}
    for number, (name, (finding, plant)) in enumerate(FAULTS.items()):
        body, _ = clean["/busy"]
        planted[f"/planted/{number}"] = (name, finding)
        handlers[f"/planted/{number}"] = responder(
            plant(body.decode()).encode(), ()
        )  # a policy would refuse some of them
    live = {"/live/blank": responder(BLANK, ()), **{f"/live{path}": rendering(path) for path in LIVE}}
    server = Server({**handlers, **live}, {}, ServerOptions(listen=LOCAL), None, lambda _: None)
    port = server.start()[0][1]
    plan = {
        "origin": f"http://127.0.0.1:{port}",
        "clean": list(clean),
        "planted": planted,
        "live": list(live),
        "most_bytes": MOST_BYTES,
        "only_paint": "--paint" in sys.argv,
        "pictures": next((word for word in sys.argv[1:] if word != "--paint"), ""),
    }
    try:
        return subprocess.run(["node", str(CHECK)], input=json.dumps(plan), text=True, check=False).returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
