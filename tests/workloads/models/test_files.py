"""Names from files of a process: Ollama manifests, a Triton repository, YAML; and that no link leaves its root."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from exporter.records import Process
from exporter.workloads.models.background_lookups import run_lookup
from exporter.workloads.models.evidence import Lookup
from exporter.workloads.models.files import configured_name, mlserver_name, ollama_name, triton_name
from exporter.workloads.models.process_root import ProcessRootFs
from exporter.workloads.models.recognise import recognise

DIGEST = "dde5aa3fc5ffc17176b5e8bdc82f587b24b2678c6c66101bf7da77af9f7ccdff"
MODELS = "root/.ollama/models"
BLOB = f"/{MODELS}/blobs/sha256-{DIGEST}"


class Container:
    """The file system of process 10: its root, and its working folder below that."""

    def __init__(self, proc: Any) -> None:
        self.process: Process = proc.add(10, ["x"])
        self.host = proc.host
        self.root: Path = proc.root.parent / "rootfs"
        (self.root / "work").mkdir(parents=True)
        (proc.root / "10/root").symlink_to(self.root)
        (proc.root / "10/cwd").symlink_to(self.root / "work")

    @property
    def files(self) -> ProcessRootFs:
        """The files as the exporter reads them."""
        return ProcessRootFs(self.host.procfs, 10)

    def write(self, path: str, content: str) -> None:
        """Write a file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def manifest(self, path: str, digest: str = DIGEST) -> None:
        """Write one of Ollama's manifests."""
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
        other = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64}
        self.write(f"{MODELS}/manifests/{path}", json.dumps({"schemaVersion": 2, "layers": [other, layer]}))


@pytest.fixture
def container(proc: Any) -> Container:
    """A process with its own root."""
    return Container(proc)


class TestOllama:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("registry.ollama.ai/library/llama3.2/3b", "llama3.2:3b"),
            ("registry.ollama.ai/acme/support/latest", "acme/support:latest"),
            ("hf.co/bartowski/Llama-3.2-1B-GGUF/Q4_K_M", "hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"),
        ],
    )
    def test_a_blob_has_the_name_of_its_manifest(self, container: Container, path: str, expected: str) -> None:
        container.manifest("registry.ollama.ai/library/other/1b", "f" * 64)
        container.manifest(path)
        assert ollama_name(container.files, BLOB) == expected
        assert run_lookup(container.host, 10, Lookup("ollama", BLOB)) == expected

    def test_of_several_names_the_one_that_says_most(self, container: Container) -> None:
        for tag in ("latest", "3b-instruct-q4_K_M", "3b"):
            container.manifest(f"registry.ollama.ai/library/llama3.2/{tag}")
        assert ollama_name(container.files, BLOB) == "llama3.2:3b"

    def test_without_a_manifest_there_is_no_name(self, container: Container) -> None:
        """A digest is no name: two nodes, or two pulls, would show one model under two of them."""
        assert ollama_name(container.files, BLOB) == ""
        container.write(f"{MODELS}/manifests/registry.ollama.ai/library/x/1b", "[not JSON")
        container.write(f"{MODELS}/manifests/registry.ollama.ai/library/y/1b", '{"layers": [3]}')
        container.write(f"{MODELS}/manifests/stray", "x")
        assert ollama_name(container.files, BLOB) == ""

    @pytest.mark.parametrize("blob", [f"/m/blobs/sha256-{DIGEST[:12]}", f"/models/{DIGEST}", f"/blobs/sha256/{DIGEST}"])
    def test_nor_where_the_store_is_laid_out_otherwise(self, container: Container, blob: str) -> None:
        assert ollama_name(container.files, blob) == ""

    def test_a_model_that_is_no_blob_is_named_by_its_file(self, container: Container) -> None:
        assert ollama_name(container.files, "/m/phi-4.gguf") == "phi-4"

    def test_thousands_of_manifests_have_an_end(self, container: Container) -> None:
        for number in range(1200):
            container.write(f"{MODELS}/manifests/r/{number % 3}/n/{number}", "{}")
        assert ollama_name(container.files, BLOB) == ""


class TestTriton:
    def test_the_only_model_of_a_repository(self, container: Container) -> None:
        container.write("models/densenet/1/model.onnx", "")
        container.write("models/.cache/x", "")
        container.write("models/lost+found/x", "")
        container.write("models/README", "")
        assert run_lookup(container.host, 10, Lookup("triton", "/models")) == "densenet"
        container.write("models/resnet/1/model.onnx", "")
        assert triton_name(container.files, "/models") == ""

    def test_a_repository_that_is_elsewhere(self, container: Container) -> None:
        assert triton_name(container.files, "s3://bucket/models") == triton_name(container.files, "/none") == ""


