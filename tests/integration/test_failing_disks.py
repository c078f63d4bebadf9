"""A disk that is full or gone: what was good stays, and training goes on where it can."""

import resource
from contextlib import contextmanager

import pytest

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.report.training_report import write_report
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from tests.integration.test_resume import RUN, curve
from tests.runs import make_run
from tests.tiny import tiny_config

MIB = 2**20


def limit_files(num_bytes):
    """From here on the system refuses to make files larger: a real error in the middle of one."""
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
    """The disk is full while the given epoch is trained and saved."""

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


def test_a_full_disk_costs_the_files_of_an_epoch_and_nothing_else(tmp_path, digits, caplog):
    whole = tmp_path / "whole"
    DetSolver(tiny_config(whole, digits, **RUN)).fit()
    out = tmp_path / "out"
    events = FullDisk(out, 1)
    with limits_restored():
        DetSolver(tiny_config(out, digits, **RUN), events=events).fit()
    assert sorted(events.before) == ["best.pth", "checkpoint0000.pth", "last.pth"]
    assert events.after == events.before  # nothing was replaced by a part of it, or left beside it
    assert not list(out.glob(".*"))
    assert "cannot be written" in caplog.text
    assert "training goes on, and the next epoch is written again" in caplog.text
    steps, epochs = curve(out)
    expected_steps, expected_epochs = curve(whole)
    assert steps == pytest.approx(expected_steps, rel=1e-6)
    for epoch, values in expected_epochs.items():
        assert epochs[epoch] == pytest.approx(values, rel=1e-5)
    last, best = load_checkpoint(out / "last.pth"), load_checkpoint(out / "best.pth")
    assert last["progress"]["epoch"] == 3
    # What the run takes for its best is what best.pth holds.
    assert last["progress"]["best"]["epoch"] == best["last_epoch"]
    assert last["progress"]["best"]["ap"] == best["metrics"]["AP"]


def test_a_disk_that_is_still_full_at_the_end_is_an_error_with_the_remedy(tmp_path, digits):
    events = FullDisk(tmp_path, 1)
    with limits_restored(), pytest.raises(CheckpointError, match="cannot be written.*free space"):
        DetSolver(tiny_config(tmp_path, digits), events=events).fit()
    assert load_checkpoint(tmp_path / "last.pth")["progress"]["epoch"] == 1
    assert events.contents() == events.before


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, digits):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/out: cannot be written.*choose another output"):
        DetSolver(tiny_config(tmp_path / "file" / "out", digits)).fit()


def test_training_goes_on_without_tensorboard(tmp_path, digits, caplog):
    (tmp_path / "file").touch()
    cfg = tiny_config(tmp_path, digits, epoches=1, summary_dir=str(tmp_path / "file" / "summary"))
    result = DetSolver(cfg).fit()
    assert result.last_epoch == 0
    assert caplog.text.count("no TensorBoard: ") == 1


def test_a_report_that_does_not_fit_leaves_the_earlier_one_and_no_half_of_it(tmp_path):
    source = make_run(tmp_path / "run")
    before = write_report(source).read_bytes()
    with limits_restored(), pytest.raises(OSError, match="File too large"):
        limit_files(len(before) // 2)
        write_report(source)
    assert (tmp_path / "run" / "report.html").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
