"""Write errors during training: existing files stay complete, and training continues."""

import resource
from contextlib import contextmanager

import pytest

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.report.training_report import write_report
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from tests.integration.test_resume import RUN, curve
from tests.synthetic_runs import make_run
from tests.tiny import tiny_config

MIB = 2**20


def limit_files(num_bytes):
    """Limit the file size: a real write error in the middle of a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))


@contextmanager
def limits_restored():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullDisk(TrainingEvents):
    """Limits the file size during the given epoch."""

    def __init__(self, folder, epoch):
        self.folder, self.epoch = folder, epoch
        self.before, self.after = None, None

    def epoch_started(self, epoch, num_steps):
        if epoch == self.epoch:
            self.before = self.contents()
            limit_files(MIB)

    def epoch_finished(self, report):
        if report.epoch == self.epoch:
            self.after = self.contents()
            limit_files(resource.RLIM_INFINITY)

    def contents(self):
        return {path.name: path.read_bytes() for path in self.folder.glob("*.pth")}


def test_full_disk_loses_only_the_files_of_one_epoch(tmp_path, digits, caplog):
    whole = tmp_path / "whole"
    DetSolver(tiny_config(whole, digits, **RUN)).fit()
    out = tmp_path / "out"
    events = FullDisk(out, 1)
    with limits_restored():
        DetSolver(tiny_config(out, digits, **RUN), events=events).fit()
    assert sorted(events.before) == ["best.pth", "checkpoint0000.pth", "last.pth"]
    assert events.after == events.before  # no partial files
    assert not list(out.glob(".*.partial"))
    assert "cannot be written" in caplog.text
    assert "training continues, and the next epoch is saved again" in caplog.text
    steps, epochs = curve(out)
    expected_steps, expected_epochs = curve(whole)
    assert steps == pytest.approx(expected_steps, rel=1e-6)
    for epoch, values in expected_epochs.items():
        assert epochs[epoch] == pytest.approx(values, rel=1e-5)
    last, best = load_checkpoint(out / "last.pth"), load_checkpoint(out / "best.pth")
    assert last["progress"]["epoch"] == 3
    # The best epoch of the run is the one in best.pth.
    assert last["progress"]["best"]["epoch"] == best["last_epoch"]
    assert last["progress"]["best"]["ap"] == best["metrics"]["AP"]


def test_full_disk_in_the_last_epoch_raises(tmp_path, digits):
    events = FullDisk(tmp_path, 1)
    with limits_restored(), pytest.raises(CheckpointError, match="cannot be written.*free space"):
        DetSolver(tiny_config(tmp_path, digits), events=events).fit()
    assert load_checkpoint(tmp_path / "last.pth")["progress"]["epoch"] == 1
    assert events.contents() == events.before


def test_unwritable_folder_raises_before_the_first_step(tmp_path, digits):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/out: cannot be written.*choose another output"):
        DetSolver(tiny_config(tmp_path / "file" / "out", digits)).fit()


def test_training_continues_without_tensorboard(tmp_path, digits, caplog):
    (tmp_path / "file").touch()
    cfg = tiny_config(tmp_path, digits, epoches=1, summary_dir=str(tmp_path / "file" / "summary"))
    result = DetSolver(cfg).fit()
    assert result.last_epoch == 0
    assert caplog.text.count("TensorBoard is disabled: ") == 1


def test_failed_report_keeps_the_old_one_and_no_partial_file(tmp_path):
    source = make_run(tmp_path / "run")
    before = write_report(source).read_bytes()
    with limits_restored(), pytest.raises(OSError, match="File too large"):
        limit_files(len(before) // 2)
        write_report(source)
    assert (tmp_path / "run" / "report.html").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
