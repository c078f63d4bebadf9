"""Console output in a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from rtdetrv2.terminal import console as language
from rtdetrv2.terminal.console import (
    LiveLine,
    format_duration,
    print_detail,
    print_error,
    print_headline,
    print_notice,
    print_path,
    result_table,
)

LONG = "/a/" + "long/" * 30 + "path with [brackets].pth"


@pytest.fixture
def pipe():
    return Console(file=io.StringIO(), highlight=False, soft_wrap=True, width=80)


@pytest.fixture
def terminal():
    return Console(
        file=io.StringIO(), force_terminal=True, highlight=False, width=40, color_system="standard"
    )


def print_all(console):
    print_headline(console, "Training", "on [3] images")
    print_detail(console, "a detail that is longer than the terminal is wide")
    print_notice(console, "look\x1b[2J here")
    print_path(console, LONG)
    table = result_table(console, "Best")
    table.add_column("class")
    table.add_column("AP")
    table.add_row("cat", "0.5")
    console.print(table)
    with LiveLine(console) as line:
        line.show("examining", 1, 2)
    return console.file.getvalue()


def test_pipe_gets_plain_lines(pipe):
    said = print_all(pipe)
    assert [line.rstrip() for line in said.splitlines()] == [
        "Training on [3] images",
        "  a detail that is longer than the terminal is wide",
        "look\\x1b[2J here",
        LONG,
        "Best",
        "class  AP",
        "cat    0.5",
    ]


def test_terminal_gets_colors_and_wraps_between_words(terminal):
    said = print_all(terminal)
    assert "\x1b[1mTraining\x1b[0m on [3] images" in said
    assert "\x1b[33mlook\\x1b[2J here" in said
    assert LONG in said  # on one line, to be copied
    detail = [line for line in said.splitlines() if "terminal" in line or "detail" in line]
    assert len(detail) == 2
    assert all("  " in line for line in detail)
    assert "───" in said
    assert "│" not in said


def test_live_line_shows_items_bytes_or_seconds(terminal):
    terminal.width = 100
    with LiveLine(terminal) as line:
        line.show("downloading", 500_000, 2_000_000, in_bytes=True)
        line.show("examining", 3, 7, details="soon")
        line.show("waiting")
    said = terminal.file.getvalue()
    assert "examining" in said
    assert "3/7" in said
    assert "soon" in said
    assert "0:00" in said
    assert said.rstrip().endswith("\x1b[2K")  # the line is removed


def test_narrow_terminal_truncates_details(terminal):
    with LiveLine(terminal) as line:
        line.show("epoch 1/3", 3, 7, details="0:05 left, and more that has no room")
    said = terminal.file.getvalue()
    assert "0:05…" in said
    assert "3/7" in said
    assert said.count("epoch") == said.count("3/7")


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "0:05"), (65, "1:05"), (7210, "2:00:10")])
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


def test_error_with_log_and_resume_command(capsys, tmp_path):
    log = tmp_path / "app.log"
    print_error("ConfigError", "a.yml: is [invalid]; fix it", log=log, resume_command="do this")
    assert capsys.readouterr().err.splitlines() == [
        "ConfigError: a.yml: is [invalid]; fix it",
        "Log:",
        str(log),
        "Resume with:",
        "do this",
    ]
    print_error("ConfigError", "short")
    assert capsys.readouterr() == ("", "ConfigError: short\n")


def test_pipe_does_not_wrap_lines(capsys):
    console = language.open_console()
    print_notice(console, "word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_notebook_gets_a_line_that_is_replaced(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as captured, LiveLine(Console(force_jupyter=True)) as line:
            line.show("reading", 1, 4)
            line.show("reading", 2, 4)  # too soon
            line.show("training", 1, 3, details="loss 2.5")
    finally:
        InteractiveShell.clear_instance()
    texts = [output.data["text/plain"] for output in captured.outputs]
    assert texts == ["reading  1/4", "training  1/3  loss 2.5", ""]
