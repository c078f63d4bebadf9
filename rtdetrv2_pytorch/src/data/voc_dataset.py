"""Detection data in Pascal VOC format."""

from pathlib import Path
from typing import Literal

from ..misc.errors import DatasetError
from ..misc.text import counted
from .annotation_arrays import Annotations, make_records
from .augment.compose import Compose
from .categories import CategoryTable
from .dataset import DetectionDataset, files_exist
from .findings import Finding, Findings, UnusableError, grouped
from .images.image_cache import CacheKind
from .images.pixel_range import PixelRange
from .readers.source import SourceImage
from .readers.voc import read_annotation


class VOCDetection(DetectionDataset):
    """Images with one XML file each, as in Pascal VOC.

    Args:
        root: folder of the lists, which their entries are relative to.
        ann_file: list with "image path annotation path" in each line.
        label_file: list with one class name per line, in the order of the labels.
        transforms: augmentation, or None.
        categories: classes in the order of the labels; default: those of the label file.
        seed: of the run.
        unreadable: see `DetectionDataset`.
        cache: where to keep decoded images: "ram" in memory shared by the workers of a rank, "disk"
            in `~/.cache/rtdetrv2/images` until you remove that folder; as many images as fit.
            Augmentation is not affected.
        pixel_range: scaling of images with more than 8 bits; see `PixelRange`.

    Raises:
        DatasetError: if a list cannot be read, or no usable image is left.
    """

    def __init__(
        self,
        *,
        root: str,
        ann_file: str = "trainval.txt",
        label_file: str = "label_list.txt",
        transforms: Compose | None = None,
        categories: CategoryTable | None = None,
        seed: int = 0,
        unreadable: Literal["skip", "replace"] = "skip",
        cache: CacheKind = "none",
        pixel_range: PixelRange | None = None,
    ) -> None:
        self.ann_file = str(Path(root, ann_file))
        self.findings = Findings()
        table = categories or read_labels(Path(root, label_file))
        annotations = _read_voc(Path(root), Path(root, ann_file), table, self.findings)
        self.findings.log(self.ann_file)
        super().__init__(
            annotations,
            Path(root),
            transforms,
            seed=seed,
            unreadable=unreadable,
            cache=cache,
            pixel_range=pixel_range,
        )


def read_labels(path: Path) -> CategoryTable:
    """Read a list of class names.

    Raises:
        DatasetError: if the file is missing or empty.
    """
    names = tuple(_lines(path))
    if not names:
        raise DatasetError(f"{path}: is empty; write one class name per line")
    for name in names:
        if names.count(name) > 1:
            raise DatasetError(f"{path}: class {name!r} occurs more than once; name it once")
    return CategoryTable(tuple(range(len(names))), names)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_voc(root: Path, ann_file: Path, table: CategoryTable, findings: Findings) -> Annotations:
    pairs = []
    for line in _lines(ann_file):
        parts = line.split()
        if len(parts) != 2:
            raise DatasetError(
                f"{ann_file}: line {line!r} is not 'image path annotation path'; correct it"
            )
        pairs.append((parts[0], parts[1]))
    exist = files_exist([image for image, _ in pairs], root)
    images = {}
    for number, ((image, annotation), exists) in enumerate(zip(pairs, exist, strict=True)):
        if not exists:
            findings.add(Finding("missing_image", image, lost_images=1))
            continue
        try:
            # Coordinates as written, though VOC counts pixels from 1: half a pixel at most.
            objects, size_wh = read_annotation(root / annotation, origin=0)
        except UnusableError as error:
            findings.add(Finding(error.kind, image, error.detail, lost_images=1))
            continue
        images[number] = SourceImage("", image, root / image, objects, size_wh)
    if not images:
        raise DatasetError(
            f"{ann_file}: none of its {counted(len(pairs), 'image')} can be used; correct "
            "the list or the root"
        )
    records = make_records(images.values(), table, findings, image_ids=images)
    if not records:
        raise DatasetError(
            f"{ann_file}: none of its {counted(len(pairs), 'image')} has a usable object: "
            f"{grouped(findings)[0]}; repair the annotations"
        )
    return Annotations(records, table)
