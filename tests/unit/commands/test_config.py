"""The command config, and options that the commands share."""

import click
import pytest
import yaml
from click.shell_completion import BashComplete
from click.testing import CliRunner

from rtdetrv2.cli import main as rtdetrv2
from rtdetrv2.commands.config import main as config
from rtdetrv2.commands.export import main as export
from rtdetrv2.terminal.command import Command, update_option


def test_values_are_printed_with_overrides(capsys):
    arguments = ["--model", "L", "-u", "optimizer.lr=0.5", "epoches=3", "-u", "seed=7"]
    assert config(arguments) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["RTDETR"]["backbone"] == "PResNet"
    assert values["PResNet"]["depth"] == 50
    assert (values["optimizer"]["lr"], values["epoches"], values["seed"]) == (0.5, 3, 7)


def test_keys_are_explained(capsys):
    assert config(["HybridEncoder.expansion", "optimizer.lr", "patience", "-u", "patience=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("HybridEncoder.expansion = 0.5, from ")
    assert lines[0].endswith("rtdetrv2_r18vd_120e_coco.yml")
    assert "type `float`, default `1.0`" in lines[1]
    assert any(line.startswith("optimizer.lr = 0.0001, from ") for line in lines)
    assert "patience = 4, from the command line" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimzer.lr"], "ConfigError: optimzer.lr: unknown key; did you mean 'optimizer.lr'?"),
        (["-u", "optimizer.lr=-1"], "ConfigError: optimizer.lr = -1"),
        (["--model", "Q"], "ConfigError: --model 'Q': unknown; use one of S, M, L, X"),
        (["-c", "none.yml"], "ConfigError: "),
    ],
)
def test_errors_are_one_sentence(arguments, message, capsys):
    assert config(arguments) == 1
    assert capsys.readouterr().err.startswith(message)


def test_update_takes_several_assignments_and_leaves_arguments():
    seen = {}

    @click.command(cls=Command)
    @click.argument("rest", nargs=-1)
    @update_option("a value")
    def command(**values):
        seen.update(values)

    assert command(["-u", "a=1", "b.c=2", "-u", "d=3", "file.jpg"]) == 0
    assert seen == {"update": ("a=1", "b.c=2", "d=3"), "rest": ("file.jpg",)}


def test_export_rejects_options_of_another_format(capsys):
    assert export(["best.pth", "--batch-sizes", "1", "2", "4"]) == 2
    assert "--batch-sizes is not an option of --format onnx" in capsys.readouterr().err
    assert export(["best.pth", "-o", "a.engine", "--opset", "18"]) == 2
    assert "--opset is not an option of --format tensorrt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "", {"train", "val", "predict", "export", "config", "local"}),
        (["train"], "--mod", {"--model"}),
        (["local"], "tr", {"train"}),
    ],
)
def test_shell_completion(words, incomplete, expected):
    complete = BashComplete(rtdetrv2, {}, "rtdetrv2", "_RTDETRV2_COMPLETE")
    found = {item.value for item in complete.get_completions(words, incomplete)}
    assert expected <= found


def test_unknown_command_is_a_usage_error():
    result = CliRunner().invoke(rtdetrv2, ["trian"])
    assert result.exit_code == 2