class TestMlserver:
    """MLServer 1.7.1 reads every ``model-settings.json`` in and below the folder that it is started with."""

    @pytest.mark.parametrize(
        ("settings", "started", "expected"),
        [
            ({"iris/model-settings.json": '{"name": "iris-classifier"}'}, "iris", "iris-classifier"),
            ({"iris/model-settings.json": '{"name": "iris-classifier"}'}, "./iris/", "iris-classifier"),
            ({"model-settings.json": '{\n  "implementation": "m.Iris",\n  "name": "iris"}'}, ".", "iris"),
            ({"models/a/model-settings.json": '{"name": "a/1"}'}, "/work/models", "a/1"),
            ({"models/llama/model-settings.json": '{"implementation": "m.Llama"}'}, "models", "llama"),
            ({"model-settings.json": '{"implementation": "m.Llama"}'}, ".", ""),
            ({"m/a/model-settings.json": '{"name": "a"}', "m/b/model-settings.json": '{"name": "b"}'}, "m", ""),
            ({"m/model-settings.json": '{"name": "$MODEL"}'}, "m", ""),
            ({"m/settings.json": '{"name": "no-model"}'}, "m", ""),
            ({"m/llama/model-settings.json": '["llama"]'}, "m", ""),
            ({"m/llama/model-settings.json": '{"name": '}, "m", ""),
            ({"m/llama/model-settings.json": "null"}, "m", ""),
            ({}, "m", ""),
        ],
    )
    def test_the_only_model_of_a_repository(
        self, container: Container, settings: dict[str, str], started: str, expected: str
    ) -> None:
        for path, content in settings.items():
            container.write(f"work/{path}", content)
        (lookup,) = recognise(["mlserver", "start", started]).lookups
        assert run_lookup(container.host, 10, lookup) == expected
        assert mlserver_name(container.files, started) == expected


class TestArgumentsInAFile:
    """``HfArgumentParser`` of transformers 5.24.0 and ``TrlParser`` of TRL 1.16.0 take all arguments from a file."""

    @pytest.mark.parametrize(
        ("command", "phase"),
        [
            ("python finetune.py args.json", "training"),
            ("python run_clm.py args.json", ""),
            ("python scripts/run_sft.py args.json --learning_rate 1e-5", "training"),
            ("torchrun --nproc-per-node 8 main.py args.json", "training"),
            ("accelerate launch --num-processes 8 -m acme.tuning --config args.json", "training"),
        ],
    )
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ('{"model_name_or_path": "acme/tiny-llama", "max_steps": 10}', "acme/tiny-llama"),
            ('{\n  "output_dir": "out",\n  "model_name_or_path": "/models/llama-7b/"\n}', "llama-7b"),
            ("output_dir: out\nmodel_name_or_path: acme/tiny-llama  # small\n", "acme/tiny-llama"),
            ('{"model": {"model_name_or_path": "acme/tiny-llama"}}', ""),
            ('{"model_name_or_path": ["a", "b"]}', ""),
            ('{"model_name_or_path": "$MODEL"}', ""),
            ('{"lr": 1}', ""),
            ('{"model_name_or_path": "acme/cut-off', ""),
            ("{" * 20_000, ""),
        ],
    )
    def test_the_model_of_a_script(
        self, container: Container, command: str, phase: str, content: str, expected: str
    ) -> None:
        container.write("work/args.json", content)
        found = recognise(command.split())
        assert (found.model_name, found.phase) == ("", phase)
        assert [run_lookup(container.host, 10, lookup) for lookup in found.lookups] == [expected]

    @pytest.mark.parametrize(
        "command", ["python run_clm.py data.csv", "python run_clm.py --data args.json", "python -m http.server a.json"]
    )
    def test_other_files_are_not_read(self, command: str) -> None:
        assert recognise(command.split()).lookups == ()


