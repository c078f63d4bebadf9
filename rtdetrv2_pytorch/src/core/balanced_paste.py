"""The setting `balanced_paste`: paste objects of all classes equally often into training images."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..data.augment.compose import Policy
from ..data.loading.loader import DataLoader
from ..misc.errors import ConfigError
from ..misc.ranges import Fraction
from .augmentation import TRANSFORMS
from .build import convert
from .yaml_files import Layer, get, last_setter, put

_OPS, _POLICY = (*TRANSFORMS, "ops"), (*TRANSFORMS, "policy")
_SETTING, _PASTE = ("balanced_paste",), "CopyPaste"


def apply_balanced_paste(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Add `CopyPaste` before the other operations, or remove it, unless they contain their own.

    The configuration of a run contains both the setting and what it added. The setting wins over
    such an operation of the same or an earlier layer; null leaves the operations as they are.

    Args:
        values: the merged configuration, changed in place.
        layers: that it was merged from.
    """
    setter, ops = last_setter(layers, _SETTING), get(values, _OPS)
    if setter < 0 or not isinstance(ops, list):  # a detector has no training data
        return []
    try:
        probability = convert(get(layers[setter].values, _SETTING), Fraction, _SETTING[0])
    except ConfigError:  # reported by the check of the settings
        return []
    values[_SETTING[0]] = probability  # null in a later layer
    is_newer = setter >= last_setter(layers, _OPS)
    rest, path = [op for op in ops if not (is_newer and _is_added(op))], ".".join(_OPS)
    own = [op for op in rest if _type(op) == _PASTE]
    if probability and any(not _is_added(op) for op in own):
        return [f"balanced_paste: {probability:g} is not used, because {path} contains {_PASTE}"]
    if probability and not own:
        rest = [{"type": _PASTE, "p": probability, "balanced": True}, *rest]
    if rest == ops:
        return []
    put(values, _OPS, rest)
    change = f"adds {_PASTE} to" if probability else f"removes {_PASTE} from"
    if probability and any(map(_is_added, ops)):
        change = f"replaces {_PASTE} in"
    return [f"balanced_paste: {probability:g} {change} {path}"]


def _type(op: Any) -> Any:
    return op.get("type") if isinstance(op, Mapping) else op


def _is_added(op: Any) -> bool:
    return isinstance(op, Mapping) and op == {"type": _PASTE, "p": op.get("p"), "balanced": True}


def fit_balanced_paste(values: dict[str, Any], loader: DataLoader) -> None:
    """Let `CopyPaste` end with strong augmentation, at the latest before the last epoch.

    Pasted objects have visible borders, which no object of a validation image has.

    Args:
        values: the configuration, changed in place.
        loader: of the training data, whose policy is changed, too.
    """
    transforms, epochs = loader.dataset.transforms, values.get("epoches") or 72
    is_added = values.get("balanced_paste") and any(map(_is_added, get(values, _OPS) or ()))
    if not is_added or transforms is None:
        return
    policy = {"name": "default", **(get(values, _POLICY) or {})}
    stop = policy.get("epoch") if policy["name"] == "stop_epoch" else None
    end = min(stop or epochs, epochs - 1)  # stop is 0 in a short run without strong augmentation
    policy["active"] = {**(policy.get("active") or {}), _PASTE: [0, end]}
    put(values, _POLICY, policy)
    transforms.policy = cast(Policy, policy)
