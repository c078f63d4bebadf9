"""Checks of a configuration that no signature can express."""

from collections.abc import Mapping
from typing import Any

from ..misc.errors import ConfigError
from .build import suggest
from .catalog import COMPONENTS
from .yaml_files import get


def check_transforms(values: Mapping[str, Any]) -> None:
    """Check the augmentations of both dataloaders.

    Raises:
        ConfigError: if a policy names an unknown operation, or training boxes are not normalized.
    """
    for slot in ("train_dataloader", "val_dataloader"):
        path = (slot, "dataset", "transforms", "policy", "ops")
        for name in get(values, path) or ():
            if name not in COMPONENTS:
                hint = suggest(str(name), COMPONENTS)
                raise ConfigError(f"{'.'.join(path)}: unknown operation {name!r}{hint}")
    ops = get(values, ("train_dataloader", "dataset", "transforms", "ops"))
    last = next((op for op in ops or [] if op.get("type") == "ConvertBoxes"), None)
    if ops and (not last or last.get("fmt") != "cxcywh" or not last.get("normalize")):
        raise ConfigError(
            "train_dataloader.dataset.transforms.ops: must end with "
            "{type: ConvertBoxes, fmt: cxcywh, normalize: true}; the losses need boxes 0..1"
        )
