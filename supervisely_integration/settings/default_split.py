"""The split of a project that is used unless a person chooses another one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.data.split_names import VAL_PERCENT, Decision, decide, split_of_path
from rtdetrv2_pytorch.src.misc.text import counted


@dataclass(frozen=True)
class DefaultSplit:
    """A split in the SDK's format, and why it is used."""

    settings: Mapping[str, Any]  # empty if there is nothing to train on
    num_train: int
    num_val: int
    note: str  # for the user


def default_split(
    datasets: Mapping[str, tuple[int, int]], collections: Mapping[str, tuple[int, int]]
) -> DefaultSplit:
    """Return the split that the names of datasets decide, that of the import, or a random one.

    Args:
        datasets: id and number of images by path, "parent/child".
        collections: id and number of images by name; an import without named splits creates "train"
            and "val".
    """
    decision = decide({path: count for path, (_, count) in datasets.items()})
    train, val = decision.used_for("train"), decision.used_for("val")
    if not decision.divided and not train:
        return DefaultSplit({}, 0, 0, decision.note)
    if train:
        ids = [[datasets[path][0] for path in paths] for paths in (train, val)]
        settings = {"method": "datasets", "train_datasets": ids[0], "val_datasets": ids[1]}
        num_train, num_val = (sum(datasets[path][1] for path in paths) for paths in (train, val))
        return DefaultSplit(settings, num_train, num_val, decision.note)
    if {"train", "val"} <= collections.keys():
        (train_id, num_train), (val_id, num_val) = (collections[name] for name in ("train", "val"))
        settings = {"method": "collections", "train_collections": [train_id]}
        return DefaultSplit(
            {**settings, "val_collections": [val_id]}, num_train, num_val, decision.note
        )
    return _random_split(sum(count for _, count in datasets.values()), decision)


def _random_split(total: int, decision: Decision) -> DefaultSplit:
    """Return a split by the SDK, which divides all datasets and samples at each start."""
    percent = 100 - VAL_PERCENT
    is_named = any(split_of_path(path) for path in decision.divided)
    why = "the datasets name a training split only" if is_named else "the datasets name no splits"
    num_train = round(total * percent / 100)
    return DefaultSplit(
        {"method": "random", "split": "train", "percent": percent},
        num_train,
        total - num_train,
        f"Random split of {counted(total, 'image')} ({why}): {percent} % training, "
        f"{VAL_PERCENT} % validation, chosen by the platform at each start",
    )
