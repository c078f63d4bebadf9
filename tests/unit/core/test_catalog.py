"""Names, keys and defaults of the YAML format."""

import inspect
import json
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.core.catalog import ALIASES, COMPONENTS, SHARED, SLOTS
from rtdetrv2_pytorch.src.core.settings import SETTING_NAMES

FORMAT = json.loads((Path(__file__).parents[2] / "golden" / "yaml_format.json").read_text())
REQUIRED = "<required>"

# Defaults that differ from the published ones.
OTHER_DEFAULTS = {
    ("DataLoader", "pin_memory"),  # follows the device
    ("DataLoader", "persistent_workers"),  # workers are kept
    ("CocoEvaluator", "ranges"),  # same results with faster-coco-eval
    ("CosineAnnealingLR", "T_max"),  # the whole run
}


@pytest.mark.parametrize("name", FORMAT["sections"])
def test_section_keys_are_parameters_with_published_defaults(name):
    parameters = inspect.signature(COMPONENTS[name]).parameters
    for key, default in FORMAT["sections"][name].items():
        assert key in parameters, f"{name} does not accept {key}"
        ours = parameters[key].default
        if (name, key) in OTHER_DEFAULTS:
            continue
        if default == REQUIRED:
            assert ours is inspect.Parameter.empty, f"{name}.{key} has a default: {ours!r}"
        else:
            ours = list(ours) if isinstance(ours, tuple) else ours
            assert ours == default, f"{name}.{key}"


def test_top_level_keys_are_known():
    top = FORMAT["top_level"]
    assert set(top["run_settings"]) | set(top["app_settings"]) <= set(SETTING_NAMES)
    assert set(top["slots"]) == set(SLOTS)
    assert set(top["shared_values"]) == set(SHARED)
    assert FORMAT["aliases"].items() <= ALIASES.items()
