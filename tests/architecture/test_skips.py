"""Tests are skipped only for allowed reasons."""

from types import SimpleNamespace

from tests.skips import forbidden_skips


def report(reason):
    return SimpleNamespace(nodeid="tests/x.py::test_y", longrepr=("x.py", 1, f"Skipped: {reason}"))


def test_allowed_reasons_pass():
    assert forbidden_skips([report("no GPU"), report("no BCCD folder: set BCCD_DIR")]) == []


def test_other_reasons_are_reported():
    assert forbidden_skips([report("too slow today")]) == [
        "tests/x.py::test_y: Skipped: too slow today"
    ]
