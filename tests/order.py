"""The order of tests for the workers of pytest-xdist."""

from collections.abc import Sequence
from itertools import groupby

import pytest

_WAITING = ("tests/app/test_", "tests/browser/")  # for processes and pages
_HEAVY = (*_WAITING, "tests/integration/")  # they start processes


def spread(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Order tests so that all processors are busy, and modules stay together.

    Half of the workers begin with tests that wait for most of their time, the others with long
    tests that compute. Workers begin with equal parts of the tests, in their order, and steal from
    the ends of others: the last tests should be short ones, so that no worker works alone at the
    end.

    Args:
        items: all tests, by module.
        workers: number of workers.
    """
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    modules = [list(tests) for _, tests in groupby(items, lambda item: item.nodeid.split("::")[0])]
    modules.sort(key=lambda tests: (not _uses_experiment(tests), -_num_long(tests)))
    loads = [0] * workers
    num_waiting = (workers + 1) // 2
    for tests in modules:
        if _uses_experiment(tests):  # trained in a minute; one worker has all of its tests
            part = 0
        elif _num_long(tests):
            is_waiting = tests[0].nodeid.startswith(_WAITING) or workers == 1
            own = range(num_waiting) if is_waiting else range(num_waiting, workers)
            part = min(own, key=loads.__getitem__)
        else:
            part = min(range(workers), key=lambda number: len(parts[number]))
        parts[part] += tests
        loads[part] += _num_long(tests)
    return [item for part in parts for item in part]


def _uses_experiment(tests: Sequence[pytest.Item]) -> bool:
    return any("experiment" in getattr(item, "fixturenames", ()) for item in tests)


def _num_long(tests: Sequence[pytest.Item]) -> int:
    return sum(
        item.nodeid.startswith(_HEAVY) or item.get_closest_marker("slow") is not None
        for item in tests
    )
