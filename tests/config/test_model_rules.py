"""Model rules: parsing, matching, and errors of one line with file and line number."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.loading import ConfigError, load
from exporter.config.model_rules import Claim, ModelRule, rule_list, variables

FILE = """\
models:
  - image: acme/(?P<app>[a-z-]+)-server
    command: "--weights (?P<path>\\\\S+)"
    environment: {TAG: "(?P<tag>.+)"}
    model_name: "acme/${app}:${tag}"
    phase: inference
  - namespace: ^research$
    phase: training
models.ask-servers: true
"""


def load_text(folder: Path, text: str) -> tuple[ModelRule, ...]:
    """The rules of a file."""
    path = folder / "c.yml"
    path.write_text(text)
    return load({"config.file": str(path)}, {}).models


def problems(folder: Path, text: str) -> list[str]:
    """Return every error about a file, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    return [line.removeprefix(f"{folder}/") for line in caught.value.problems]


def claim(rule: ModelRule, values: dict[str, str], environ: dict[str, str] | None = None) -> Claim | None:
    """Return what a rule assigns to a process."""
    return rule.match(values, lambda name: (environ or {}).get(name, ""), lambda text: text.strip("/"))


class TestFile:
    def test_rules_are_read_in_order(self, tmp_path: Path) -> None:
        one, two = load_text(tmp_path, FILE)
        assert [(name, pattern.pattern) for name, pattern in one.fields] == [
            ("image", "acme/(?P<app>[a-z-]+)-server"),
            ("command", "--weights (?P<path>\\S+)"),
        ]
        assert (one.model_name, one.phase, one.reads_command) == ("acme/${app}:${tag}", "inference", True)
        assert (two.model_name, two.phase, two.reads_command) == ("", "training", False)
        assert variables([one, two]) == {"TAG"}
        assert load({"config.file": str(tmp_path / "c.yml")}, {}).models_ask_servers

    def test_the_same_on_one_line(self) -> None:
        text = "[{image: acme, model_name: a}, {pod: b, phase: training}]"
        by_flag = load({"models": ["{image: acme, model_name: a}", "{pod: b, phase: training}"]}, {}).models
        assert load({}, {"AI_ENERGY_MODELS": text}).models == by_flag == rule_list().parse(text)
        assert len(by_flag) == 2

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("models: {image: a}", "c.yml:1: unknown setting: 'models.image'; did you mean models.keys?"),
            ("models: x", "c.yml:1: models: must be a list of mappings"),
            ("models: [x]", "c.yml:1: models must be a list of mappings"),
            ("models: [{image: [a]}]", "c.yml:1: models: image must not be a list"),
            ("models: [{image: a, image: b}]", "c.yml:1: models has 'image' twice on line 1"),
            ("models: [{image: , phase: training}]", "c.yml:1: models has no value"),
            (
                "models:\n- image: a\n  modelname: b\n  phase: training",
                "c.yml:3: models: unknown key: 'modelname'; did you mean model_name?",
            ),
            (
                "models:\n- image: a\n  command: '['\n  phase: training",
                "c.yml:3: models: command: '[' is not a regular expression: unterminated character set at position 0",
            ),
            (
                "models:\n- image: ''\n  phase: training",
                "c.yml:2: models: image: '' is not a regular expression: it is empty",
            ),
            (
                "models:\n- image: {a: b}\n  phase: training",
                "c.yml:2: models: image must not be a mapping",
            ),
            (
                "models:\n- phase: training",
                "c.yml:2: models: a rule must match something: "
                "namespace, pod, container, image, command or environment",
            ),
            ("models:\n- image: a", "c.yml:2: models: a rule must set model_name, phase or variant"),
            (
                "models:\n- image: a\n  phase: learning",
                "c.yml:3: models: phase: 'learning' is not one of training, inference, unknown",
            ),
            (
                "models:\n- image: (?P<app>a)\n  model_name: ${ap}",
                "c.yml:3: models: model_name: no group is named 'ap'; did you mean app?",
            ),
            (
                "models:\n- image: a\n  model_name: ${path}",
                "c.yml:3: models: model_name: no group is named 'path'; add (?P<path>...) to one of its patterns",
            ),
            (
                "models:\n- image: (a)\n  model_name: x-$1",
                "c.yml:3: models: model_name: $ must be the start of ${group}, the name of a group of the rule",
            ),
            ("models:\n- image: a\n  model_name: ''", "c.yml:3: models: model_name: is empty"),
            (
                "models:\n- image: a\n  model_name: " + "x" * 129,
                f"c.yml:3: models: model_name: '{'x' * 57}...' is not a printable text of at most 128 characters",
            ),
            (
                "models:\n- environment: TAG\n  phase: training",
                "c.yml:2: models: environment must map names of variables to regular expressions",
            ),
            (
                "models:\n- environment:\n    A-B: x\n  phase: training",
                "c.yml:3: models: environment: 'A-B' is not the name of a variable",
            ),
            (
                "models:\n- environment:\n    A: x\n    B: '('\n  phase: training",
                "c.yml:4: models: environment.B: '(' is not a regular expression: "
                "missing ), unterminated subpattern at position 0",
            ),
        ],
    )
    def test_an_error_is_one_line_with_its_location(self, tmp_path: Path, text: str, expected: str) -> None:
        assert problems(tmp_path, text) == [expected]

    def test_all_errors_are_reported_at_once(self, tmp_path: Path) -> None:
        lines = problems(tmp_path, "models:\n- image: '['\n  phase: x\n- pod: a\nprocess: {top: x}")
        assert [line.partition(": ")[0] for line in lines] == ["c.yml:2", "c.yml:3", "c.yml:4", "c.yml:5"]

    @pytest.mark.parametrize("text", ["{image: '['}", "[", "{image: a}", "x", "[[[", "- {image: a, phase: b}", "\x00"])
    def test_errors_of_a_flag_name_the_flag(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load({"models": [text]}, {})
        assert all(line.startswith("--models: ") for line in caught.value.problems)
        assert not any(line.startswith("--models: models:") for line in caught.value.problems)


class TestMatch:
    RULE = rule_list().parse(
        "{image: 'acme/(?P<app>[a-z]+)', environment: {TAG: '^(?P<tag>v.+)'}, model_name: '${app}:${tag}'}"
    )[0]

    def test_everything_must_match(self) -> None:
        assert claim(self.RULE, {"image": "x/acme/llm:1"}, {"TAG": "v2"}) == Claim("llm:v2", "")
        assert claim(self.RULE, {"image": "other"}, {"TAG": "v2"}) is None
        assert claim(self.RULE, {}, {"TAG": "v2"}) is None
        assert claim(self.RULE, {"image": "acme/llm"}, {"TAG": "2"}) is None
        assert claim(self.RULE, {"image": "acme/llm"}) is None

    def test_a_variable_is_read_only_if_the_fields_match(self) -> None:
        read: list[str] = []

        def variable(name: str) -> str:
            read.append(name)
            return "v1"

        assert self.RULE.match({"image": "other"}, variable, str) is None
        assert read == []
        assert self.RULE.match({"image": "acme/llm"}, variable, str) == Claim("llm:v1")
        assert read == ["TAG"]

    def test_a_captured_text_is_converted_and_may_be_empty(self) -> None:
        rule = rule_list().parse("{command: '-w(?P<path> .*)?', model_name: 'x/${path}', phase: training}")[0]
        assert claim(rule, {"command": "-w a/"}) == Claim("x/ a", "training")
        assert claim(rule, {"command": "-w"}) == Claim("", "training")

    def test_a_value_with_the_form_of_a_reference_is_not_expanded(self) -> None:
        rule = rule_list().parse("{command: '(?P<a>.*)', image: '(?P<b>.*)', model_name: '${a}'}")[0]
        assert claim(rule, {"command": "${b}", "image": "secret"}) == Claim("${b}", "")
