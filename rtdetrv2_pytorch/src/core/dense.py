"""The setting `recipe: dense`: dense supervision after DEIM, arXiv:2412.04234.

Mosaics and MixUp multiply the objects of an image in the first half of a run, and the
matchability-aware loss trains matches with a low overlap. Short trainings lose AP: see
docs/accuracy.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..data.augment.compose import Policy
from ..data.loading.loader import DataLoader
from ..misc.errors import ConfigError
from .yaml_files import KeyPath, Layer, get, put

_TRANSFORMS: KeyPath = ("train_dataloader", "dataset", "transforms")
_OPS, _POLICY = (*_TRANSFORMS, "ops"), (*_TRANSFORMS, "policy")
_CRITERION = "RTDETRCriterionv2"
_GAMMA = 1.5
_MIXING = ("Mosaic", "MixUp")
_MIXED = 0.5  # of the run
_CLEAN = 0.1  # of the run, at its end
_MAX_WARMUP, _SHORT_WARMUP = 1 / 3, 0.05  # of the run, as in `fit_steps`
_ADVICE = "recipe: dense is not recommended, it cost AP in a short training: docs/accuracy.md"


def apply_dense(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Use the loss and the operations of the recipe; what is set already is kept.

    Args:
        values: the merged configuration, changed in place.
        layers: that it was merged from.

    Raises:
        ConfigError: if the training data has no `Resize` to (height, width).
    """
    # A configuration without training data is that of a detector.
    if values.get("recipe") != "dense" or values.get("train_dataloader") is None:
        return []
    notes = []
    criterion = values.get(_CRITERION)
    if isinstance(criterion, dict) and "vfl" in (criterion.get("losses") or ()):
        weights = dict(criterion.get("weight_dict") or {})
        weights["loss_mal"] = weights.pop("loss_vfl", 1)
        losses = ["mal" if loss == "vfl" else loss for loss in criterion["losses"]]
        values[_CRITERION] = {
            **criterion, "losses": losses, "weight_dict": weights, "gamma": _GAMMA
        }  # fmt: skip
        notes.append(f"{_CRITERION}.losses: vfl -> mal, with gamma {_GAMMA:g}")
    ops = list(get(values, _OPS) or ())
    types = [op.get("type") if isinstance(op, Mapping) else op for op in ops]
    size = ops[types.index("Resize")].get("size") if "Resize" in types else None
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ConfigError(
            f"recipe = 'dense': {'.'.join(_OPS)} has no Resize with a (height, width); add one"
        )
    if not set(_MIXING) & set(types):
        side = max(size)
        mosaic = {
            "type": "Mosaic", "size": side // 2, "max_size": side, "p": 0.5,
            "skip": ["RandomZoomOut", "RandomIoUCrop"],
        }  # fmt: skip
        place = types.index("Resize") + 1
        put(values, _OPS, [mosaic, *ops[:place], {"type": "MixUp", "p": 0.5}, *ops[place:]])
        notes.append(f"recipe: dense adds Mosaic and MixUp to {'.'.join(_OPS)}")
    return notes


def fit_dense(values: dict[str, Any], loader: DataLoader) -> list[str]:
    """Derive the phases of the recipe from the steps of the run.

    Args:
        values: the configuration, changed in place.
        loader: of the training data, whose policy is changed, too.
    """
    transforms = loader.dataset.transforms
    if values.get("recipe") != "dense" or transforms is None:
        return []
    steps = math.ceil(len(loader) / (values.get("grad_accum_steps") or 1))
    warmup = get(values, ("lr_warmup_scheduler", "warmup_duration")) or 0
    first, end, clean = phases(values.get("epoches") or 72, steps, warmup)
    policy = {"ops": [], **(get(values, _POLICY) or {}), "name": "stop_epoch"}
    policy["epoch"] = min(policy.get("epoch") or clean, clean)  # 0 would disable the recipe
    policy["ops"] = list(dict.fromkeys([*policy["ops"], *_MIXING]))
    phase = {name: [first, end] for name in _MIXING}
    policy["active"] = {**(policy.get("active") or {}), **phase}
    put(values, _POLICY, policy)
    transforms.policy = cast(Policy, policy)
    if first >= end:
        return [_ADVICE, "recipe: dense mixes no images, because the run is too short"]
    return [
        _ADVICE,
        f"recipe: dense mixes images from epoch {first + 1} to {end}; no strong augmentation from "
        f"epoch {policy['epoch'] + 1}",
    ]


def phases(epochs: int, steps_per_epoch: int, warmup_steps: int) -> tuple[int, int, int]:
    """Return the first epoch with mixed images, their end, and the first clean epoch, from 0.

    Images are mixed after the warm-up, for half of the run. A tenth of the run, one epoch or more,
    is clean.

    Args:
        epochs: of the run.
        steps_per_epoch: optimizer steps.
        warmup_steps: of the learning rate, as configured; shortened in short runs.
    """
    steps = epochs * steps_per_epoch
    if warmup_steps > steps * _MAX_WARMUP:
        warmup_steps = max(1, round(steps * _SHORT_WARMUP))
    clean = max(epochs - max(1, math.ceil(epochs * _CLEAN)), 0)
    first = min(max(1, math.ceil(warmup_steps / steps_per_epoch)), clean)
    return first, min(first + round(epochs * _MIXED), clean), clean
