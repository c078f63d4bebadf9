"""Commands in a real terminal: headlines, progress lines, no output of libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import in_terminal, noise
from tests.tiny import tiny_file

ROOT = Path(__file__).parents[2]
# One process imports torch once; libraries log and warn during the report.
SCRIPT = """
import logging, sys, warnings
from rtdetrv2_pytorch.src.report import training_report
from rtdetrv2.commands import doctor, export_onnx, report, train

before = training_report.write_report

def noisy(source):
    warnings.warn("a library is deprecated", FutureWarning)
    logging.getLogger("supervisely").warning('{"message": "a library complains"}')
    return before(source)

training_report.write_report = noisy
print("exit", train.main(["-c", "tiny.yml"]))
print("exit", doctor.main(["--data", sys.argv[1], "-o", "doctor", "--no-cache"]))
print("exit", export_onnx.main(["-r", "out/best.pth", "--no-slim"]))
print("exit", report.main(["out"]))
print("exit", export_onnx.main(["-r", "damaged/best.pth"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("terminal")
    tiny_file(folder / "tiny.yml", Path("out"), digits, epoches=1, report=True)
    damaged = folder / "damaged" / "best.pth"
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a checkpoint")
    return folder


def test_commands_in_terminal_and_pipe(folder, digits):
    command = [sys.executable, "-c", SCRIPT, str(digits)]
    environment = {"PYTHONPATH": str(ROOT)}
    shown = in_terminal(command, folder, environment)
    assert shown.code == 0, shown.text
    assert noise(shown.text) == []
    assert "library" not in shown.text
    log = (folder / "out" / "train.log").read_text()
    assert "FutureWarning: a library is deprecated" in log
    assert "WARNING supervisely" in log.replace("WARN ", "WARNING ")
    trained, examined, exported, reported, failed, _ = shown.text.split("exit ")
    assert [part[0] for part in shown.text.split("exit ")[1:]] == ["0", "0", "0", "0", "1"]

    assert "Training on 6 images, evaluating on 4; 10 classes: 0, 1" in trained
    for live in (
        "building the network",
        "epoch 1/1 ",
        " 1/3 ",
        "evaluating",
        "writing the report",
    ):
        assert live in trained
    paths = ["out/last.pth", "out/best.pth", "out/checkpoint0000.pth"]
    paths += ["out/report.html", "out/train.log"]
    assert [line for line in lines(trained) if line in paths] == paths

    assert "Examining " in examined
    for live in ("examining images", "/10", "writing the data report"):
        assert live in examined
    names = ("data_report.json", "data_report.html", "doctor.log")
    assert lines(examined)[-3:] == [f"doctor/{name}" for name in names]

    assert "Exporting out/best.pth to ONNX" in exported
    for live in ("loading", "exporting", "comparing"):
        assert live in exported
    assert lines(exported)[-2:] == ["out/best.onnx", "out/export.log"]

    assert "Reporting on out" in reported
    for live in ("evaluating", "writing the report"):
        assert live in reported
    assert lines(reported)[-2:] == ["out/report.html", "out/train.log"]

    error = "CheckpointError: damaged/best.pth: not a PyTorch checkpoint, or damaged; download or "
    error += "copy it again"
    assert lines(failed)[-3:] == [error, "Log:", "damaged/export.log"]
    assert "\x1b[1;31mCheckpointError\x1b[0m: " in shown.raw
    assert "Traceback" in (folder / "damaged" / "export.log").read_text()

    piped = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert piped.returncode == 0, piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "─" not in piped.stdout
    assert noise(piped.stdout) == []
    assert "library" not in piped.stdout + piped.stderr
    counts = [len(part.splitlines()) for part in piped.stdout.split("exit ")]
    assert all(a <= b for a, b in zip(counts, (30, 20, 8, 20, 3, 1), strict=True)), counts
    assert [line for line in piped.stderr.splitlines() if not line.startswith("20")] == [
        *(error, "Log:", "damaged/export.log")
    ]


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]
