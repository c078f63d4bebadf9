"""The launcher's view of an app's log and task status."""

import pytest

from supervisely_integration.local.launcher.app_log import AppLog, Bar
from supervisely_integration.task_status import PAGE_ERROR, TaskStatus

PROGRESS = (
    "Downloading dataset: 'train':   0%|          | 0/6 [00:00<?, ?it/s]"
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Downloading dataset", '
    '"current": 2, "total": 6, "timestamp": "2026-11-25T23:25:54.867Z", "level": "info"}\n'
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Uploading ...", '
    '"current": 5, "total": 90, "current_label": "5 B", "total_label": "90 B", "level": "info"}\n'
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Ready", '
    '"current": 1, "total": 1, "level": "info"}\n'
)
FAILED = TaskStatus("failed", "hyperparameters: unknown key 'a'; see b", "ConfigError")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "app.log"


def test_progress_is_read_once_and_in_complete_lines(file):
    file.write_text(PROGRESS[:-20])
    log = AppLog(file)
    assert list(log.new_bars()) == [
        Bar("Downloading dataset", 2, 6, in_bytes=False),
        Bar("Uploading", 5, 90, in_bytes=True),
    ]
    file.write_text(PROGRESS)
    assert list(log.new_bars()) == [Bar("Ready", 1, None, in_bytes=False)]
    assert list(log.new_bars()) == []


def test_mixed_lines_are_skipped(file):
    file.write_text('{"message": "a"}{"message": "progress", "current"}\n' + PROGRESS)
    assert len(list(AppLog(file).new_bars())) == 3


def test_used_port_is_reported(file):
    """Two trainings that start at the same time find the same free port; one fails to bind it."""
    FAILED.save(file.parent)
    file.write_text(
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): "
        "address already in use\n"
    )
    assert str(AppLog(file).failure(1)) == (
        "port 8000 was taken by another program before the app could listen on it; "
        "stop that program, or use another --port"
    )


def test_failure_is_read_from_the_task_status(file):
    file.write_text("Traceback (most recent call last):\nKeyError: 'x'\n")
    FAILED.save(file.parent)
    error = AppLog(file).failure(1)
    assert (error.name, str(error)) == ("ConfigError", "hyperparameters: unknown key 'a'; see b")
    assert error.log == file


def test_failure_before_the_task_status_exists(file):
    old = "Traceback (most recent call last):\nValueError: of the last launch\n"
    file.write_text(old)
    log = AppLog(file, offset=len(old))
    assert "without an error message" in str(log.failure(1))
    with file.open("a") as out:
        out.write("Traceback (most recent call last):\na.b.ModuleNotFoundError: No module 'x'\n")
        out.write("INFO:     Shutting down\n")
    error = log.failure(1)
    assert (error.name, str(error)) == ("ModuleNotFoundError", "No module 'x'")


def test_failure_without_a_message(file):
    file.write_text(PROGRESS)
    message = "the app ended with exit code 3 without an error message"
    assert str(AppLog(file).failure(3)) == message
    TaskStatus("running").save(file.parent)
    assert str(AppLog(file).failure(3)) == message
    assert "killed by signal 9; if the machine ran out of memory" in str(AppLog(file).failure(-9))


def test_missing_parts_of_an_experiment(file):
    assert AppLog(file).missing() == {}
    TaskStatus("finished", missing={"TensorRT": "no GPU"}).save(file.parent)
    assert AppLog(file).missing() == {"TensorRT": "no GPU"}


def test_errors_of_the_page_are_read_once(file):
    file.write_text(
        f'{{"message": "epoches = 0: give 1 or more", "{PAGE_ERROR}": true, "level": "error"}}\n'
        '{"message": "another error", "level": "error"}\n' + PROGRESS
    )
    log = AppLog(file)
    assert list(log.new_page_errors()) == ["epoches = 0: give 1 or more"]
    assert list(log.new_page_errors()) == []
    assert len(list(log.new_bars())) == 3
