"""A platform for the tests: a local instance on a free port of the loopback interface."""

import pytest

from tests.sdk import import_sdk

import_sdk()


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A running instance with an empty team; it can inject faults."""
    from tests.faulty_instance import FaultyInstance

    with FaultyInstance(tmp_path_factory.mktemp("instance")) as running:
        yield running
