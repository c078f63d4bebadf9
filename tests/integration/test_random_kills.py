"""Kills and signals at random and exact moments: a resumed run equals an uninterrupted one.

The random moments have a fixed seed. The run is killed in every one of its five epochs, in each
kind of moment. Kills during an upload are tested with the app (tests/app).
"""

import signal

import pytest
import torch

from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.integration.killed_training import train
from tests.integration.test_resume import RUN, curve
from tests.ranks import fork
from tests.tiny import tiny_config, tiny_file

EPOCHS = 5
LONG = {**RUN, "epoches": EPOCHS, "keep_last": 2}
# The last epoch could end before a kill at any time.
MOMENTS = ("write", "evaluation", "anytime", "step", "write")


def launch(*args):
    """Train in a forked process; returns its exit code."""
    process = fork(train, *args)
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """Folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    DetSolver(tiny_config(folder, digits, **LONG)).fit()
    return folder


@pytest.mark.slow
def test_run_killed_in_every_epoch_equals_the_uninterrupted_run(whole, tmp_path, digits):
    out = tmp_path / "out"
    path = str(tiny_file(tmp_path / "run.yml", out, digits, **LONG))
    last = out / "last.pth"

    def resume():
        return str(last) if last.is_file() else None

    unlogged = set()  # epochs killed between last.pth and their log line
    for epoch, kind in enumerate(MOMENTS):
        code = launch(path, resume(), kind, epoch, epoch)
        assert code == -signal.SIGKILL, kind
        for file in out.glob("*.pth"):  # all files are complete
            load_checkpoint(file)
        reached = load_checkpoint(last)["progress"]["epoch"] if last.is_file() else 0
        assert epoch <= reached <= epoch + 1
        if kind != "anytime":
            assert reached == epoch
        elif reached > epoch:
            unlogged.add(epoch)
    assert launch(path, resume(), "never", -1, 0) == 0

    assert_equal_runs(out, whole, unlogged)


@pytest.mark.slow
def test_run_killed_at_exact_offsets_of_a_checkpoint_equals_the_uninterrupted_run(
    whole, tmp_path, digits
):
    out = tmp_path / "out"
    path = str(tiny_file(tmp_path / "run.yml", out, digits, **LONG))
    last = out / "last.pth"
    # Epoch, file, number of bytes; None: not renamed yet. The first epoch writes best.pth.
    for epoch, name, end in (
        (0, "last.pth", 0),
        (0, "best.pth", 1000),
        (1, "last.pth", 50_000),
        (2, "last.pth", -1),
        (3, "last.pth", None),
    ):
        resume = str(last) if last.is_file() else None
        assert launch(path, resume, "write", epoch, 0, (name, end)) == -signal.SIGKILL, end
        (partial,) = out.glob(".*.partial")  # that of the previous kill was removed
        assert partial.name.startswith(f".{name}.")
        if end == 0:
            assert sorted(file.name for file in out.glob("*.pth")) == ["checkpoint0000.pth"]
            assert partial.stat().st_size == 0
        elif name == "best.pth":
            assert not (out / "best.pth").is_file()  # the resumed run writes it
            assert load_checkpoint(last)["progress"]["epoch"] == 1
        else:
            size = {50_000: 50_000, -1: last.stat().st_size - 1, None: last.stat().st_size}[end]
            assert partial.stat().st_size == pytest.approx(size, abs=2000)
            assert load_checkpoint(last)["progress"]["epoch"] == epoch
    assert launch(path, str(last), "never", -1, 0) == 0
    assert_equal_runs(out, whole, unlogged={0})


@pytest.mark.slow
def test_run_stopped_by_each_signal_equals_the_uninterrupted_run(whole, tmp_path, digits):
    out = tmp_path / "out"
    path = str(tiny_file(tmp_path / "run.yml", out, digits, **LONG))
    last = out / "last.pth"
    for epoch, kind in enumerate(("SIGTERM", "SIGINT", "SIGHUP")):
        assert launch(path, str(last) if epoch else None, kind, epoch, 0) == 0, kind
        progress = load_checkpoint(last)["progress"]
        assert (progress["epoch"], progress["step"]) == (epoch, 1), kind
    assert launch(path, str(last), "never", -1, 0) == 0
    assert_equal_runs(out, whole)


def assert_equal_runs(out, whole, unlogged=frozenset()):
    """Compare losses, metrics, weights and files; `unlogged` epochs may lack their log line."""
    last = out / "last.pth"
    steps, epochs = curve(out)
    expected_steps, expected_epochs = curve(whole)
    assert steps == expected_steps
    assert expected_epochs.keys() - epochs.keys() <= unlogged
    for epoch, values in epochs.items():
        assert values[:3] == expected_epochs[epoch][:3]
        # The losses of an interrupted epoch are added in two parts.
        assert values[3] == pytest.approx(expected_epochs[epoch][3], rel=1e-6)
    ours, theirs = load_checkpoint(last), load_checkpoint(whole / "last.pth")
    assert ours["progress"] == theirs["progress"]
    for part in ("model", "ema"):
        a, b = (c[part]["module"] if part == "ema" else c[part] for c in (ours, theirs))
        for key in a:
            assert torch.equal(a[key], b[key]), f"{part} {key}"
    assert sorted(p.name for p in out.glob("*.pth")) == sorted(p.name for p in whole.glob("*.pth"))
    assert not list(out.glob(".*partial"))
