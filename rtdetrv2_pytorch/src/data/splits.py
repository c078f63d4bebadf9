"""The training and validation split of a data set folder, in any format."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..misc.errors import DatasetError
from ..misc.text import counted
from .conversion import Split, write_split
from .findings import Finding, Findings, grouped
from .readers.coco_json import without_images
from .readers.folders import CONVERTED
from .readers.formats import read
from .readers.source import DataSource, SourceImage
from .split_names import PARTS, Part, split_of_path

__all__ = ["CONVERTED", "Split", "Splits", "find_split", "find_splits"]

_EXPLICIT = (
    "or name the files: -u train_dataloader.dataset.ann_file=... "
    "-u train_dataloader.dataset.img_folder=... and the same for val_dataloader"
)
_MAX_REASONS = 3


@dataclass(frozen=True)
class Splits:
    """Training and validation data of a folder."""

    train: Split
    val: Split
    note: str = ""  # for the user: which splits are used, and why
    findings: Sequence[Finding] = field(default_factory=list)  # of neither split


def find_splits(folder: Path, work_dir: Path) -> Splits:
    """Find the splits of a data set in any format that `readers` read.

    COCO files are used as they are if each split is one file whose images are all in one folder:
    those of COCO itself (`annotations/instances_train2017.json` and `train2017/`), exports of
    Roboflow (`train/_annotations.coco.json` next to the images) and most others. All other data
    is converted to COCO files. See `split_names.decide` for what is training and validation.

    Args:
        folder: the data set.
        work_dir: for the converted annotation files; created if needed.

    Raises:
        DatasetError: if a split or its images are missing; the message says what was found.
    """
    source = read(folder)
    _check_listed(folder, source, ("train", "val"))
    if "train" not in source.decision.parts.values():
        reasons = "".join(f"; {group}" for group in grouped(source.findings)[:_MAX_REASONS])
        raise DatasetError(
            f"{folder}: {source.decision.note} ({source.format} format), {_EXPLICIT}{reasons}"
        )
    for group, count in source.groups.items():
        if count and group not in source.decision.parts:
            detail = counted(count, "image")
            source.findings.add(Finding("left_out", group, detail, count=count, lost_images=count))
    plain = _plain(source)
    if plain is not None:
        return plain
    return _convert(folder, source, work_dir)


def find_split(folder: Path, part: Part, work_dir: Path) -> tuple[Split, str]:
    """Find one split of a data set, to evaluate on it; the others may be missing.

    A split that the data names is used under its name. Otherwise the split is the one that
    training uses, see `find_splits`.

    Args:
        folder: the data set, in any format that `readers` read.
        part: the split.
        work_dir: for the converted annotation file; created if needed.

    Returns:
        The split, and a note for the user: which images it contains.

    Raises:
        DatasetError: if the split does not exist or has no usable image.
    """
    source = read(folder)
    decision = source.decision
    named = [
        name
        for name, count in source.groups.items()
        if count and split_of_path(name) == part and not (part == "train" and decision.divided)
    ]
    groups = named or decision.used_for(part)
    file = source.files.get(groups[0]) if len(groups) == 1 else None
    if file is not None:
        split = Split(part, file.path, file.img_folder, source.groups[groups[0]])
        return split, f"Split {part}: {groups[0]} ({counted(split.num_images, 'image')})"
    images = list(source.images)
    chosen = [i for i in images if (i.split in groups if groups else i.part == part)]
    if not chosen:
        _check_listed(folder, source, (part,))
        found = ", ".join(name for name, count in source.groups.items() if count) or "nothing"
        raise DatasetError(
            f"{folder}: no {part} split ({source.format} format, found {found}); choose another "
            "with --split"
        )
    # The model that is evaluated may know classes that the training split does not list.
    own = [name for group in groups for name in source.own_classes.get(group, ())]
    classes = list(dict.fromkeys(own)) or list(source.classes)
    split = _convert_split(chosen, part, classes, source, work_dir)
    title = ", ".join(groups) if groups else decision.note
    return split, f"Split {part}: {title} ({counted(split.num_images, 'image')})"


def _check_listed(folder: Path, source: DataSource, parts: Collection[Part]) -> None:
    """Check that each named split lists images.

    Raises:
        DatasetError: if one lists none.
    """
    for group, count in source.groups.items():
        if not count and split_of_path(group) in parts:
            for _ in source.images:  # completes the findings
                pass
            of_group = [f.kind_name for f in source.findings if f.split == group]
            reason = without_images(of_group.count("image_entry_malformed"))
            raise DatasetError(f"{folder}: {group} {reason}; export it again, {_EXPLICIT}")


def _plain(source: DataSource) -> Splits | None:
    """Return COCO files that can be used as they are, if they can."""
    decision = source.decision
    if decision.divided:
        return None
    splits = {}
    for part in PARTS[:2]:
        groups = decision.used_for(part)
        file = source.files.get(groups[0])
        if len(groups) > 1 or file is None:
            return None
        if part == "train" and set(source.own_classes[groups[0]]) != source.classes.keys():
            return None
        splits[part] = Split(part, file.path, file.img_folder, source.groups[groups[0]])
    return Splits(splits["train"], splits["val"], decision.note, _general(source.findings))


def _convert(folder: Path, source: DataSource, work_dir: Path) -> Splits:
    by_part: dict[Part | None, list[SourceImage]] = {}
    for image in source.images:
        by_part.setdefault(image.part, []).append(image)
    titles: tuple[tuple[Part, str], ...] = (("train", "training"), ("val", "validation"))
    for part, title in titles:
        if not by_part.get(part):
            facts = [source.decision.note, *map(str, grouped(source.findings)[:_MAX_REASONS])]
            raise DatasetError(
                f"{folder}: no usable {title} image ({source.format} format). {'; '.join(facts)}. "
                f"Add images, {_EXPLICIT}"
            )
    classes = list(source.classes)
    train, val = (
        _convert_split(by_part[part], part, classes, source, work_dir) for part, _ in titles
    )
    return Splits(train, val, source.decision.note, _general(source.findings))


def _convert_split(
    images: Sequence[SourceImage],
    name: Part,
    classes: Sequence[str],
    source: DataSource,
    work_dir: Path,
) -> Split:
    findings = Findings(name)
    for found in source.findings:
        if found.split and _part_of(found, source) == name:
            findings.items.append(replace(found, split=name))
    folder = Path(os.path.commonpath([image.path.parent for image in images]))
    ann_file = work_dir / f"instances_{name}.json"
    return write_split(images, classes, ann_file, folder, findings)


def _part_of(found: Finding, source: DataSource) -> Part | None:
    """Return the split of a finding; findings of images that are divided count as training."""
    if found.split in source.decision.divided:
        return "train"
    return source.decision.part_of(found.split)


def _general(findings: Findings) -> list[Finding]:
    """Return findings of no split, without linked files: the doctor finds those of each split."""
    return [
        f
        for f in findings
        if not f.split and not (f.kind_name == "outside_folder" and f.count == 1)
    ]
