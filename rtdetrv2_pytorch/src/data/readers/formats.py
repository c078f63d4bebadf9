"""The table of formats: detection by content, and reading."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from ...misc.errors import DatasetError
from ..findings import Finding, Illustration
from ..split_names import Decision, decide, held_out
from . import coco, labelme, supervisely, unread, voc, yolo
from .folders import ARCHIVES, Tree
from .source import PROGRAM_CLASSES, DataSource, FormatName, SourceImage

# In the order of detection, the most explicit sign first. Each module has `LOOKED_FOR`,
# `recognize(tree)` and `read(tree)`.
FORMATS: Mapping[FormatName, ModuleType] = {
    "supervisely": supervisely,
    "coco": coco,
    "labelme": labelme,
    "yolo": yolo,
    "voc": voc,
}
_MAX_SUFFIXES = 4  # in a message


def detect_format(folder: Path) -> FormatName:
    """Detect the format of a data set.

    Raises:
        DatasetError: if it has none of these formats; the message lists the required files, or
            names its format with a way to convert it.
    """
    return _detected(Tree(folder), folder)


def _detected(tree: Tree, folder: Path) -> FormatName:
    for name, format_ in FORMATS.items():
        if format_.recognize(tree):
            return name
    if "meta.json" in tree.files:
        return "supervisely"  # damaged; its reader says how
    known = unread.recognize(tree)
    if known:
        raise DatasetError(f"{folder}: {known}")
    looked_for = "; ".join(f"{name}: {each.LOOKED_FOR}" for name, each in FORMATS.items())
    suffixes = Counter(Path(name).suffix.lower() or "other" for name in tree.files)
    found = ", ".join(f"{n} {suffix}" for suffix, n in suffixes.most_common(_MAX_SUFFIXES))
    archives = tree.with_suffix(*ARCHIVES)
    if archives and not tree.images:
        raise DatasetError(f"{folder}: holds {archives[0]}, an archive; unpack it first")
    what = "images without annotations that are read" if tree.images else "no data set recognized"
    raise DatasetError(f"{folder}: {what} (files: {found or 'none'}); looked for {looked_for}")


def read(folder: Path, format: FormatName | None = None) -> DataSource:
    """Read a data set; its format is detected by default.

    Each image has a part: training, validation or test. Images that no annotation names, broken
    links and classes without objects are added to the findings.

    Raises:
        DatasetError: if nothing of it can be read.
    """
    tree = Tree(folder)
    source: DataSource = FORMATS[format or _detected(tree, folder)].read(tree)
    _add_unlisted(source, tree)
    decision = decide(source.groups)
    classes = _classes(source, decision)
    images = _assigned(source.images, decision, tree.root)
    return replace(source, classes=classes, images=images, decision=decision)


def _add_unlisted(source: DataSource, tree: Tree) -> None:
    findings, listed = source.findings, {*source.listed, *tree.named_broken}
    findings.items += tree.notes
    for name, path in tree.images.items():
        if name not in listed:
            findings.given_images += 1
            findings.add(Finding("unlisted_image", name, picture=Illustration(path), lost_images=1))
    for name, error in tree.unusable.items():
        if name not in listed:
            findings.given_images += 1
            findings.skip_image(error, name, None, split="")


def _classes(source: DataSource, decision: Decision) -> Mapping[str, str]:
    """Return the classes to learn: those with objects that the training split lists.

    Classes of other programs are left out.
    """
    training = [group for group, part in decision.parts.items() if part == "train"] or source.groups
    listed = {name for each in training for name in source.own_classes.get(each, source.classes)}
    left_out = {}
    for name in source.classes:
        if name not in source.used_classes:
            left_out[name] = "no object uses it"
        elif name in PROGRAM_CLASSES:
            left_out[name] = "added by the labeling program"
        elif name not in listed:
            left_out[name] = "not in the class list of the training split"
    if len(left_out) == len(source.classes):
        return source.classes
    for name, reason in left_out.items():
        source.findings.add(Finding("class_left_out", name, reason))
    return {name: shape for name, shape in source.classes.items() if name not in left_out}


def _assigned(
    images: Iterator[SourceImage], decision: Decision, root: Path
) -> Iterator[SourceImage]:
    """Yield images with their parts; divided ones come last, as all must be known."""
    divided = []
    for image in images:
        if image.split in decision.divided:
            divided.append(image)
        else:
            yield replace(image, part=decision.part_of(image.split))
    is_val = held_out(
        [
            (
                image.path.relative_to(root).as_posix(),
                [each.class_name for each in image.objects if not each.problem],
            )
            for image in divided
        ]
    )
    for image, is_held_out in zip(divided, is_val, strict=True):
        yield replace(image, part="val" if is_held_out else "train")
