"""Which model a process works for: by label, rule, command line, environment, files, or the server's own word."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ...config.model_rules import PHASES, ModelRule, variables
from ...host import Host
from ...records import GroupKey, Model, Process, ProcessKey, Workload
from ..metadata.container_metadata import Facts
from .background_lookups import Inquiries
from .commandline import TITLE, is_shell, split
from .evidence import NOTHING, Evidence, Question
from .lineage import ancestors, share_container
from .names import harmless, model_name
from .podspec import OWNER_PHASES, entry_point, is_sandbox
from .proc import command_line, environment, process_stat
from .recognise import recognise

SECOND_LOOK_SECONDS = 5.0
"""After which a new process is looked at again: between fork and exec it still has its parent's command line."""

_MAX_LOOKS = 8192
_MAX_YOUNG = 16_384
_LOOKS_EACH_TICK = 512
_MAX_TEXT = 4096


class ModelOptions(NamedTuple):
    """``keys`` and ``phase_keys`` are labels or annotations; ``ask_servers``: see the settings."""

    rules: Sequence[ModelRule] = ()
    keys: Sequence[str] = ()
    phase_keys: Sequence[str] = ()
    ask_servers: bool = False


class _Look(NamedTuple):
    """What a process's own command line said. ``text`` is kept only where a rule asks for it, and never shown."""

    digest: int
    text: str
    opaque: bool
    shell: bool
    evidence: Evidence


_UNSEEN = _Look(0, "", opaque=True, shell=False, evidence=NOTHING)


class _Young(NamedTuple):
    due: float
    key: ProcessKey
    group: GroupKey
    digest: int