class TestConfigured:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("base_model: Qwen/Qwen2.5-7B\n", "Qwen/Qwen2.5-7B"),
            ("# base_model: a/b\nbase_model:   'Qwen/Qwen2.5-7B'  # the best\n", "Qwen/Qwen2.5-7B"),
            ('"base_model": Qwen/Qwen2.5-7B\r\n', "Qwen/Qwen2.5-7B"),
            ("model: a/b\nbase_model: Qwen/Qwen2.5-7B\n", "Qwen/Qwen2.5-7B"),
            ("model: a/b\n", "a/b"),
            ("base_model: [Qwen/Qwen2.5-7B, a/b]\n", "Qwen/Qwen2.5-7B"),
            ("datasets:\n  base_model: a/b\n", ""),
            ("base_model_config: a/b\n", ""),
            ("base_model:\n  - a/b\n  - c/d\n", "a/b"),
            ("base_model: # of two\n\n- 'a/b' # the first\n", "a/b"),
            ("base_model:\n  - name: a/b\nmodel: c/d\n", ""),
            ("base_model:\n  name: a/b\nmodel: c/d\n", ""),
            ("base_model: |\n  a/b\nmodel: c/d\n", ""),
            ("base_model: *anchor\nmodel: c/d\n", ""),
            ("base_model: {name: a/b}\nmodel: c/d\n", ""),
            ("base_model: null\n- c/d\n", ""),
            ("base_model:\nmodel: c/d\n", ""),
            ("base_model: a/b\nbase_model: c/d\n", "c/d"),
            ("base_model: ${MODEL}\n", ""),
            ("", ""),
            ("\x00\x01\u202e", ""),
        ],
    )
    def test_a_key_of_the_top_level(self, container: Container, content: str, expected: str) -> None:
        container.write("work/conf/c.yml", content)
        lookup = Lookup("config", "conf/c.yml", ("base_model", "model"))
        assert run_lookup(container.host, 10, lookup) == expected
        assert configured_name(container.files, "/work/conf/c.yml", lookup.keys) == expected

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("model: Qwen/Qwen3-4B\nserved-model-name: chat\nport: 8000\n", "chat"),
            ("model: Qwen/Qwen3-4B\nserved-model-name:\n  - chat\n  - chat-latest\n", "chat"),
            ('model: "Qwen/Qwen3-4B"\nserved-model-name: ["chat", "b"]\n', "chat"),
            ("# model: old/one\nmodel: Qwen/Qwen3-4B # the big one\n", "Qwen/Qwen3-4B"),
            ("served_model_name: team/prod/llama\nmodel: /models/x\n", "team/prod/llama"),
            ("served-model-name: a,b\nmodel: /models/x\n", "a_b~9c7bdf1e"),
            ("served-model-name:\nport: 8000\nmodel: /models/x\n", ""),
        ],
    )
    def test_the_served_name_of_vllm(self, container: Container, content: str, expected: str) -> None:
        """vllm-project/vllm#40112: several served names, of which the metrics have the first."""
        container.write("work/c.yml", content)
        lookup = recognise(["vllm", "serve", "--config", "c.yml"]).lookups[0]
        assert run_lookup(container.host, 10, lookup) == expected

    def test_a_file_that_cannot_be_read(self, container: Container) -> None:
        assert configured_name(container.files, "none.yml", ["model"]) == ""
        assert configured_name(ProcessRootFs(container.host.procfs, 11), "c.yml", ["model"]) == ""


class TestProcessRootFs:
    """Links in a container cannot lead to files of the host."""

    def test_links_are_followed_within_the_root(self, container: Container) -> None:
        """As Kubernetes mounts a ConfigMap: c.yml → ..data/c.yml, ..data → ..2024."""
        container.write("etc/conf/..2024/c.yml", "in")
        (container.root / "etc/conf/..data").symlink_to("..2024")
        (container.root / "etc/conf/c.yml").symlink_to("..data/c.yml")
        (container.root / "work/abs.yml").symlink_to("/etc/conf/c.yml")
        (container.root / "work/up.yml").symlink_to("../etc/conf/c.yml")
        assert container.files.read("/etc/conf/c.yml", 10) == b"in"
        assert container.files.read("abs.yml", 10) == b"in"
        assert container.files.read("/work/up.yml", 10) == b"in"
        assert container.files.read("/work/../etc//conf/./c.yml", 1) == b"i"

    def test_no_link_and_no_dots_leave_the_root(self, container: Container, tmp_path: Path) -> None:
        secret = tmp_path / "secret.yml"
        secret.write_text("model: host-secret")
        for name, target in (("abs", str(secret)), ("up", "../../../../../.." + str(secret)), ("root", "/../..")):
            (container.root / name).symlink_to(target)
        for path in ("/abs", "/up", f"/root{secret}", f"/../../../..{secret}", f"../../../../..{secret}"):
            with pytest.raises(OSError, match="No such file"):
                container.files.read(path, 100)

    def test_only_regular_files_are_read(self, container: Container) -> None:
        os.mkfifo(container.root / "pipe")
        (container.root / "loop").symlink_to("loop")
        for path in ("/pipe", "/work", "/loop", "/pipe/x"):
            with pytest.raises(OSError, match=r"regular|links|directory"):
                container.files.read(path, 100)

    def test_no_descriptor_is_left(self, container: Container) -> None:
        """Fault 60."""
        container.write("a/b/c.yml", "x")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            container.files.read("/a/b/c.yml", 10)
            container.files.entries("/a", 10)
            for path in ("/a/none", "/a/b/c.yml/d", "/loop"):
                with pytest.raises(OSError):  # noqa: PT011 - whichever it is
                    container.files.read(path, 10)
        assert len(os.listdir("/proc/self/fd")) == before
