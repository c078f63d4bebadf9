"""Settings of an earlier training: which of them fit the project of this one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rtdetrv2_pytorch.src.misc.text import counted

_IDS = {"datasets": "dataset", "collections": "collection"}  # split method -> what it lists


@dataclass(frozen=True, kw_only=True)
class ProjectContent:
    """The parts of a project that settings refer to."""

    classes: Mapping[str, int | None]  # id by name
    tags: Collection[str]
    datasets: Collection[int]
    collections: Collection[int]


def fit_settings(
    settings: Mapping[str, Any], project: ProjectContent
) -> tuple[dict[str, Any], dict[str, str]]:
    """Keep the settings that fit a project.

    Args:
        settings: in the SDK's format ("app state").
        project: to train on.

    Returns:
        The settings, without the parts that have to be chosen again, and for each changed or
        removed part a note for the user.
    """
    fitted, notes = dict(settings), {}
    classes = settings.get("classes")
    if classes:
        fitted["classes"], missing = _split(classes, {*project.classes, *project.classes.values()})
        if missing:
            kept = f"{len(fitted['classes'])} of {counted(len(classes), 'class')} are selected"
            notes["classes"] = f"The project has no class {_listed(missing)}; {kept}."
        if not fitted["classes"]:
            del fitted["classes"]
            notes["classes"] = f"The project has no class {_listed(missing)}. Select classes."
    split = settings.get("train_val_split")
    if isinstance(split, Mapping):
        fitted["train_val_split"], note = _fit_split(split, project)
        if note:
            notes["train_val_split"] = note
        if not fitted["train_val_split"]:
            del fitted["train_val_split"]
    return fitted, notes


def _fit_split(
    split: Mapping[str, Any], project: ProjectContent
) -> tuple[dict[str, Any] | None, str]:
    method = str(split.get("method") or "").lower()
    if method == "tags":
        tags = [split.get("train_tag"), split.get("val_tag")]
        missing = [tag for tag in tags if tag not in project.tags]
        note = f"The project has no tag {_listed(missing)}. Choose the split." if missing else ""
        return (None if missing else dict(split)), note
    kind = _IDS.get(method)
    if kind is None:
        return dict(split), ""
    present = project.datasets if kind == "dataset" else project.collections
    fitted, gone = dict(split), []
    for part in ("train", "val"):
        fitted[f"{part}_{method}"], missing = _split(split.get(f"{part}_{method}") or [], present)
        gone += missing
    if not gone:
        return fitted, ""
    note = f"The project has no {kind} with ID {_listed(gone)}"
    if fitted[f"train_{method}"] and fitted[f"val_{method}"]:
        return fitted, f"{note}; the others are selected."
    return None, f"{note}. Choose the split."


def _split(names: Collection[Any], present: Collection[Any]) -> tuple[list[Any], list[Any]]:
    """Return the names that are present, and the others."""
    return [n for n in names if n in present], [n for n in names if n not in present]


def _listed(names: Collection[Any]) -> str:
    shown = ", ".join(str(name) for name in list(names)[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
