"""Finds the model of a process: by label, rule, command line, environment, files, or from the model server."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

from ...config.model_rules import variables
from ...host import Host
from ...records import GroupKey, Model, Process, ProcessKey, Workload
from ..metadata.container_metadata import ContainerMetadata
from ..proc import command_line, environment, process_stat
from ..shared import is_shared
from .background_lookups import NOT_FOUND, BackgroundLookups, Lookups, run_lookup
from .declared import ModelOptions, by_label, declared_command, no_label, of_variables
from .evidence import CHOSEN, NOTHING, Evidence, Lookup, Variable
from .handed import HandedWork
from .inspection import Inspection, inspect
from .lineage import ancestors, share_container, starter
from .names import harmless, place_name
from .podspec import OWNER_PHASES
from .servers import ModelServers
from .trace import Step, Trace

RECHECK_SECONDS = 5.0
"""When the command line of a new process is read again: between fork and exec it is still that of the parent."""

WORKER_RECHECK_SECONDS = 30.0
"""When a worker of Ray is read again: it is started idle, takes an actor later, and its model may start after it."""

_MAX_INSPECTIONS = 8192
_MAX_RECHECKS = 16_384
_RECHECKS_PER_TICK = 512


class _Subject(NamedTuple):
    """The process whose model is resolved."""

    key: ProcessKey
    group: GroupKey | None
    workload: Workload
    metadata: ContainerMetadata | None


class _Recheck(NamedTuple):
    due: float
    key: ProcessKey
    group: GroupKey
    digest: int


class _Watch(NamedTuple):
    """A process with a title of Ray: when it is read again, what it was, and the name that it was given."""

    due: float
    group: GroupKey
    workload: Workload
    inspection: Inspection
    name: str


class Models:
    """Resolves the model of a process from a few small files of /proc; slower lookups complete in the background.

    Called by the tick's thread only. A process without evidence of its own (a rank, an engine core, a child of
    ``multiprocessing``) inherits the model of the process that started it, within the same container and not across a
    shell. A worker that the model's processes did not start (an actor of Ray) has the only model of its container.
    Memory is bounded: an evicted inspection is repeated.
    """

    def __init__(self, host: Host, options: ModelOptions | None = None, lookups: Lookups | None = None) -> None:
        self._host = host
        self._options = options or ModelOptions()
        self._lookups: Lookups = lookups or BackgroundLookups(
            host, partial(run_lookup, key_file=self._options.key_file)
        )
        self._handed = HandedWork(host)
        self._trace = Trace()
        self.servers = ModelServers(host)
        self._variables = variables(self._options.rules)
        self._keeps_text = any(rule.reads_command for rule in self._options.rules)
        self._inspections: OrderedDict[ProcessKey, Inspection] = OrderedDict()
        self._rechecks: deque[_Recheck] = deque(maxlen=_MAX_RECHECKS)
        self._watched: OrderedDict[ProcessKey, _Watch] = OrderedDict()

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
        if inspection.evidence.server is not None:
            self.servers.learn(process, group, inspection.evidence, metadata)
        subject = _Subject(key, group, workload, metadata)
        found = by_label(metadata, self._options)
        if self._trace.on:
            missing = no_label(metadata, self._options)
            self._trace.add("annotations and labels", found.model_name, found.phase, missing, found.variant)
        handed: Model | None = None
        if not (found.model_name and found.phase):
            found, worker = self._complete(found, inspection, subject)
            if worker is not None and not found.model_name:
                handed = self._of_worker(*worker, subject)
        if handed is not None:
            found = found.merged(Evidence(handed.model_name, handed.phase, handed.source, variant=handed.variant))
        if found.model_name and not found.variant and found.source in CHOSEN:
            found = found.merged(self._variant_of_container(inspection, subject))
        if inspection.changes and group is not None:
            self._watch(key, group, workload, inspection, found.model_name)
        if not found.model_name:
            return None
        owner_kind = (metadata.owner_kind if metadata is not None else "") or workload.owner_kind
        phase = found.phase or OWNER_PHASES.get(owner_kind, "unknown")
        model = Model(found.model_name, workload.namespace, phase, found.source, found.variant)
        if handed is None:
            self._handed.add(workload, model, key)
        return model

    def explain(
        self, process: Process, group: GroupKey | None, workload: Workload, metadata: ContainerMetadata | None = None
    ) -> tuple[Model | None, list[Step]]:
        """Resolve a process; returns its model and everything that was looked at, in order."""
        self._trace.on, self._trace.steps = True, []
        if process.kernel:
            self._trace.note("process", "a thread of the kernel")
        try:
            return self.resolve(process, group, workload, metadata), self._trace.steps
        finally:
            self._trace.on = False

    def changed(self) -> Collection[GroupKey]:
        """Groups of the processes whose model may have changed since the last call."""
        groups = self._lookups.completed()
        groups |= self._handed.changed()
        now = self._host.clock()
        for _ in range(_RECHECKS_PER_TICK):
            if not self._rechecks or self._rechecks[0].due > now:
                break
            recheck = self._rechecks.popleft()
            raw = command_line(self._host, recheck.key.pid)
            if raw and hash(raw) != recheck.digest:
                groups.add(recheck.group)
        if self._watched:
            groups |= self._changed_workers(now)
        return groups

    def close(self) -> None:
        """Stop the background lookups."""
        self._lookups.close()

    # --- evidence -----------------------------------------------------------------------------------

    def _complete(
        self, labelled: Evidence, inspection: Inspection, subject: _Subject
    ) -> tuple[Evidence, tuple[ProcessKey, str] | None]:
        """Complete the evidence of labels by that of the process, its ancestors, and the specification of its pod.

        The second value is the worker that it is or was started by, with its kind, None if there is none.
        """
        own = labelled.merged(self._of_process(inspection, subject.key, subject))
        if own.model_name and own.phase:
            # The pid may have been reused between two reads.
            stat = process_stat(self._host, subject.key.pid)
            return own if labelled.model_name or (stat is not None and stat.key == subject.key) else labelled, None
        inherited, worker = self._inherited(subject)
        if inspection.worker:
            worker = (subject.key, inspection.worker)
        joined = own.merged(inherited)
        if not joined.model_name and subject.metadata is not None and inspection.opaque:
            pod = declared_command(subject.metadata)
            missing = pod.why or "no known program with a model"
            self._trace.add("command of the pod's specification", pod.model_name, pod.phase, missing, pod.variant)
            joined = joined.merged(pod)
        return joined, worker

    def _inherited(self, subject: _Subject) -> tuple[Evidence, tuple[ProcessKey, str] | None]:
        joined, worker, last = NOTHING, None, subject.key
        for key in ancestors(self._host, subject.key):
            inspection = self._inspect(key)
            last = key
            if inspection.shell or joined.model_name:
                if inspection.shell:
                    self._trace.note(f"process {key.pid} above it", "a shell, which starts unrelated programs")
                break
            found = self._of_process(inspection, key, subject)
            if (found.model_name or found.phase or (inspection.worker and worker is None)) and not share_container(
                self._host, subject.key, key
            ):
                self._trace.note(f"process {key.pid} above it", "in another container, or its cgroup cannot be read")
                break
            if inspection.worker and worker is None:
                worker = (key, inspection.worker)
            joined = joined.merged(found)
        else:
            if self._trace.on and (above := starter(self._host, last)) is not None:
                self._trace.note(f"process {above.key.pid} above it", f"{above.comm} starts unrelated programs")
        return joined, worker

    def _of_worker(self, key: ProcessKey, kind: str, subject: _Subject) -> Model | None:
        """The model of work that was handed to a worker by a program which did not start it."""
        found = self._handed.find(subject.workload, key, kind, subject.group)
        if self._trace.on:
            names = [model.model_name for model in self._handed.models(subject.workload)]
            missing = (
                f"{len(names)} models in its container: {', '.join(names)}" if names else "no model in its container"
            )
            if is_shared(subject.workload):
                missing = "its row collects unrelated work"
            name, phase = (found.model_name, found.phase) if found is not None else ("", "")
            self._trace.add(f"process {key.pid}, a worker of {kind}", name, phase, missing)
        return found

    def _watch(self, key: ProcessKey, group: GroupKey, workload: Workload, inspection: Inspection, name: str) -> None:
        watched = self._watched.get(key)
        due = watched.due if watched is not None else self._host.clock() + WORKER_RECHECK_SECONDS
        self._watched[key] = _Watch(due, group, workload, inspection, name)
        if len(self._watched) > _MAX_RECHECKS:
            self._watched.popitem(last=False)

    def _changed_workers(self, now: float) -> set[GroupKey]:
        """Groups of Ray's processes that work on something else by now, or whose model started or ended."""
        groups = set()
        names: dict[Workload, list[str]] = {}  # of the models in a container, looked up once for all its workers
        for _ in range(_RECHECKS_PER_TICK):
            key = next(iter(self._watched), None)
            if key is None or self._watched[key].due > now:
                break
            watch = self._watched.pop(key)
            raw = command_line(self._host, key.pid)
            if not raw:
                continue
            old = watch.inspection
            new = inspect(raw, keep_text=self._keeps_text) if hash(raw) != old.digest else old
            self._watched[key] = watch._replace(
                due=now + WORKER_RECHECK_SECONDS, inspection=old._replace(digest=new.digest)
            )
            changed = (new.evidence, new.worker) != (old.evidence, old.worker)
            if not changed and old.worker:
                if watch.workload not in names:
                    names[watch.workload] = [model.model_name for model in self._handed.models(watch.workload)]
                live = names[watch.workload]
                changed = watch.name not in live if watch.name else len(live) == 1
            if changed:
                groups.add(watch.group)
        return groups

    def _of_process(self, inspection: Inspection, key: ProcessKey, subject: _Subject) -> Evidence:
        """Evidence of one process by rule, command line, environment and lookups."""
        found = self._by_rule(inspection, key, subject)
        if found.model_name and found.phase:
            self._trace_process(inspection, key, subject, found, None)
            return found
        own = inspection.evidence
        of_environment = None
        if not own.model_name and own.environment:
            of_environment = self._by_environment(own.environment, key, subject)
            own = own.merged(of_environment)
        self._trace_process(inspection, key, subject, found, of_environment)
        if not (found.model_name or own.model_name):
            own = own.merged(self._by_lookup(own.lookups, key, subject.group))
        if found.model_name or own.model_name:
            own = self._with_variant_of_weights(own, key, subject.group)
        return found.merged(own)

    def _variant_of_container(self, inspection: Inspection, subject: _Subject) -> Evidence:
        """The variant for a name that was chosen for all processes of a container.

        By the command that its specification has, which is the same for all of them, else by the command line of the
        process or of the nearest one above it that says one.
        """
        if subject.metadata is not None:
            declared = declared_command(subject.metadata)
            if declared.variant:
                self._trace.add("command of the specification", "", variant=declared.variant)
                return Evidence(variant=declared.variant)
        own = self._with_variant_of_weights(inspection.evidence, subject.key, subject.group)
        if own.variant:
            self._trace.add("its command line", "", variant=own.variant)
            return Evidence(variant=own.variant)
        for key in ancestors(self._host, subject.key):
            above = self._inspect(key)
            if above.shell:
                break
            found = self._with_variant_of_weights(above.evidence, key, subject.group)
            if found.variant:
                if not share_container(self._host, subject.key, key):
                    break
                self._trace.add(f"process {key.pid} above it", "", variant=found.variant)
                return Evidence(variant=found.variant)
        return NOTHING

    def _with_variant_of_weights(self, own: Evidence, key: ProcessKey, group: GroupKey | None) -> Evidence:
        """Evidence with the variant in the config of its weights, where its arguments say none."""
        if own.variant or not own.weights:
            return own
        variant = self._lookups.name(key, Lookup("weights", own.weights), group)
        self._trace.add(f"config.json in {own.weights}", "", missing=NOT_FOUND["weights"], variant=variant)
        return own._replace(variant=variant)

    def _trace_process(
        self, inspection: Inspection, key: ProcessKey, subject: _Subject, rule: Evidence, variables: Evidence | None
    ) -> None:
        if not self._trace.on:
            return
        of = "its" if key == subject.key else f"process {key.pid} above it:"
        if self._options.rules:
            self._trace.add(f"{of} rule", rule.model_name, rule.phase, "none matches", rule.variant)
        if not (rule.model_name and rule.phase):
            own = inspection.evidence
            self._trace.add(f"{of} command line", own.model_name, own.phase, inspection.missing, own.variant)
            if variables is not None:
                names = ", ".join(variable.name for variable in own.environment)
                self._trace.add(f"{of} variables {names}", variables.model_name, missing="not set, or not readable")

    def _by_rule(self, inspection: Inspection, key: ProcessKey, subject: _Subject) -> Evidence:
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
                name, variant = harmless(claim.model_name), harmless(claim.variant)
                found = found.merged(Evidence(name, claim.phase, "rule" if name else "", variant=variant))
            if found.model_name and found.phase:
                break
        return found

    def _by_environment(self, variables: Sequence[Variable], key: ProcessKey, subject: _Subject) -> Evidence:
        values: Mapping[str, str] = environment(self._host, key.pid, [variable.name for variable in variables])
        if not values and subject.metadata is not None:
            values = subject.metadata.environment
        return of_variables(variables, values)

    def _by_lookup(self, lookups: Sequence[Lookup], key: ProcessKey, group: GroupKey | None) -> Evidence:
        for lookup in lookups:
            from_server = lookup.kind == "server"
            if from_server and not self._options.ask_servers:
                self._trace.note(f"GET /v1/models on port {lookup.value}", "not sent: models.ask-servers is off")
                continue
            name = self._lookups.name(key, lookup, group)
            self._trace.add(f"{lookup.kind} {lookup.value}", name, missing=NOT_FOUND[lookup.kind])
            if name:
                return Evidence(name, source="server" if from_server else "file")
        return NOTHING

    def _variables_of(self, key: ProcessKey, metadata: ContainerMetadata | None) -> Mapping[str, str]:
        """Values of the variables in the rules, and of no others."""
        specified = metadata.environment if metadata is not None else {}
        literal = {name: specified[name] for name in self._variables if name in specified}
        return literal | environment(self._host, key.pid, self._variables)

    # --- command lines ------------------------------------------------------------------------------

    def _inspect(self, key: ProcessKey) -> Inspection:
        raw = command_line(self._host, key.pid)
        known = self._inspections.get(key)
        if known is not None and known.digest == hash(raw):
            self._inspections.move_to_end(key)
            return known
        inspection = inspect(raw, keep_text=self._keeps_text)
        if inspection.opaque and known is not None and known.evidence is not NOTHING:
            # A title written over the command line does not change the model.
            inspection = known._replace(digest=inspection.digest)
        self._inspections[key] = inspection
        self._inspections.move_to_end(key)
        while len(self._inspections) > _MAX_INSPECTIONS:
            self._inspections.popitem(last=False)
        return inspection
