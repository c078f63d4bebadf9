"""CommandLog: records for the console and for the file."""

import io
import logging
import warnings

import pytest
from rich.console import Console

from rtdetrv2.terminal.command_log import CommandLog, run_logged
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.log_routing import FILE_ONLY

OURS = logging.getLogger("rtdetrv2_pytorch.src.somewhere")
THEIRS = logging.getLogger("some.library")


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def console(request):
    return Console(file=io.StringIO(), force_terminal=request.param, width=200, highlight=False)


def log_everything():
    OURS.info("epoch=0")
    OURS.warning("too few [boxes]")
    OURS.info("a table", extra=FILE_ONLY)
    THEIRS.error("a library failed")
    warnings.warn("this is deprecated", FutureWarning, stacklevel=1)


def test_library_records_go_to_the_file_only(console, tmp_path, capsys):
    path = tmp_path / "new" / "train.log"
    with CommandLog(console) as log:
        log_everything()  # before the file is open
        log.open(path)
        OURS.info("epoch=1")
    said = path.read_text()
    for part in (
        "epoch=0",
        "too few [boxes]",
        "a table",
        "a library failed",
        "FutureWarning: this is",
    ):
        assert said.count(part) == 1
    assert said.splitlines()[-1].endswith("INFO rtdetrv2_pytorch.src.somewhere epoch=1")
    seen = console.file.getvalue() + capsys.readouterr().err
    assert "too few [boxes]" in seen
    assert "a table" not in seen
    assert "library" not in seen
    assert "deprecated" not in seen
    assert ("epoch=0" in seen) is (not console.is_terminal)


def test_tracebacks_go_to_the_file_only(console, tmp_path, capsys):
    with CommandLog(console) as log:
        log.open(tmp_path / "train.log")
        try:
            raise ValueError("deep inside")
        except ValueError:
            OURS.exception("no report")
    seen = console.file.getvalue() + capsys.readouterr().err
    assert "no report" in seen
    assert "Traceback" not in seen
    assert "ValueError: deep inside" in (tmp_path / "train.log").read_text()


def test_root_logger_is_restored(console):
    before = (list(logging.root.handlers), logging.root.level)
    with CommandLog(console):
        assert logging.root.handlers != before[0]
    assert (logging.root.handlers, logging.root.level) == before


def test_unwritable_folder_is_named_with_its_option(console, tmp_path):
    (tmp_path / "file").touch()
    with (
        CommandLog(console) as log,
        pytest.raises(ConfigError, match=r"--output '.*file': not writable"),
    ):
        log.open_in(tmp_path / "file", "x.log", option="--output")


def test_run_logged_reports_errors_and_exit_status(tmp_path, capsys):
    path = tmp_path / "run.log"

    def ends_with(error, *, has_log):
        def body(console, log):
            if has_log:
                log.open(path)
            THEIRS.warning("an earlier warning")
            raise error

        return run_logged(body)

    assert ends_with(ConfigError("x: invalid; fix it"), has_log=False) == 1
    assert capsys.readouterr().err == "ConfigError: x: invalid; fix it\n"
    assert ends_with(ConfigError("x: invalid; fix it"), has_log=True) == 1
    assert capsys.readouterr().err == f"ConfigError: x: invalid; fix it\nLog:\n{path}\n"
    assert "an earlier warning" in path.read_text()
    assert "Traceback" in path.read_text()
    assert ends_with(ZeroDivisionError("oh\nno"), has_log=True) == 1
    assert (
        capsys.readouterr().err
        == f"ZeroDivisionError: oh; the traceback is in the log\nLog:\n{path}\n"
    )
    with pytest.raises(ZeroDivisionError):
        ends_with(ZeroDivisionError("oh"), has_log=False)
    assert ends_with(KeyboardInterrupt(), has_log=True) == 130
    assert capsys.readouterr().out == "Interrupted.\n"
