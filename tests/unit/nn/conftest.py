"""The published facts."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models() -> dict:
    """tests/golden/models.json: every published configuration, resolved."""
    return json.loads((Path(__file__).parents[2] / "golden" / "models.json").read_text())
