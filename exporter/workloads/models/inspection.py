"""The evidence of one command line, and hints in its form."""

from __future__ import annotations

from typing import NamedTuple

from .commandline import TITLE, is_shell, split
from .evidence import NOTHING, Evidence
from .handed import worker_kind
from .podspec import is_sandbox
from .recognise import recognise

_MAX_TEXT = 4096


class Inspection(NamedTuple):
    """Evidence of one command line. ``text`` is kept only if a rule matches on it, and never exported.

    ``opaque``: the process hides its command line (a title, a sandbox, an empty one). ``shell``: it is a shell.
    ``worker``: see `worker_kind`. ``changes``: it is one of Ray's, which change what they work on.
    """

    digest: int
    text: str
    opaque: bool
    shell: bool
    evidence: Evidence
    worker: str = ""
    changes: bool = False

    @property
    def missing(self) -> str:
        """Why it names no model, in words."""
        if self.opaque:
            return "hidden: a title, a sandbox, or not readable"
        if self.evidence.why:
            return self.evidence.why
        return "a shell that starts no known program" if self.shell else "no known program with a model"


def inspect(raw: bytes, *, keep_text: bool) -> Inspection:
    """Inspect the bytes of ``/proc/PID/cmdline``."""
    words = split(raw)
    if not words:
        return Inspection(hash(raw), "", opaque=True, shell=False, evidence=NOTHING)
    text = " ".join(words)[:_MAX_TEXT] if keep_text else ""
    opaque = TITLE.match(words[0]) is not None or is_sandbox(words[0])
    worker, changes = worker_kind(words), words[0].startswith("ray::")
    return Inspection(hash(raw), text, opaque, is_shell(words[0]), recognise(words), worker, changes)
