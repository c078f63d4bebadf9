"""The command `rtdetrv2`: its groups, completion, and options of several commands."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from rtdetrv2.cli import main
from rtdetrv2.commands import export, export_onnx, export_trt, report, train

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
        "slow = {'torch', 'numpy', 'supervisely', 'fastapi'} & sys.modules.keys()\n"
        "print(codes, slow)\n"
    )
    words = [[], *([name] for name in COMMANDS), ["local"], ["local", "train"]]
    command = [sys.executable, "-c", script, json.dumps(words)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith(f"{[0] * len(words)} set()\n")
    assert result.stdout.count("examples:") == len(COMMANDS)


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
