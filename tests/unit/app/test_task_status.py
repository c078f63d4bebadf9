"""The status file of a training task."""

import json

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.task_status import (
    EVALUATION_REPORT,
    STATUS_FILE,
    StatusReporter,
    TaskStatus,
)


def test_file_is_replaced_at_the_start(tmp_path):
    TaskStatus("failed", "no space left", "OSError").save(tmp_path)
    StatusReporter(tmp_path)
    assert TaskStatus.load(tmp_path) == TaskStatus("waiting")
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_FILE]


def test_app_waits_again_after_a_training_that_reported_no_end(tmp_path):
    reporter = StatusReporter(tmp_path)
    for end, state in ((lambda: None, "waiting"), (reporter.finish, "finished")):
        reporter.start()
        assert TaskStatus.load(tmp_path) == TaskStatus("running")
        end()
        reporter.wait()
        assert TaskStatus.load(tmp_path) == TaskStatus(state)


def test_first_error_is_reported(tmp_path, caplog):
    reporter = StatusReporter(tmp_path)
    reporter.fail(ConfigError("lr = -1: give 0 or more"))
    reporter.fail(ValueError("follows from the first"))
    assert json.loads((tmp_path / STATUS_FILE).read_text()) == {
        "state": "failed",
        "error": {"type": "ConfigError", "message": "lr = -1: give 0 or more"},
        "missing": {},
    }
    assert caplog.messages == ["lr = -1: give 0 or more"]


def test_missing_parts_of_a_finished_experiment(tmp_path, caplog):
    reporter = StatusReporter(tmp_path)
    reporter.add_missing(EVALUATION_REPORT, "no predictions")
    reporter.add_missing("TensorRT", "no GPU")
    reporter.finish()
    missing = {"evaluation_report": "no predictions", "TensorRT": "no GPU"}
    assert TaskStatus.load(tmp_path) == TaskStatus("finished", missing=missing)
    assert caplog.messages == [
        "The experiment has no evaluation report: no predictions",
        "The experiment has no TensorRT export: no GPU",
    ]


def test_no_file_or_a_damaged_one_is_no_status(tmp_path):
    assert TaskStatus.load(tmp_path) is None
    (tmp_path / STATUS_FILE).write_text("{")
    assert TaskStatus.load(tmp_path) is None
