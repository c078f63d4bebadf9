"""A test may be skipped only for a reason on the list."""

from types import SimpleNamespace

from tests.skips import forbidden_skips


def report(reason):
    return SimpleNamespace(nodeid="tests/x.py::test_y", longrepr=("x.py", 1, f"Skipped: {reason}"))


def test_reasons_on_the_list_pass():
    assert forbidden_skips([report("no GPU"), report("no BCCD folder: set BCCD_DIR")]) == []


def test_any_other_reason_is_reported_with_its_test():
    assert forbidden_skips([report("too slow today")]) == [
        "tests/x.py::test_y: Skipped: too slow today"
    ]
