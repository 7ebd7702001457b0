"""Parsing of command lines: wrappers, interpreters, shells, and options of unknown programs."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.workloads.models.arguments import Arguments, normal_option
from exporter.workloads.models.commandline import Command, commands, is_shell, split
from exporter.workloads.models.launchers import CALLS, LAUNCHERS
from exporter.workloads.models.recognise import recognise
from exporter.workloads.models.wrappers import WRAPPERS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "b"], [Command("a", ("b",))]),
        (["/opt/a b/prog", "x"], [Command("prog", ("x",))]),
        (["python3.12", "-u", "-X", "dev", "x.py", "-m"], [Command("x.py", ("-m",))]),
        (["python", "-mtorch.distributed.run", "t.py"], [Command("t.py", (), ranks=True)]),
        (["python", "/usr/bin/torchrun", "--nnodes", "2", "t.py", "-x"], [Command("t.py", ("-x",), ranks=True)]),
        (["torchrun", "--no-python", "prog", "x"], [Command("prog", ("x",), ranks=True)]),
        (["torchrun", "-m", "a.b", "x"], [Command("-m a.b", ("x",), ranks=True)]),
        (["python", "-c", "import x"], []),
        (["python", "-Ic", "import x"], []),
        (["python", "-"], []),
        (["uv", "pip", "install", "vllm"], []),
        (["uv", "--quiet", "run", "--", "a"], [Command("a", ())]),
        (["env", "-u", "X", "A=b", "a", "C=d"], [Command("a", ("C=d",))]),
        (["sh", "-c", "A=b a; c && d | e & f"], [Command(name, ()) for name in "acdef"]),
        (["sh", "-c", "a 'b;c' \"d e\""], [Command("a", ("b;c", "d e"))]),
        (["sh", "-c", "a # b"], [Command("a", ("#", "b"))]),
        (["bash", "-c", "--", "a b"], [Command("a", ("b",))]),
        (["bash", "script.sh", "-c", "a"], []),
        (["sh", "-c", "sh -c 'sh -c \"a\"'"], [Command("a", ())]),
        (["sh", "-c", ""], []),
        (["sh", "-c"], []),
        (["tini"], []),
        ([], []),
    ],
)
def test_the_programs_that_are_started(words: list[str], expected: list[Command]) -> None:
    assert commands(words) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (r"""a "b" 'c\d' "e\\f\"g" h\ i""", ["b", "c\\d", 'e\\f"g', "h i"]),
        ("a b\\\n c", ["b", "c"]),
        ("a x'y'\"z\"", ["xyz"]),
        ("a ''", [""]),
        ("a '\n;'", ["\n;"]),
    ],
)
def test_quotes(script: str, expected: list[str]) -> None:
    """As sh does it (POSIX, Shell Command Language, 2.2)."""
    assert commands(["sh", "-c", script]) == [Command("a", tuple(expected))]
    assert shlex.split(script.replace("\\\n", " ")) == ["a", *expected]


@pytest.mark.parametrize("script", ["'a", '"a', "a'", 'a\\"b"', "a\\", "'" * 9999, '"' + "\\" * 9999, "a" * 20_000])
def test_strings_without_a_command(script: str) -> None:
    assert commands(["sh", "-c", script]) == []


def test_nesting_is_limited() -> None:
    assert commands(["nice"] * 100 + ["a"]) == []
    assert len(commands(["sh", "-c", "a;" * 1000])) <= 64


def test_the_words_of_a_command_line() -> None:
    assert split(b"") == []
    assert split(b"a\0\0b\0") == ["a", "", "b"]
    assert split(b"VLLM::EngineCore\0\0\0 \0") == ["VLLM::EngineCore"]
    assert split(b"\xff\0") == ["\ufffd"]


def test_shells() -> None:
    assert all(map(is_shell, ("sh", "-bash", "/bin/zsh")))
    assert not any(map(is_shell, ("ssh", "bashful", "")))


@given(st.lists(st.text(max_size=12) | st.sampled_from([*CALLS, *WRAPPERS, "-c", "--", "-m", "--model", "=", "sh"])))
def test_no_command_line_raises(words: list[str]) -> None:
    assert len(recognise(words).model_name) <= 128


class TestArguments:
    def test_places(self) -> None:
        words = ["pos", "--a-b=1", "--a_b", "2", "-m", "x", "k=v", "--pairs", "p=q,r=s", "--flag", "--last"]
        arguments = Arguments(words)
        assert [arguments.find(place) for place in ("@", "--a-b", "--a_b", "-m", "k=", "--pairs/r")] == [
            *("pos", "2", "2", "x", "v", "s")
        ]
        assert [arguments.find(place) for place in ("-k", "z=", "--pairs/z", "--none/z")] == [None] * 4
        assert arguments.find("--flag") == arguments.find("--last") == ""
        assert arguments.all("--a-b") == ["1", "2"]
        assert arguments.has("--last")
        assert not arguments.has("-l")

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--port", "80", "x"], "x"),
            (["--port=80", "x"], "x"),
            (["--trust-remote-code", "x"], "x"),
            (["--enable-x", "x", "--port", "80"], "x"),
            (["8000", "x"], "x"),
            (["--port", "--", "x"], "x"),
            (["--port", "80"], None),
            ([], None),
        ],
    )
    def test_the_first_positional_argument(self, words: list[str], expected: str | None) -> None:
        assert Arguments(words).find("@") == expected


class TestTable:
    def test_every_row_can_be_reached_and_has_a_phase(self) -> None:
        indexed = {id(call.launcher) for calls in CALLS.values() for call in calls}
        for launcher in LAUNCHERS:
            assert id(launcher) in indexed
            # A model server may itself run no model: Ollama starts a runner for each, which has the phase.
            assert launcher.phase in ("training", "inference") or (launcher.metrics and not launcher.names)

    def test_no_call_is_claimed_twice(self) -> None:
        for program, calls in CALLS.items():
            verbs = [call.verbs for call in calls]
            assert len(set(verbs)) == len(verbs), program
            assert program not in WRAPPERS, program

    def test_the_most_specific_call_comes_first(self) -> None:
        for calls in CALLS.values():
            lengths = [len(call.verbs) for call in calls]
            assert lengths == sorted(lengths, reverse=True)


def test_options_of_wrappers_are_in_the_spelling_that_is_looked_up() -> None:
    """`Wrapper` and `Arguments` have one idea of what is the same option."""
    for wrapper in WRAPPERS.values():
        for option in (*wrapper.valued, *wrapper.pairs, *wrapper.module, *wrapper.families):
            assert option == normal_option(option)
        assert len(set(wrapper.valued)) == len(wrapper.valued)
