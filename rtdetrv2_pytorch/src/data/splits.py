"""The training and validation split of a data set folder, in any format."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..misc.errors import DatasetError
from .conversion import Split, write_split
from .findings import Findings
from .readers.coco import ImageIndex, annotation_files, split_of_file
from .readers.coco_json import name_of, read_coco_json
from .readers.folders import SPLITS, split_of
from .readers.formats import FORMATS, detect_format, read
from .readers.source import DataSource, SourceImage

__all__ = ["CONVERTED", "Split", "Splits", "find_splits"]

CONVERTED = "converted_annotations"  # folder for `find_splits` in an output folder

_EXPLICIT = (
    "or name the files: -u train_dataloader.dataset.ann_file=... "
    "-u train_dataloader.dataset.img_folder=... and the same for val_dataloader"
)
_TEST_AS_VAL = "No validation split found; the test split is used for validation"


@dataclass(frozen=True)
class Splits:
    """Training and validation data of a folder."""

    train: Split
    val: Split
    note: str = ""  # for the user


def find_splits(folder: Path, work_dir: Path) -> Splits:
    """Find the splits of a data set in COCO, YOLO, Pascal VOC or Supervisely format.

    COCO files are used as they are: those of COCO itself (`annotations/instances_train2017.json`
    and `train2017/`), exports of Roboflow (`train/_annotations.coco.json` next to the images) and
    most others. Other formats are converted to COCO files. A folder without validation split uses
    its test split.

    Args:
        folder: the data set.
        work_dir: for the converted annotation files; created if needed.

    Raises:
        DatasetError: if a split or its images are missing; the message lists the files found.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the folder of a data set")
    finder = _CocoFinder(folder)
    if finder.has_both:
        return finder.splits()
    try:
        format_ = detect_format(folder, [name for name in FORMATS if name != "coco"])
    except DatasetError:
        return finder.splits()  # raises with the reason
    return _convert(folder, read(folder, format_), work_dir)


class _CocoFinder:
    """Chooses annotation files by the name of their split."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = [(path, split_of_file(path, folder)) for path in annotation_files(folder)]
        self._candidates = [(path, split) for path, split in found if split is not None]
        self._rejected: list[str] = []
        self._chosen = {split: self._choose(split) for split in SPLITS}

    @property
    def has_both(self) -> bool:
        """Whether there is a training and a validation or test file."""
        chosen = self._chosen
        return bool(chosen["train"] and (chosen["val"] or chosen["test"]))

    def splits(self) -> Splits:
        """Locate the images of the chosen files.

        Raises:
            DatasetError: if a file or its images are missing.
        """
        chosen = self._chosen
        train, val = chosen["train"], chosen["val"] or chosen["test"]
        if train is None or val is None:
            missing = "training" if train is None else "validation"
            names = [str(path.relative_to(self._folder)) for path, _ in self._candidates]
            raise DatasetError(
                f"{self._folder}: no {missing} annotations found (COCO json files found: "
                f"{', '.join(names[:6]) or 'none'}); name the file or its folder after the split, "
                f"as in instances_train.json, {_EXPLICIT}"
                + "".join(f"; rejected: {reason}" for reason in self._rejected[:3])
            )
        index = ImageIndex(self._folder)
        return Splits(
            self._locate(train, "train", index),
            self._locate(val, "val", index),
            "" if chosen["val"] else _TEST_AS_VAL,
        )

    def _choose(self, split: str) -> tuple[Path, list[str]] | None:
        """Return the first COCO detection file of a split, with the names of its images."""
        for path, its_split in self._candidates:
            if its_split == split:
                try:
                    images = read_coco_json(path)["images"]
                except DatasetError as error:
                    self._rejected.append(str(error))
                    continue
                return path, [name for name in map(name_of, images) if name is not None]
        return None

    def _locate(self, found: tuple[Path, list[str]], split: str, index: ImageIndex) -> Split:
        ann_file, names = found
        if not names:
            raise DatasetError(f"{ann_file}: lists no images; export it again, {_EXPLICIT}")
        img_folder, num_found = index.locate(names, ann_file, split)
        if not num_found:
            raise DatasetError(
                f"{ann_file}: its images ({names[0]}, ...) are not in {self._folder}; put them "
                f"there, {_EXPLICIT}"
            )
        return Split(split, ann_file, img_folder, len(names))


def _convert(folder: Path, source: DataSource, work_dir: Path) -> Splits:
    by_split: dict[str, list[SourceImage]] = {split: [] for split in SPLITS}
    others: list[str] = []
    for image in source.images:
        split = split_of(*reversed(image.split.split("/")))
        by_split.get(split or "", []).append(image)
        if split is None and image.split not in others:
            others.append(image.split)
    train, val = by_split["train"], by_split["val"] or by_split["test"]
    if not train or not val:
        missing = "training" if not train else "validation"
        found = [*(split for split in SPLITS if by_split[split]), *others]
        raise DatasetError(
            f"{folder}: no {missing} images found ({source.format} format; splits found: "
            f"{', '.join(found) or 'none'}); name the folders or lists after the splits, as in "
            "train and val"
        )
    val_name = "val" if by_split["val"] else "test"
    return Splits(
        _convert_split(train, "train", "train", source, work_dir),
        _convert_split(val, "val", val_name, source, work_dir),
        "" if by_split["val"] else _TEST_AS_VAL,
    )


def _convert_split(
    images: Sequence[SourceImage], name: str, own_name: str, source: DataSource, work_dir: Path
) -> Split:
    findings = Findings(name)
    # Findings of no split belong to the classes; the doctor itself reports unlisted images.
    findings.items += [
        found
        for found in source.findings
        if found.kind.name != "left_out"
        and (split_of(*reversed(found.split.split("/"))) or "train") == own_name
    ]
    folder = Path(os.path.commonpath([image.path.parent for image in images]))
    ann_file = work_dir / f"instances_{name}.json"
    return write_split(images, list(source.classes), ann_file, folder, findings)
