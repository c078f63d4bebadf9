"""The command config."""

import pytest
import yaml

from rtdetrv2.commands.config import main as config


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
        (["-u", "optimizer.lr=-1"], "ConfigError: -u: optimizer.lr = -1"),
        (["--model", "Q"], "ConfigError: --model 'Q': unknown; use one of S, M, L, X"),
        (["-c", "none.yml"], "ConfigError: "),
    ],
)
def test_errors_are_one_sentence(arguments, message, capsys):
    assert config(arguments) == 1
    assert capsys.readouterr().err.startswith(message)
