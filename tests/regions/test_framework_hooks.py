"""Helpers for frameworks in programs of their own, which import as much of each framework as the helper calls."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.patience import patience, wait_for
from tests.support.region_server import RegionServer, Totals
from tests.support.repository import REPOSITORY

TRANSFORMERS = {
    "transformers.py": """
        class TrainerCallback:
            def on_step_begin(self, args, state, control, **kwargs): pass
            def on_step_end(self, args, state, control, **kwargs): pass

        class Arguments:
            train_batch_size = 8
            gradient_accumulation_steps = 2

        def train(callback, steps):
            assert isinstance(callback, TrainerCallback)
            for _ in range(steps):
                callback.on_step_begin(Arguments(), state=None, control=None)
                callback.on_step_end(Arguments(), state=None, control=None)
        """
}
LIGHTNING = """
    class Callback:
        def on_train_batch_start(self, trainer, module, batch, batch_idx): pass
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx): pass
        def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0): pass
        def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0): pass

    def fit(callback, steps):
        assert isinstance(callback, Callback)
        for number in range(steps):
            callback.on_train_batch_start(None, None, [1], number)
            callback.on_train_batch_end(None, None, 0.5, [1], number)
        callback.on_validation_batch_start(None, None, [1], 0)
        callback.on_validation_batch_end(None, None, 0.5, [1], 0)
    """
JAX = {
    "jax/__init__.py": """
        from . import profiler
        import time

        class Array:
            ready = False

        def block_until_ready(result):
            time.sleep(0.05)
            result.ready = True
            return result
        """,
    "jax/profiler.py": """
        import contextlib

        names = []

        @contextlib.contextmanager
        def TraceAnnotation(name):
            names.append(name)
            yield
        """,
}
TORCH = {
    "modules.py": """
        class Handle:
            def __init__(self, hooks, hook):
                self.hooks, self.hook = hooks, hook
            def remove(self):
                self.hooks.remove(self.hook)

        class Module:
            def __init__(self, fails=False, **children):
                self.fails, self.children, self.before, self.after = fails, children, [], []
            def named_modules(self, prefix=""):
                yield prefix, self
                for name, child in self.children.items():
                    yield from child.named_modules(f"{prefix}.{name}" if prefix else name)
            def register_forward_pre_hook(self, hook):
                self.before.append(hook)
                return Handle(self.before, hook)
            def register_forward_hook(self, hook, *, always_call=False):
                assert always_call, "else a module that fails stays open"
                self.after.append(hook)
                return Handle(self.after, hook)
            def __call__(self, *args):
                for hook in self.before: hook(self, args)
                try:
                    for child in self.children.values(): child(*args)
                    if self.fails: raise ValueError("of the module")
                finally:
                    for hook in self.after: hook(self, args, None)
        """
}


class Bench:
    """Writes packages, runs a program with them, and has what its regions sent."""

    def __init__(self, folder: Path, server: RegionServer) -> None:
        self._folder = folder / "packages"
        self._server = server

    def run(self, packages: dict[str, str], program: str, *, runs: str) -> Totals:
        """What is sent until runs of the region ``runs`` have arrived."""
        for name, text in packages.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        path_variable = os.pathsep.join((str(self._folder), str(REPOSITORY)))
        environment = os.environ | {"PYTHONPATH": path_variable, "AI_ENERGY_REGIONS_SOCKET": str(self._server.path)}
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
        subprocess.run(command, env=environment, check=True, timeout=patience())
        wait_for(lambda: self._server.totals().runs[runs] > 0)
        return self._server.totals()


@pytest.fixture
def bench(tmp_path: Path, server: RegionServer) -> Bench:
    return Bench(tmp_path, server)


def test_a_trainer_of_transformers(bench: Bench) -> None:
    program = """
        from transformers import train
        from exporter.regions.frameworks import trainer_callback
        train(trainer_callback(), 3)
        """
    totals = bench.run(TRANSFORMERS, program, runs="step")
    assert totals.runs["step"] == 3
    assert totals.units["step", "samples"] == 3 * 8 * 2


@pytest.mark.parametrize("module", ["lightning/pytorch", "pytorch_lightning"])
def test_a_trainer_of_lightning_under_either_name(bench: Bench, module: str) -> None:
    packages = {f"{module}/__init__.py": LIGHTNING}
    if "/" in module:
        packages["lightning/__init__.py"] = ""
    program = f"""
        from {module.replace("/", ".")} import fit
        from exporter.regions.frameworks import lightning_callback
        fit(lightning_callback(), 4)
        """
    totals = bench.run(packages, program, runs="validation")
    assert (totals.runs["step"], totals.runs["validation"]) == (4, 1)


def test_a_step_of_jax_ends_when_its_result_is_there(bench: Bench) -> None:
    program = """
        import jax
        from exporter.regions.frameworks import jax_step

        @jax_step("train")
        def train(batch):
            "One step."
            return jax.Array()

        assert train([1]).ready
        assert (train.__name__, train.__doc__, jax.profiler.names) == ("train", "One step.", ["train"])
        """
    totals = bench.run(JAX, program, runs="train")
    assert totals.runs["train"] == 1
    assert totals.seconds["train"] >= 0.05


def test_modules_of_a_model_down_to_a_depth(bench: Bench) -> None:
    program = """
        from contextlib import suppress
        from modules import Module
        from exporter.regions.frameworks import layers

        model = Module(encoder=Module(attention=Module()), broken=Module(fails=True))
        handles = layers(model)
        for _ in range(2):
            with suppress(ValueError):
                model([1])
        for handle in handles:
            handle.remove()
        with suppress(ValueError):
            model([1])
        assert not model.children["encoder"].before and not model.children["broken"].after
        """
    totals = bench.run(TORCH, program, runs="broken")
    assert {name: count for name, count in totals.runs.items() if count} == {"encoder": 2, "broken": 2}
