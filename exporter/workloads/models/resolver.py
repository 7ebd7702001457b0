"""Finds the model of a process: by label, rule, command line, environment, files, or from the model server."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ...config.model_rules import PHASES, ModelRule, variables
from ...host import Host
from ...records import GroupKey, Model, Process, ProcessKey, Workload
from ..metadata.container_metadata import ContainerMetadata
from .background_lookups import BackgroundLookups
from .commandline import TITLE, is_shell, split
from .evidence import NOTHING, Evidence, Lookup, Variable
from .lineage import ancestors, share_container
from .names import harmless, place_name
from .podspec import OWNER_PHASES, entry_point, is_sandbox
from .proc import command_line, environment, process_stat
from .recognise import recognise

RECHECK_SECONDS = 5.0
"""When the command line of a new process is read again: between fork and exec it is still that of the parent."""

_MAX_INSPECTIONS = 8192
_MAX_RECHECKS = 16_384
_RECHECKS_PER_TICK = 512
_MAX_TEXT = 4096


class ModelOptions(NamedTuple):
    """Options; ``keys`` and ``phase_keys`` are names of labels or annotations. See the settings table."""

    rules: Sequence[ModelRule] = ()
    keys: Sequence[str] = ()
    phase_keys: Sequence[str] = ()
    ask_servers: bool = False


class _Inspection(NamedTuple):
    """Evidence of one command line. ``text`` is kept only if a rule matches on it, and never exported.

    ``opaque``: the process hides its command line (a title, a sandbox, an empty one). ``shell``: it is a shell.
    """

    digest: int
    text: str
    opaque: bool
    shell: bool
    evidence: Evidence


_UNSEEN = _Inspection(0, "", opaque=True, shell=False, evidence=NOTHING)


class _Recheck(NamedTuple):
    due: float
    key: ProcessKey
    group: GroupKey
    digest: int


class Models:
    """Resolves the model of a process from a few small files of /proc; slower lookups complete in the background.

    Called by the tick's thread only. A process without evidence of its own (a rank, an engine core, a child of
    ``multiprocessing``) inherits the model of the process that started it, within the same container and not across a
    shell. Memory is bounded: an evicted inspection is repeated.
    """

    def __init__(
        self, host: Host, options: ModelOptions | None = None, lookups: BackgroundLookups | None = None
    ) -> None:
        self._host = host
        self._options = options or ModelOptions()
        self._lookups = lookups or BackgroundLookups(host)
        self._variables = variables(self._options.rules)
        self._keeps_text = any(rule.reads_command for rule in self._options.rules)
        self._inspections: OrderedDict[ProcessKey, _Inspection] = OrderedDict()
        self._rechecks: deque[_Recheck] = deque(maxlen=_MAX_RECHECKS)

    def resolve(
        self, process: Process, group: GroupKey | None, workload: Workload, metadata: ContainerMetadata | None = None
    ) -> Model | None:
        """Model of a process, None if it is not known to work for one. Never raises."""
        if process.kernel:
            return None
        key = process.key
        known = key in self._inspections
        inspection = self._inspect(key)
        if group is not None and not known:
            self._rechecks.append(_Recheck(self._host.clock() + RECHECK_SECONDS, key, group, inspection.digest))
        found = _by_label(metadata, self._options)
        if not (found.model_name and found.phase):
            found = self._complete(found, inspection, _Subject(key, group, workload, metadata))
        if not found.model_name:
            return None
        owner_kind = (metadata.owner_kind if metadata is not None else "") or workload.owner_kind
        phase = found.phase or OWNER_PHASES.get(owner_kind, "unknown")
        return Model(found.model_name, workload.namespace, phase, found.source)

    def changed(self) -> Collection[GroupKey]:
        """Groups of the processes whose model may have changed since the last call."""
        groups = self._lookups.completed()
        now = self._host.clock()
        for _ in range(_RECHECKS_PER_TICK):
            if not self._rechecks or self._rechecks[0].due > now:
                break
            recheck = self._rechecks.popleft()
            raw = command_line(self._host, recheck.key.pid)
            if raw and hash(raw) != recheck.digest:
                groups.add(recheck.group)
        return groups

    def close(self) -> None:
        """Stop the background lookups."""
        self._lookups.close()

    # --- evidence -----------------------------------------------------------------------------------

    def _complete(self, labelled: Evidence, inspection: _Inspection, subject: _Subject) -> Evidence:
        """Complete the evidence of labels by that of the process, its ancestors, and the specification of its pod."""
        own = _merge(labelled, self._of_process(inspection, subject.key, subject))
        if own.model_name and own.phase:
            # The pid may have been reused between two reads.
            stat = process_stat(self._host, subject.key.pid)
            return own if labelled.model_name or (stat is not None and stat.key == subject.key) else labelled
        inherited = self._inherited(subject)
        joined = _merge(own, inherited)
        if not joined.model_name and subject.metadata is not None and inspection.opaque:
            joined = _merge(joined, _of_pod(subject.metadata))
        return joined

    def _inherited(self, subject: _Subject) -> Evidence:
        joined = NOTHING
        for key in ancestors(self._host, subject.key):
            inspection = self._inspect(key)
            if inspection.shell or joined.model_name:
                break
            found = self._of_process(inspection, key, subject)
            if found.model_name or found.phase:
                if not share_container(self._host, subject.key, key):
                    break
                joined = _merge(joined, found)
        return joined

    def _of_process(self, inspection: _Inspection, key: ProcessKey, subject: _Subject) -> Evidence:
        """Evidence of one process by rule, command line, environment and lookups."""
        found = self._by_rule(inspection, key, subject)
        if found.model_name and found.phase:
            return found
        own = inspection.evidence
        if not own.model_name and own.environment:
            own = _merge(own, self._by_environment(own.environment, key, subject))
        if not (found.model_name or own.model_name):
            own = _merge(own, self._by_lookup(own.lookups, key, subject.group))
        return _merge(found, own)

    def _by_rule(self, inspection: _Inspection, key: ProcessKey, subject: _Subject) -> Evidence:
        if not self._options.rules:
            return NOTHING
        workload, metadata = subject.workload, subject.metadata
        values = {
            "namespace": workload.namespace,
            "pod": workload.pod,
            "container": workload.container,
            "image": workload.image or (metadata.image if metadata is not None else ""),
            "command": inspection.text,
        }

        @cache
        def variables_set() -> Mapping[str, str]:
            return self._variables_of(key, metadata)

        found = NOTHING
        for rule in self._options.rules:
            claim = rule.match(values, lambda name: variables_set().get(name, ""), place_name)
            if claim is not None:
                name = harmless(claim.model_name)
                found = _merge(found, Evidence(name, claim.phase, "rule" if name else ""))
            if found.model_name and found.phase:
                break
        return found

    def _by_environment(self, variables: Sequence[Variable], key: ProcessKey, subject: _Subject) -> Evidence:
        values: Mapping[str, str] = environment(self._host, key.pid, [variable.name for variable in variables])
        if not values and subject.metadata is not None:
            values = subject.metadata.environment
        return _of_variables(variables, values)

    def _by_lookup(self, lookups: Sequence[Lookup], key: ProcessKey, group: GroupKey | None) -> Evidence:
        for lookup in lookups:
            from_server = lookup.kind == "server"
            if from_server and not self._options.ask_servers:
                continue
            if name := self._lookups.name(key, lookup, group):
                return Evidence(name, source="server" if from_server else "file")
        return NOTHING

    def _variables_of(self, key: ProcessKey, metadata: ContainerMetadata | None) -> Mapping[str, str]:
        """Values of the variables in the rules, and of no others."""
        specified = metadata.environment if metadata is not None else {}
        literal = {name: specified[name] for name in self._variables if name in specified}
        return literal | environment(self._host, key.pid, self._variables)

    # --- command lines ------------------------------------------------------------------------------

    def _inspect(self, key: ProcessKey) -> _Inspection:
        raw = command_line(self._host, key.pid)
        known = self._inspections.get(key)
        if known is not None and known.digest == hash(raw):
            self._inspections.move_to_end(key)
            return known
        inspection = self._read(raw)
        if inspection.opaque and known is not None and known.evidence is not NOTHING:
            # A title written over the command line does not change the model.
            inspection = known._replace(digest=inspection.digest)
        self._inspections[key] = inspection
        self._inspections.move_to_end(key)
        while len(self._inspections) > _MAX_INSPECTIONS:
            self._inspections.popitem(last=False)
        return inspection

    def _read(self, raw: bytes) -> _Inspection:
        if not raw:
            return _UNSEEN
        words = split(raw)
        if not words:
            return _UNSEEN._replace(digest=hash(raw))
        text = " ".join(words)[:_MAX_TEXT] if self._keeps_text else ""
        opaque = TITLE.match(words[0]) is not None or is_sandbox(words[0])
        return _Inspection(hash(raw), text, opaque, is_shell(words[0]), recognise(words))


class _Subject(NamedTuple):
    """The process whose model is resolved."""

    key: ProcessKey
    group: GroupKey | None
    workload: Workload
    metadata: ContainerMetadata | None


def _merge(one: Evidence, other: Evidence) -> Evidence:
    """``one``, with what it lacks taken from ``other``."""
    if not one.model_name and other.model_name:
        one = one._replace(model_name=other.model_name, source=other.source)
    return one if one.phase else one._replace(phase=other.phase)


def _by_label(metadata: ContainerMetadata | None, options: ModelOptions) -> Evidence:
    """Evidence of annotations and labels; an annotation takes precedence, because a label cannot contain a slash."""
    if metadata is None:
        return NOTHING
    places = (("annotation", metadata.annotations), ("label", metadata.labels))
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


def _of_pod(metadata: ContainerMetadata) -> Evidence:
    """Evidence of the pod's command, for processes that hide theirs: those with a title, and those in a sandbox."""
    evidence = recognise(entry_point(metadata))
    if evidence.model_name:
        return evidence
    return _of_variables(evidence.environment, metadata.environment)._replace(phase=evidence.phase)


def _of_variables(variables: Sequence[Variable], values: Mapping[str, str]) -> Evidence:
    for variable in variables:
        if name := variable.model_name(values.get(variable.name, "")):
            return Evidence(name, source="environment")
    return NOTHING
