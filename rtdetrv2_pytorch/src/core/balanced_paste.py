"""The setting `balanced_paste`: paste objects of all classes equally often into training images."""

from collections.abc import Mapping, Sequence
from typing import Any

from .yaml_files import KeyPath, Layer, get, put

_TRANSFORMS: KeyPath = ("train_dataloader", "dataset", "transforms")
_OPS, _POLICY = (*_TRANSFORMS, "ops"), (*_TRANSFORMS, "policy")
_PASTE = "CopyPaste"


def apply_balanced_paste(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Add `CopyPaste`, unless the operations contain it, for all epochs with augmentation.

    Pasted objects have visible borders, so the last epoch has none.

    Args:
        values: the merged configuration, changed in place.
        layers: that it was merged from.
    """
    probability, ops = values.get("balanced_paste"), get(values, _OPS)
    # Errors of the settings are reported by their check; a detector has no training data.
    if not isinstance(probability, int | float) or not probability or not isinstance(ops, list):
        return []
    types = [op.get("type") if isinstance(op, Mapping) else op for op in ops]
    notes = []
    if _PASTE not in types:
        put(values, _OPS, [{"type": _PASTE, "p": probability, "balanced": True}, *ops])
        notes.append(f"balanced_paste: {probability:g} adds {_PASTE} to {'.'.join(_OPS)}")
    policy = {"name": "default", **(get(values, _POLICY) or {})}
    epochs = values.get("epoches")
    if type(epochs) is int and epochs > 1:
        stop = policy.get("epoch") if policy["name"] == "stop_epoch" else None
        end = min(stop or epochs, epochs - 1)  # 0: a short run without strong augmentation
        policy["active"] = {**(policy.get("active") or {}), _PASTE: [0, end]}
        put(values, _POLICY, policy)
    return notes
