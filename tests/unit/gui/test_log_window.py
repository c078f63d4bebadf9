import logging

from supervisely.sly_logger import EventType

from supervisely_integration.gui import log_window
from supervisely_integration.gui.log_window import LogWindow


def filled(*texts, **extra):
    window, log = LogWindow(), logging.Logger("test")
    log.addHandler(window)
    for text in texts:
        log.warning(text, extra=extra)
    return window, log


def test_lines_come_once_and_in_order():
    window, log = filled("one", "two")
    assert [(line["number"], line["text"]) for line in window.lines()] == [(1, "one"), (2, "two")]
    log.info("three")
    (line,) = window.lines(after=2)
    assert (line["number"], line["level"], line["text"]) == (3, "info", "three")
    log.debug("not shown")
    assert window.lines(after=3) == []


def test_an_error_brings_its_traceback():
    window, log = filled()
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("it failed")
    text = window.lines()[0]["text"]
    assert text.startswith("it failed\nTraceback")
    assert text.endswith("ValueError: the reason")


def test_the_last_lines_are_kept_and_none_is_endless(monkeypatch):
    window, _ = filled(*(f"{n}" for n in range(2003)), "x" * 5000)
    lines = window.lines()
    assert len(lines) == 2000
    assert lines[0]["text"] == "4"
    assert lines[-1]["text"] == "x" * log_window._LONGEST


def test_a_line_that_cannot_be_formatted_does_not_end_what_logs_it(capsys):
    window, log = filled("one")
    log.warning("%d images", "no number")
    log.warning("two")
    assert [line["text"] for line in window.lines()] == ["one", "two"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_steps_of_a_bar_are_no_lines():
    window, _ = filled("progress", event_type=EventType.PROGRESS)
    assert window.lines() == []
