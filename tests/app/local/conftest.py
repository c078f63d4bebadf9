"""The SDK's client of the module's instance, without retries."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def one_try(monkeypatch):
    """Disable retries."""
    monkeypatch.setenv("SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK", "1")
    monkeypatch.setenv("SUPERVISELY_PUBLIC_API_RETRIES", "1")
    monkeypatch.setenv("SUPERVISELY_PUBLIC_API_RETRY_SLEEP_SEC", "0")
    for name in ("API_TOKEN", "SERVER_ADDRESS", "SUPERVISELY_TASK_ID", "TASK_ID", "ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api(instance):
    return instance.api()


@pytest.fixture
def project(api):
    """An empty project with a unique name."""
    return api.project.create(1, f"project {next(_numbers)}")


@pytest.fixture
def dataset(api, project):
    return api.dataset.create(project.id, "ds")


@pytest.fixture
def array():
    """Create images of 30x20 pixels; equal numbers give equal images."""

    def make(number: int, width: int = 30, height: int = 20) -> np.ndarray:
        return np.full((height, width, 3), number % 256, np.uint8)

    return make


@pytest.fixture
def png(array):
    def make(number: int, **size) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array(number, **size)).save(file, "PNG")
        return file.getvalue()

    return make
