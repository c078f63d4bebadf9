"""The command `rtdetrv2`: its groups, completion, and options of several commands."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from rtdetrv2.cli import main
from rtdetrv2.commands import export, export_onnx, export_trt, report, train
from supervisely_integration.local.launcher.cli import group

ROOT = Path(__file__).parents[3]
COMMANDS = [
    *("train", "val", "predict", "export", "doctor", "radar", "augment", "report", "benchmark"),
    *("profile", "config"),
]


def completions(*words: str, incomplete: str = "") -> list[str]:
    complete = ShellComplete(main, {}, "rtdetrv2", "_RTDETRV2_COMPLETE")
    return [item.value for item in complete.get_completions([*words], incomplete)]


def test_commands_and_options_are_completed():
    assert completions() == [*COMMANDS, "local"]
    assert completions(incomplete="ex") == ["export"]
    assert completions("train", incomplete="--wei") == ["--weights"]
    assert completions("local", incomplete="im") == ["import"]
    assert completions("export", "--format") == ["onnx", "tensorrt"]


def test_help_of_all_commands_imports_no_slow_package():
    script = (
        "import json, sys\n"
        "from rtdetrv2.cli import main\n"
        "codes = [main([*words, '--help']) for words in json.loads(sys.argv[1])]\n"
        "slow = {'torch', 'numpy', 'supervisely', 'fastapi', 'httpx'} & sys.modules.keys()\n"
        "print(codes, slow)\n"
    )
    local = group.list_commands(click.Context(group))
    words = [[], *([name] for name in (*COMMANDS, "local")), *(["local", name] for name in local)]
    command = [sys.executable, "-c", script, json.dumps(words)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith(f"{[0] * len(words)} set()\n")
    assert result.stdout.count("examples:\n  rtdetrv2 ") == len(words)


@pytest.mark.parametrize("parent", [main, group])
def test_examples_of_help_parse(parent):
    context = click.Context(parent)
    commands = [parent.get_command(context, name) for name in parent.list_commands(context)]
    help_texts = "".join(each.epilog for each in (parent, *commands))
    examples = re.findall("^  (rtdetrv2 .+)", help_texts, re.MULTILINE)
    assert len(examples) > len(commands)
    for example in examples:
        _, name, *words = shlex.split(example, comments=True)
        command = main.get_command(context, name)
        if command is group:
            name, *words = words
            command = group.get_command(context, name)
        assert command.make_context(name, words)


def test_export_has_the_options_of_both_formats():
    names = {option.name for option in export.main.params}
    for command in (export_onnx.main, export_trt.main):
        assert {option.name for option in command.params} - {"resume"} <= names


@pytest.mark.parametrize(
    ("words", "command", "expected"),
    [
        (["a.pth", "--fp16"], export_onnx.main, {"resume": "a.pth", "fp16": True}),
        (
            ["a.pth", "-o", "a.engine", "--batch-sizes", "1", "2", "4"],
            export_trt.main,
            {"batch_sizes": (1, 2, 4), "output": Path("a.engine")},
        ),
    ],
)
def test_export_calls_the_command_of_the_format(monkeypatch, words, command, expected):
    calls = []
    monkeypatch.setattr(command, "callback", lambda **values: calls.append(values) or 0)
    assert export.main(words) == 0
    (values,) = calls
    assert values.keys() == {option.name for option in command.params}
    assert expected.items() <= values.items()


def test_option_of_the_other_format_is_rejected(capsys):
    assert export.main(["a.pth", "--format", "tensorrt", "--fp16"]) == 2
    assert "--fp16 is not an option of --format tensorrt" in capsys.readouterr().err


def test_several_assignments_after_one_option():
    context = train.main.make_context("train", ["-u", "a=1", "b.c=2", "--seed", "3", "-u", "d=4"])
    assert context.params["update"] == ("a=1", "b.c=2", "d=4")
    context = report.main.make_context("report", ["-u", "a=1", "b=2", "output/my"])
    assert context.params["update"] == ("a=1", "b=2")
    assert context.params["run"] == Path("output/my")


def test_unknown_command_is_a_usage_error(capsys):
    assert main(["trian"]) == 2
    assert "No such command 'trian'" in capsys.readouterr().err
    with pytest.raises(click.UsageError):
        main.resolve_command(click.Context(main), ["trian"])
