import logging

from supervisely.sly_logger import EventType

from supervisely_integration.gui.log_window import LogWindow


def filled(*texts, **extra):
    window, log = LogWindow(), logging.Logger("test")
    log.addHandler(window)
    for text in texts:
        log.warning(text, extra=extra)
    return window, log


def test_lines_are_returned_once_and_in_order():
    window, log = filled("one", "two")
    assert [(line["number"], line["text"]) for line in window.lines()] == [(1, "one"), (2, "two")]
    log.info("three")
    (line,) = window.lines(after=2)
    assert (line["number"], line["level"], line["text"]) == (3, "info", "three")
    log.debug("not shown")
    assert window.lines(after=3) == []


def test_error_includes_its_traceback():
    window, log = filled()
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("it failed")
    text = window.lines()[0]["text"]
    assert text.startswith("it failed\nTraceback")
    assert text.endswith("ValueError: the reason")


def test_number_and_length_of_lines_are_limited():
    window, _ = filled(*(f"{n}" for n in range(2003)), "x" * 5000)
    lines = window.lines()
    assert len(lines) == 2000
    assert lines[0]["text"] == "4"
    assert lines[-1]["text"] == "x" * 4000


def test_line_that_cannot_be_formatted_is_reported(capsys):
    window, log = filled("one")
    log.warning("%d images", "no number")
    log.warning("two")
    assert [line["text"] for line in window.lines()] == ["one", "two"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_progress_events_are_left_out():
    window, _ = filled("progress", event_type=EventType.PROGRESS)
    assert window.lines() == []
