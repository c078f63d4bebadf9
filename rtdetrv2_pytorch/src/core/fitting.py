"""Adjust values that depend on each other: later layers win, and dependent values follow.

Each function changes the merged configuration `values` in place and returns a note for the user
for every change. `layers` are those that it was merged from. Values without a conflict are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.categories import CategoryTable
from ..data.loading.loader import DataLoader
from ..misc import distributed
from ..misc.errors import ConfigError
from ..misc.text import counted
from .augmentation import apply_augmentation
from .balanced_paste import apply_balanced_paste, fit_balanced_paste
from .build import parameters_of
from .catalog import ALIASES, COMPONENTS
from .dense import apply_dense, fit_dense
from .error_places import OVERRIDES
from .settings import Settings
from .yaml_files import KeyPath, Layer, get, last_setter, put

_TRAIN_DATASET: KeyPath = ("train_dataloader", "dataset")
_TRAIN_OPS: KeyPath = (*_TRAIN_DATASET, "transforms", "ops")
_VAL_OPS: KeyPath = ("val_dataloader", "dataset", "transforms", "ops")
_SIZE: KeyPath = ("eval_spatial_size",)
_STOP_EPOCHS: tuple[KeyPath, ...] = (
    (*_TRAIN_DATASET, "transforms", "policy", "epoch"),
    ("train_dataloader", "collate_fn", "stop_epoch"),
)
_MILESTONES: KeyPath = ("lr_scheduler", "milestones")
_COSINE_LENGTH: KeyPath = ("lr_scheduler", "T_max")
_WARMUPS: tuple[KeyPath, ...] = (("lr_warmup_scheduler", "warmup_duration"), ("ema", "warmups"))
_EMA_DECAY: KeyPath = ("ema", "decay")
_CONFIGS = Path(__file__).parents[2] / "configs"
_MAX_WARMUP = 1 / 3  # of the run
_SHORT_WARMUP = 0.05  # of the run


def fit_layers(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Adjust all values that do not depend on the data."""
    fits = (
        *(drop_leftovers, fit_image_sizes, fit_epochs, apply_augmentation),
        *(apply_dense, apply_balanced_paste),
    )
    return [note for fit in fits for note in fit(values, layers)]


def fit_phases(values: dict[str, Any], loader: DataLoader) -> list[str]:
    """Choose the epochs of the operations that mix images, from the steps of the run."""
    notes = fit_dense(values, loader)
    fit_balanced_paste(values, loader)
    return notes


def drop_leftovers(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Remove keys of a component that a later layer replaced by another type.

    `lr_scheduler: {type: CosineAnnealingLR}` over a file with MultiStepLR inherits its milestones,
    which the new type does not accept. Keys that both types accept are kept.
    """
    notes = []
    for path, section in list(_typed_sections(values)):
        setter = last_setter(layers, (*path, "type"))
        earlier = {get(layer.values, (*path, "type")) for layer in layers[:setter]}
        name = ALIASES.get(section["type"], section["type"])
        if name not in COMPONENTS or earlier <= {None, section["type"]}:
            continue
        known = parameters_of(COMPONENTS[name])
        for key in [k for k in section if k != "type" and k not in known]:
            if last_setter(layers, (*path, key)) < setter:
                del section[key]
                notes.append(f"{'.'.join((*path, key))}: removed, {name} does not accept it")
    return notes


def _typed_sections(
    values: Mapping[str, Any], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    for key, value in values.items():
        if isinstance(value, dict):
            if isinstance(value.get("type"), str):
                yield (*path, key), value
            yield from _typed_sections(value, (*path, key))


def fit_image_sizes(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Make `eval_spatial_size` and the Resize of both splits the same size.

    The size that was set last wins: `-u eval_spatial_size=[320,320]` over a file changes both
    Resize operations of the file.

    Raises:
        ConfigError: if one layer sets different sizes.
    """
    found: dict[KeyPath, tuple[int, int]] = {}
    for path in (_SIZE, _TRAIN_OPS, _VAL_OPS):
        size = _size(get(values, path))
        if size is not None:
            found[path] = size
    if len(set(found.values())) < 2:
        return []

    newest = max(last_setter(layers, path) for path in found)
    chosen = {path: size for path, size in found.items() if last_setter(layers, path) == newest}
    if len(set(chosen.values())) > 1:
        listed = ", ".join(f"{'.'.join(p)}: {list(s)}" for p, s in chosen.items())
        raise ConfigError(
            f"different image sizes (height, width): {listed}; training "
            "and evaluation need the same size: set one"
        )
    size = next(iter(chosen.values()))
    notes = []
    for path, old in found.items():
        if old != size:
            _set_size(values, path, size)
            notes.append(f"{'.'.join(path)}: image size {list(old)} -> {list(size)}")
    return notes


def _size(value: Any) -> tuple[int, int] | None:
    """Return (height, width) of a size, or of the Resize in a list of operations."""
    if isinstance(value, list) and value and all(isinstance(op, Mapping) for op in value):
        resize: Mapping[str, Any] = next((op for op in value if op.get("type") == "Resize"), {})
        value = resize.get("size")
        if isinstance(value, int):  # size of the shorter side: the aspect ratio is kept
            return None
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(v) is int for v in value):
        return value[0], value[1]
    return None


