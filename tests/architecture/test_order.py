"""Workers begin with long tests, half of them with those that wait."""

from types import SimpleNamespace

from tests.order import spread


def item(name, *, slow=False, fixtures=()):
    def get_closest_marker(marker):
        return marker if slow and marker == "slow" else None

    return SimpleNamespace(
        nodeid=name, fixturenames=fixtures, get_closest_marker=get_closest_marker
    )


def test_half_of_the_workers_begin_with_waiting_tests_and_modules_stay_together():
    items = [
        *(item(f"tests/unit/test_a.py::{n}") for n in range(6)),
        *(item(f"tests/unit/test_b.py::{n}", slow=n == 0) for n in range(2)),
        item("tests/integration/test_c.py::0"),
        item("tests/integration/test_c.py::1"),
        item("tests/unit/test_d.py::0", fixtures=("experiment",)),
        item("tests/app/test_e.py::0", fixtures=("tmp_path", "experiment")),
        item("tests/unit/test_f.py::0"),
        item("tests/browser/test_g.py::0"),
    ]
    ordered = [each.nodeid.removeprefix("tests/") for each in spread(items, 2)]
    assert ordered == [
        # The shared experiment, then pages, then short tests.
        "app/test_e.py::0",
        "unit/test_d.py::0",
        "browser/test_g.py::0",
        *(f"unit/test_a.py::{n}" for n in range(6)),
        # The other worker computes.
        "integration/test_c.py::0",
        "integration/test_c.py::1",
        "unit/test_b.py::0",
        "unit/test_b.py::1",
        "unit/test_f.py::0",
    ]
    assert len(spread(items, 1)) == len(items)
