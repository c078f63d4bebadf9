"""Finding the splits of a COCO data set in a folder, however its parts are arranged."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..misc.errors import DatasetError
from .coco_dataset import read_coco_json

_DEPTH = 3  # folders below the given one that are searched
_PROBES = 20  # images of a split that are looked for
_SPLIT_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_EXPLICIT = (
    "or name the files: -u train_dataloader.dataset.ann_file=... "
    "-u train_dataloader.dataset.img_folder=... and the same for val_dataloader"
)


@dataclass(frozen=True)
class Split:
    """Where the parts of one split are."""

    ann_file: Path
    img_folder: Path


@dataclass(frozen=True)
class Splits:
    """Training and validation data of a folder."""

    train: Split
    val: Split
    note: str = ""  # what people should know, if anything


def find_splits(folder: Path) -> Splits:
    """Find annotation files by the name of their split, and images by looking for them.

    This covers COCO itself (`annotations/instances_train2017.json` and `train2017/`), exports of
    Roboflow (`train/_annotations.coco.json` with the images beside it) and most others. A folder
    without validation split uses its test split.

    Args:
        folder: the data set.

    Raises:
        DatasetError: if a split or its images cannot be found; the message says what was seen.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; give the folder of a COCO data set")
    candidates = list(_annotation_files(folder))
    refused: list[str] = []
    chosen = {split: _choose(candidates, split, refused) for split in _SPLIT_WORDS}
    train, val = chosen["train"], chosen["val"] or chosen["test"]
    if train is None or val is None:
        missing = "training" if train is None else "validation"
        seen = ", ".join(str(p.relative_to(folder)) for p in candidates[:6]) or "none"
        raise DatasetError(
            f"{folder}: no {missing} annotations found (COCO json files seen: {seen}); name the "
            f"file or its folder after the split, as in instances_train.json, {_EXPLICIT}"
            + "".join(f"; not used: {reason}" for reason in refused[:3])
        )
    note = "no validation split: the test split is used for it" if chosen["val"] is None else ""
    return Splits(_locate(train, folder, "train"), _locate(val, folder, "val"), note)


def _annotation_files(folder: Path) -> Iterator[Path]:
    """JSON files that look like detection annotations, those with "instances" first."""
    found = []
    for parent, folders, files in os.walk(folder):
        if len(Path(parent).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "ann")
        found += [Path(parent, name) for name in files if name.endswith(".json")]
    found.sort(key=lambda p: ("instances" not in p.name, len(p.parts), str(p)))
    return (path for path in found if _split_of(path) is not None)


def _split_of(path: Path) -> str | None:
    """The split that a file is named after; its own name counts more than its folder's."""
    for text in (path.stem, path.parent.name):
        words = re.findall(r"[a-z]+", text.lower())
        for split, names in _SPLIT_WORDS.items():
            if any(word in names for word in words):
                return split
    return None


def _choose(
    candidates: Sequence[Path], split: str, refused: list[str]
) -> tuple[Path, list[str]] | None:
    """The first COCO detection file of a split, with the names of its images.

    Why another file was none goes into `refused`.
    """
    for path in candidates:
        if _split_of(path) == split:
            try:
                images = read_coco_json(path)["images"]
            except DatasetError as error:
                refused.append(str(error))
                continue
            names = [i.get("file_name") for i in images if isinstance(i, dict)]
            return path, [name for name in names if isinstance(name, str)]
    return None


def _locate(found: tuple[Path, list[str]], folder: Path, split: str) -> Split:
    """Find the folder that the file names of an annotation file are relative to."""
    ann_file, names = found
    probes = names[:: max(1, len(names) // _PROBES)][:_PROBES]

    def score(candidate: Path) -> tuple[int, bool, bool, int]:
        """More images found, then beside the annotations, then named after the split."""
        hits = sum(_is_file(candidate / name) for name in probes)
        parts = "/".join(candidate.relative_to(folder).parts).lower()
        named = any(word in _SPLIT_WORDS[split] for word in re.findall(r"[a-z]+", parts))
        return hits, candidate == ann_file.parent, named, -len(candidate.parts)

    if not probes:
        raise DatasetError(f"{ann_file}: lists no image; export it again, {_EXPLICIT}")
    best = max(_folders(folder), key=score)
    if score(best)[0] == 0:
        raise DatasetError(
            f"{ann_file}: its images ({probes[0]}, ...) are nowhere in {folder}; put them there, "
            f"{_EXPLICIT}"
        )
    return Split(ann_file, best)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than any can be
        return False


def _folders(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, _ in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(parent, name) for name in folders)
        if len(Path(parent).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