def _set_size(values: dict[str, Any], path: KeyPath, size: tuple[int, int]) -> None:
    if path == _SIZE:
        values["eval_spatial_size"] = list(size)
        return
    for op in get(values, path):
        if op.get("type") == "Resize":
            op["size"] = list(size)


def fit_epochs(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Scale inherited epochs that are beyond the end of this run.

    A fine-tuning of 50 epochs that inherits 117 from a file for 120 epochs would never stop its
    strong augmentation. Epochs beyond the end of the inherited run itself are kept, such as a
    milestone of 1000 that disables decay.
    """
    epochs = values.get("epoches")
    if type(epochs) is not int:
        return []
    notes = []
    for path in (*_STOP_EPOCHS, _MILESTONES):
        old = get(values, path)
        setter = last_setter(layers, path)
        inherited = layers[setter].recipe_epochs if setter >= 0 else None
        is_unused = path[1] == "collate_fn" and not get(values, (*path[:-1], "scales"))
        if old is None or type(inherited) is not int or is_unused:
            continue
        new = (
            [_scaled(e, inherited, epochs) for e in old]
            if isinstance(old, list)
            else _scaled(old, inherited, epochs)
        )
        if new != old:
            put(values, path, new)
            notes.append(
                f"{'.'.join(path)}: {old} -> {new}, scaled from {inherited} to "
                f"{counted(epochs, 'epoch')}"
            )
    return notes


def _scaled(epoch: Any, inherited_epochs: int, epochs: int) -> Any:
    is_beyond_run = type(epoch) is int and epochs <= epoch < inherited_epochs
    if not is_beyond_run:
        return epoch
    # At least one epoch before and after it, if there are two.
    return min(max(round(epoch / inherited_epochs * epochs), 1), max(epochs - 1, 1))


def fit_budget(values: dict[str, Any], epochs: int, why: str) -> list[str]:
    """Set the number of epochs, and scale the epochs of the schedule with it.

    Epochs at or after the end of the run are kept, such as a milestone of 1000 that disables decay.
    """
    planned = int(values.get("epoches") or Settings.epoches)
    values["epoches"] = epochs
    notes = [f"epoches: {planned} -> {epochs}; {why}"] if epochs != planned else []
    for path in (*_STOP_EPOCHS, _MILESTONES, _COSINE_LENGTH):
        old = get(values, path)
        scaled = [
            min(max(round(e / planned * epochs), 1), max(epochs - 1, 1)) if 0 < e < planned else e
            for e in (old if isinstance(old, list) else [old])
            if type(e) is int
        ]
        new = scaled if isinstance(old, list) else next(iter(scaled), old)
        if path == _COSINE_LENGTH and old == planned:
            new = epochs
        if new != old:
            put(values, path, new)
            notes.append(f"{'.'.join(path)}: {old} -> {new}, scaled to {counted(epochs, 'epoch')}")
    return notes


def schedule_changes(values: Mapping[str, Any]) -> list[int]:
    """Return the epochs at which augmentation, image sizes or learning rates change."""
    found = [get(values, path) for path in (*_STOP_EPOCHS, _MILESTONES)]
    flat = [e for each in found for e in (each if isinstance(each, list) else [each])]
    return [epoch for epoch in flat if type(epoch) is int]


def fit_steps(
    values: dict[str, Any], optimizer_steps: int, layers: Sequence[Layer] = ()
) -> list[str]:
    """Shorten warm-ups of more than a third of the run to 5 % of it.

    Warm-ups are counted in optimizer steps and tuned for COCO, where an epoch has thousands. The
    EMA decay is lowered with its warm-up: 0.9999 averages over 10,000 steps, so that the initial
    weights would dominate a short run. A decay that was set for this run is kept.
    """
    notes = []
    if _EMA_DECAY[1] in (values.get("ema") or {}):  # null is the default
        put(values, _EMA_DECAY, _or_default(values, _EMA_DECAY))
    is_given = _is_for_this_run(layers, _EMA_DECAY, values.get("epoches"))
    short = max(1, round(optimizer_steps * _SHORT_WARMUP))
    for path in _WARMUPS:
        old = _or_default(values, path)
        if type(old) is not int or old <= optimizer_steps * _MAX_WARMUP:
            continue
        put(values, path, short)
        notes.append(
            f"{'.'.join(path)}: {old} -> {counted(short, 'step')}, 5 % of {optimizer_steps}"
        )
        decay = _or_default(values, _EMA_DECAY)
        is_adapted = path[0] == "ema" and not is_given
        if is_adapted and isinstance(decay, float) and decay > 1 - 1 / short:
            put(values, _EMA_DECAY, 1 - 1 / short)
            notes.append(
                f"{'.'.join(_EMA_DECAY)}: {decay:g} -> {1 - 1 / short:.4g}, to average over "
                f"{counted(short, 'step')}"
            )
    return notes


def _is_for_this_run(layers: Sequence[Layer], path: KeyPath, epochs: Any) -> bool:
    """Return whether overrides set a value, or a user's file that has the epochs of the run."""
    setter = last_setter(layers, path)
    if setter < 0 or layers[setter].source == OVERRIDES:
        return setter >= 0
    is_recipe = Path(layers[setter].source).is_relative_to(_CONFIGS)
    return not is_recipe and layers[setter].recipe_epochs == epochs


def fit_accumulation(values: dict[str, Any], steps_per_epoch: int) -> list[str]:
    """Limit `grad_accum_steps` to the batches of an epoch, at whose end the optimizer steps."""
    wanted = values.get("grad_accum_steps") or 1
    if wanted <= steps_per_epoch:
        return []
    values["grad_accum_steps"] = steps_per_epoch
    return [f"grad_accum_steps: {wanted} -> {steps_per_epoch}, the batches of an epoch"]


def fit_batch_size(values: dict[str, Any], loader: Mapping[str, Any], num_images: int) -> list[str]:
    """Reduce the training batch to the number of images if there are fewer, one per rank or more.

    Args:
        values: the merged configuration.
        loader: section of the training loader with the settings of the run.
        num_images: training images.
    """
    ranks = distributed.world_size()
    total = loader.get("total_batch_size") or loader.get("batch_size", 1) * ranks
    if not (loader.get("drop_last") and ranks <= num_images < total):
        return []
    values["train_dataloader"]["total_batch_size"] = num_images
    values.pop("batch_size", None)
    return [f"batch size: {total} -> {num_images}, the number of training images"]


def _or_default(values: Mapping[str, Any], path: KeyPath) -> Any:
    """Return a value of EMA or warm-up; for EMA, the default if it is not set."""
    section, value = values.get(path[0]), get(values, path)
    if value is not None or path[0] != "ema" or not isinstance(section, Mapping):
        return value
    return parameters_of(COMPONENTS["ModelEMA"])[path[1]].default


def fit_classes(
    values: dict[str, Any], layers: Sequence[Layer], table: CategoryTable, annotations: Path
) -> None:
    """Set `num_classes` and `remap_mscoco_category` to those of the training data.

    Values that were set together with the data or after it must agree with the data.

    Args:
        values: the merged configuration.
        layers: its layers.
        table: classes of the training data.
        annotations: file that they were read from, for error messages.

    Raises:
        ConfigError: if a value contradicts the data.
    """
    data_layer = max(
        last_setter(layers, (*_TRAIN_DATASET, key)) for key in ("ann_file", "root", "label_file")
    )
    facts = {"num_classes": len(table), "remap_mscoco_category": table.is_mscoco}
    for key, fact in facts.items():
        value = values.get(key)
        if last_setter(layers, (key,)) < data_layer:
            values[key] = fact
        elif key == "num_classes" and value != fact:
            names = ", ".join(table.names[:5]) + (", ..." if fact > 5 else "")
            raise ConfigError(
                f"num_classes = {value}, but {annotations} has {counted(fact, 'class')} ({names}); "
                "remove num_classes, it is read from the data"
            )
        elif value and not fact:
            raise ConfigError(
                f"remap_mscoco_category = {value}, but {annotations} does not have the 80 COCO "
                "categories; remove it, or set it to false"
            )
