"""Values that have to agree across sections: the latest choice wins, what it outdates follows.

Everything that is changed is told; everything else is honoured as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..misc.errors import ConfigError
from .build import parameters_of
from .catalog import ALIASES, COMPONENTS
from .yaml_files import KeyPath, Layer, get, last_setter, put

_TRAIN_OPS: KeyPath = ("train_dataloader", "dataset", "transforms", "ops")
_VAL_OPS: KeyPath = ("val_dataloader", "dataset", "transforms", "ops")
_SIZE: KeyPath = ("eval_spatial_size",)
_STOP_EPOCHS: tuple[KeyPath, ...] = (
    ("train_dataloader", "dataset", "transforms", "policy", "epoch"),
    ("train_dataloader", "collate_fn", "stop_epoch"),
)
_MILESTONES: KeyPath = ("lr_scheduler", "milestones")
_STEP_COUNTS: tuple[KeyPath, ...] = (
    ("lr_warmup_scheduler", "warmup_duration"),
    ("ema", "warmups"),
)
_EMA_DECAY: KeyPath = ("ema", "decay")
_LONGEST_WARMUP = 1 / 3  # of the run
_SHORTENED_WARMUP = 0.05  # of the run


def drop_leftovers(values: dict[str, Any], layers: Sequence[Layer]) -> list[str]:
    """Remove what a component left behind that was replaced by one of another type.

    `lr_scheduler: {type: CosineAnnealingLR}` on top of a recipe with MultiStepLR merges with its
    milestones, which the new type does not know. Keys that both know stay.

    Args:
        values: the merged configuration; changed in place.
        layers: what it was merged from.

    Returns:
        What was removed, for people.
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
                notes.append(f"{'.'.join((*path, key))}: removed, {name} does not have it")
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
    """Make `eval_spatial_size` and the Resize of both splits one size.

    Whoever set a size last decides: `-u eval_spatial_size=[320,320]` on top of a recipe changes
    the recipe's two Resizes too. Different sizes chosen in one place are an error.

    Args:
        values: the merged configuration; changed in place.
        layers: what it was merged from.

    Returns:
        What was changed, for people.

    Raises:
        ConfigError: if one place gives different sizes.
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
            f"{layers[newest].source}: different image sizes (height, width): {listed}; training "
            "and evaluation need one size"
        )
    size = next(iter(chosen.values()))
    notes = []
    for path, old in found.items():
        if old != size:
            _set_size(values, path, size)
            notes.append(f"{'.'.join(path)}: image size {list(old)} -> {list(size)}")
    return notes


def _size(value: Any) -> tuple[int, int] | None:
    """(height, width) of a size, or of the Resize in a list of operations."""
    if isinstance(value, list) and value and all(isinstance(op, Mapping) for op in value):
        resize: Mapping[str, Any] = next((op for op in value if op.get("type") == "Resize"), {})
        value = resize.get("size")
        if isinstance(value, int):  # of the shorter side: the shape is the image's own
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
    """Move epochs of a recipe that lie beyond this run to the same fraction of it.

    A short fine-tuning inherits, say, 117 from a recipe of 120 epochs: at 50 epochs its strong
    augmentation would never stop. An epoch that was beyond the recipe itself (a milestone of
    1000, meaning never) stays.

    Args:
        values: the merged configuration; changed in place.
        layers: what it was merged from.

    Returns:
        What was changed, for people.
    """
    epochs = values.get("epoches")
    if type(epochs) is not int:
        return []
    notes = []
    for path in (*_STOP_EPOCHS, _MILESTONES):
        old = get(values, path)
        setter = last_setter(layers, path)
        recipe = layers[setter].recipe_epochs if setter >= 0 else None
        is_unused = path[1] == "collate_fn" and not get(values, (*path[:-1], "scales"))
        if old is None or type(recipe) is not int or is_unused:
            continue
        new = (
            [_moved(e, recipe, epochs) for e in old]
            if isinstance(old, list)
            else _moved(old, recipe, epochs)
        )
        if new != old:
            put(values, path, new)
            notes.append(
                f"{'.'.join(path)}: {old} -> {new}, as in a run of {recipe} epochs, for {epochs}"
            )
    return notes


def _moved(epoch: Any, recipe_epochs: int, epochs: int) -> Any:
    is_beyond_run = type(epoch) is int and epochs <= epoch < recipe_epochs
    if not is_beyond_run:
        return epoch
    # At least one epoch on either side, where there are two.
    return min(max(round(epoch / recipe_epochs * epochs), 1), max(epochs - 1, 1))


def fit_steps(values: dict[str, Any], optimizer_steps: int) -> list[str]:
    """Shorten warm-ups that would take more than a third of the run to 5 % of it.

    They are counted in optimizer steps and meant for COCO, where an epoch has thousands; on a
    small data set they would outlast the training. With its warm-up gone, the moving average
    would remember the first weights to the end (0.9999 looks back 10,000 steps), so its decay is
    lowered too, to look back 5 % of the run.

    Args:
        values: the merged configuration; changed in place.
        optimizer_steps: of the whole run.

    Returns:
        What was changed, for people.
    """
    notes = []
    short = max(1, round(optimizer_steps * _SHORTENED_WARMUP))
    for path in _STEP_COUNTS:
        old = _or_default(values, path)
        if type(old) is not int or old <= optimizer_steps * _LONGEST_WARMUP:
            continue
        put(values, path, short)
        notes.append(f"{'.'.join(path)}: {old} -> {short} steps, 5 % of the {optimizer_steps} here")
        decay = _or_default(values, _EMA_DECAY)
        if path[0] == "ema" and isinstance(decay, float) and decay > 1 - 1 / short:
            put(values, _EMA_DECAY, 1 - 1 / short)
            notes.append(
                f"{'.'.join(_EMA_DECAY)}: {decay:g} -> {1 - 1 / short:.4g}, to look back as far"
            )
    return notes


def _or_default(values: Mapping[str, Any], path: KeyPath) -> Any:
    """A value of the moving average or the warm-up; if it is not given, what it will be."""
    section, value = values.get(path[0]), get(values, path)
    if value is not None or path[0] != "ema" or not isinstance(section, Mapping):
        return value
    return parameters_of(COMPONENTS["ModelEMA"])[path[1]].default
