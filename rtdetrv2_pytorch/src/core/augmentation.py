"""The setting `augmentation`: use the augmentations of a preset for the training data."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.augment.presets import PRESETS, preset_ops, stopped_ops
from ..misc.errors import ConfigError
from .yaml_files import KeyPath, Layer, get, last_setter, put

TRANSFORMS: KeyPath = ("train_dataloader", "dataset", "transforms")
_OPS, _POLICY = (*TRANSFORMS, "ops"), (*TRANSFORMS, "policy")
_STOP_EPOCH = (*_POLICY, "epoch")


def apply_augmentation(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Replace the augmentations of the training data, and return notes for the user.

    Operations that are set together with the preset or after it win. The configuration of a run
    has both: the preset and its operations.

    Args:
        values: the merged configuration, changed in place.
        layers: that it was merged from.

    Raises:
        ConfigError: if the training data has no `Resize`.
    """
    name, ops = values.get("augmentation"), get(values, _OPS)
    if not isinstance(name, str) or name not in PRESETS:  # null, or an error of the settings
        return []
    if values.get("train_dataloader") is None:  # the configuration of a detector
        return []
    setter = last_setter(layers, ("augmentation",))
    path = ".".join(_OPS)
    if not any(isinstance(op, Mapping) and op.get("type") == "Resize" for op in ops or ()):
        raise ConfigError(f"augmentation = {name!r}: {path} has no Resize; add one")
    chosen = preset_ops(name, ops)
    if last_setter(layers, _OPS) >= setter:
        # `recipe: dense` and `balanced_paste` add these.
        added = ("Mosaic", "MixUp", "CopyPaste")
        rest = [op for op in ops if op.get("type") not in added]
        if rest == chosen:
            return []
        return [f"augmentation: {name} is not used, because {path} is set to other operations"]
    put(values, _OPS, chosen)
    stopped = stopped_ops(name)
    if get(values, _POLICY) is not None:
        values[TRANSFORMS[0]]["dataset"]["transforms"]["policy"]["ops"] = stopped
    notes = [f"augmentation: {name} replaces the operations of {path}"]
    epochs, is_older = values.get("epoches"), last_setter(layers, _STOP_EPOCH) <= setter
    if stopped and get(values, _STOP_EPOCH) == 0 and is_older and type(epochs) is int:
        stop = max(epochs - 1, 1)
        put(values, _STOP_EPOCH, stop)
        notes.append(f"{'.'.join(_STOP_EPOCH)}: 0 -> {stop}, because 0 would disable the preset")
    return notes
