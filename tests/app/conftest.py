"""A platform for the tests: an instance of our own, on a free port of the loopback interface."""

import pytest

from tests.sdk import import_sdk

import_sdk()


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A running instance with an empty team."""
    from supervisely_integration.local.instance import LocalInstance

    with LocalInstance(tmp_path_factory.mktemp("instance")) as running:
        yield running