class Models:
    """Resolves the model of each process once, from one to a few small files of /proc; what takes longer comes later.

    Called from the tick's thread only. A process says itself what it runs; one that does not (a rank, an engine core,
    a child of ``multiprocessing``) belongs to the model of the process that started it, within its container and on
    this side of a shell. Memory is bounded: what is forgotten is looked up again.
    """

    def __init__(self, host: Host, options: ModelOptions | None = None, inquiries: Inquiries | None = None) -> None:
        self._host = host
        self._options = options or ModelOptions()
        self._inquiries = inquiries or Inquiries(host)
        self._variables = variables(self._options.rules)
        self._keeps_text = any(rule.reads_command for rule in self._options.rules)
        self._looks: OrderedDict[ProcessKey, _Look] = OrderedDict()
        self._young: deque[_Young] = deque(maxlen=_MAX_YOUNG)

    def resolve(
        self, process: Process, group: GroupKey | None, workload: Workload, facts: Facts | None = None
    ) -> Model | None:
        """Model of a process, None if it is not known to work for one. Never raises."""
        if process.kernel:
            return None
        key = process.key
        known = key in self._looks
        look = self._look(key)
        if group is not None and not known:
            self._young.append(_Young(self._host.clock() + SECOND_LOOK_SECONDS, key, group, look.digest))
        told = _told(facts, self._options)
        if not (told.model_name and told.phase):
            told = self._join(told, look, _Subject(key, group, workload, facts))
        if not told.model_name:
            return None
        owner_kind = (facts.owner_kind if facts is not None else "") or workload.owner_kind
        phase = told.phase or OWNER_PHASES.get(owner_kind, "unknown")
        return Model(told.model_name, workload.namespace, phase, told.source)

    def changed(self) -> Collection[GroupKey]:
        """Groups of the processes whose answer may have changed since the last call."""
        groups = self._inquiries.news()
        now = self._host.clock()
        for _ in range(_LOOKS_EACH_TICK):
            if not self._young or self._young[0].due > now:
                break
            young = self._young.popleft()
            raw = command_line(self._host, young.key.pid)
            if raw and hash(raw) != young.digest:
                groups.add(young.group)
        return groups

    def close(self) -> None:
        """End what runs in the background."""
        self._inquiries.close()

    # --- evidence -----------------------------------------------------------------------------------

    def _join(self, told: Evidence, look: _Look, subject: _Subject) -> Evidence:
        """Add what the process says, else who started it, else what its pod was asked to run."""
        own = _first(told, self._of_process(look, subject.key, subject))
        if own.model_name and own.phase:
            # Between two reads another process may have come to this pid (fault 34).
            stat = process_stat(self._host, subject.key.pid)
            return own if told.model_name or (stat is not None and stat.key == subject.key) else told
        inherited = self._inherited(subject)
        joined = _first(own, inherited)
        if not joined.model_name and subject.facts is not None and look.opaque:
            joined = _first(joined, _of_pod(subject.facts))
        return joined

    def _inherited(self, subject: _Subject) -> Evidence:
        joined = NOTHING
        for key in ancestors(self._host, subject.key):
            look = self._look(key)
            if look.shell or joined.model_name:
                break
            found = self._of_process(look, key, subject)
            if found.model_name or found.phase:
                if not share_container(self._host, subject.key, key):
                    break
                joined = _first(joined, found)
        return joined

    def _of_process(self, look: _Look, key: ProcessKey, subject: _Subject) -> Evidence:
        """What one process says, by rule, command line, environment and answers to questions."""
        found = self._by_rule(look, key, subject)
        if found.model_name and found.phase:
            return found
        said = look.evidence
        if not said.model_name and said.environment:
            said = _first(said, self._by_environment(said.environment, key, subject))
        if not (found.model_name or said.model_name):
            said = _first(said, self._by_asking(said.questions, key, subject.group))
        return _first(found, said)

    def _by_rule(self, look: _Look, key: ProcessKey, subject: _Subject) -> Evidence:
        if not self._options.rules:
            return NOTHING
        place, facts = subject.workload, subject.facts
        values = {
            "namespace": place.namespace,
            "pod": place.pod,
            "container": place.container,
            "image": place.image or (facts.image if facts is not None else ""),
            "command": look.text,
        }

        @cache
        def variables_set() -> Mapping[str, str]:
            return self._variables_of(key, facts)

        found = NOTHING
        for rule in self._options.rules:
            claim = rule.match(values, lambda name: variables_set().get(name, ""), model_name)
            if claim is not None:
                name = harmless(claim.model_name)
                found = _first(found, Evidence(name, claim.phase, "rule" if name else ""))
            if found.model_name and found.phase:
                break
        return found

    def _by_environment(self, names: Sequence[str], key: ProcessKey, subject: _Subject) -> Evidence:
        values: Mapping[str, str] = environment(self._host, key.pid, names)
        if not values and subject.facts is not None:
            values = subject.facts.environment
        found = next((name for variable in names if (name := model_name(values.get(variable, "")))), "")
        return Evidence(found, source="environment" if found else "")

    def _by_asking(self, questions: Sequence[Question], key: ProcessKey, group: GroupKey | None) -> Evidence:
        for question in questions:
            asks_server = question.kind == "server"
            if asks_server and not self._options.ask_servers:
                continue
            if name := self._inquiries.name(key, question, group):
                return Evidence(name, source="server" if asks_server else "file")
        return NOTHING

    def _variables_of(self, key: ProcessKey, facts: Facts | None) -> Mapping[str, str]:
        """The variables that the rules may look at, and no other."""
        asked_for = facts.environment if facts is not None else {}
        literal = {name: asked_for[name] for name in self._variables if name in asked_for}
        return literal | environment(self._host, key.pid, self._variables)

    # --- looking ------------------------------------------------------------------------------------

    def _look(self, key: ProcessKey) -> _Look:
        raw = command_line(self._host, key.pid)
        known = self._looks.get(key)
        if known is not None and known.digest == hash(raw):
            self._looks.move_to_end(key)
            return known
        look = self._read(raw)
        if look.opaque and known is not None and known.evidence is not NOTHING:
            # A title written over the command line does not unsay it.
            look = known._replace(digest=look.digest)
        self._looks[key] = look
        self._looks.move_to_end(key)
        while len(self._looks) > _MAX_LOOKS:
            self._looks.popitem(last=False)
        return look

    def _read(self, raw: bytes) -> _Look:
        if not raw:
            return _UNSEEN
        words = split(raw)
        if not words:
            return _UNSEEN._replace(digest=hash(raw))
        text = " ".join(words)[:_MAX_TEXT] if self._keeps_text else ""
        opaque = TITLE.match(words[0]) is not None or is_sandbox(words[0])
        return _Look(hash(raw), text, opaque, is_shell(words[0]), recognise(words))


class _Subject(NamedTuple):
    """Whose model is asked for."""

    key: ProcessKey
    group: GroupKey | None
    workload: Workload
    facts: Facts | None


def _first(one: Evidence, other: Evidence) -> Evidence:
    """What ``one`` says, and of ``other`` what ``one`` leaves open."""
    if not one.model_name and other.model_name:
        one = one._replace(model_name=other.model_name, source=other.source)
    return one if one.phase else one._replace(phase=other.phase)


def _told(facts: Facts | None, options: ModelOptions) -> Evidence:
    """What the labels and annotations say; an annotation is asked first, because a label can hold no slash."""
    if facts is None:
        return NOTHING
    places = (("annotation", facts.annotations), ("label", facts.labels))
    name = source = phase = ""
    for key in options.keys:
        for kind, values in places:
            if not name and (name := harmless(values.get(key, ""))):
                source = kind
    for key in options.phase_keys:
        for _, values in places:
            value = values.get(key, "").strip().lower()
            phase = phase or (value if value in PHASES else "")
    return Evidence(name, phase, source)


def _of_pod(facts: Facts) -> Evidence:
    """What the pod asks to be run, for processes that do not show it: renamed ones, and those in a sandbox."""
    evidence = recognise(entry_point(facts))
    if evidence.model_name:
        return evidence
    named = next((name for key in evidence.environment if (name := model_name(facts.environment.get(key, "")))), "")
    return Evidence(named, evidence.phase, "environment" if named else "")
