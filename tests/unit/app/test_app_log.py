"""What people are told of an app's log; the lines are those of a real one."""

import pytest

from supervisely_integration.local.launcher.app_log import AppLog, Bar

PROGRESS = (
    "Downloading dataset: 'train':   0%|          | 0/6 [00:00<?, ?it/s]"
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Downloading dataset", '
    '"current": 2, "total": 6, "timestamp": "2026-11-25T23:25:54.867Z", "level": "info"}\n'
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Uploading ...", '
    '"current": 5, "total": 90, "current_label": "5 B", "total_label": "90 B", "level": "info"}\n'
    '{"message": "progress", "event_type": "EventType.PROGRESS", "subtask": "Ready", '
    '"current": 1, "total": 1, "level": "info"}\n'
)
FAILED = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n'
    "rtdetrv2_pytorch.src.misc.errors.ConfigError: hyperparameters: unknown key 'a'; see b\n"
    "INFO:     Shutting down\n"
    '{"message": "hyperparameters: unknown key \'a\'; see b", "level": "error"}\n'
    '{"message": "Exiting with code 1", "level": "info"}\n'
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "app.log"


def test_progress_is_read_once_and_by_whole_lines(file):
    file.write_text(PROGRESS[:-20])
    log = AppLog(file)
    assert list(log.new_bars()) == [
        Bar("Downloading dataset", 2, 6, in_bytes=False),
        Bar("Uploading", 5, 90, in_bytes=True),
    ]
    file.write_text(PROGRESS)
    assert list(log.new_bars()) == [Bar("Ready", 1, None, in_bytes=False)]
    assert list(log.new_bars()) == []


def test_lines_that_ran_into_each_other_are_passed_over(file):
    file.write_text('{"message": "a"}{"message": "progress", "current"}\n' + PROGRESS)
    assert len(list(AppLog(file).new_bars())) == 3


def test_a_port_that_was_taken_meanwhile_is_told_and_not_what_follows_from_it(file):
    """Two trainings that start at once both find the port free, and one of them is too late."""
    file.write_text(
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): "
        "address already in use\n"
        '{"message": "RuntimeError: Project is empty", "level": "error"}\n'
    )
    assert str(AppLog(file).failure(1)) == (
        "port 8000 was taken by another program before the app could listen there; end that one, "
        "or choose another --port"
    )


def test_a_failure_has_the_name_and_the_sentence_of_its_error(file):
    file.write_text(FAILED)
    error = AppLog(file).failure(1)
    assert (error.name, str(error)) == ("ConfigError", "hyperparameters: unknown key 'a'; see b")
    assert error.log == file


def test_a_traceback_may_be_part_of_a_line(file):
    file.write_text(
        '{"message": "The app cannot start", "stack": ["Traceback", "a.b.ConfigError: no a"]}\n'
        '{"message": "no a", "level": "error"}\n'
    )
    assert AppLog(file).failure(1).name == "ConfigError"


def test_a_failure_is_that_of_this_launch(file):
    file.write_text(FAILED)
    log = AppLog(file, offset=len(FAILED))
    with file.open("a") as out:
        out.write("Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n")
    error = log.failure(1)
    assert (error.name, str(error)) == ("ModuleNotFoundError", "No module named 'x'")


def test_an_end_without_a_word_is_said_to_be_one(file):
    file.write_text(PROGRESS)
    assert str(AppLog(file).failure(3)) == "the app ended with code 3 and did not say why"
    assert "ended by signal 9; if the machine ran out of memory" in str(AppLog(file).failure(-9))


def test_what_a_complete_experiment_lacks_is_said_once(file):
    line = (
        '{"message": "The experiment is complete, but not its exports: no GPU", "level": "error"}\n'
    )
    file.write_text(FAILED + line + line)
    assert AppLog(file).shortcomings() == [
        "The experiment is complete, but not its exports: no GPU"
    ]
