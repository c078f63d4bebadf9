"""The data sets, with the length of a run on each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.splits import CONVERTED, Splits, find_splits

from .recipes import REFERENCE
from .results import ROOT

WORK = ROOT / "output" / "accuracy"
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set and the length of its runs, the same for all recipes.

    Attributes:
        name: in file names and tables.
        folder: in any format that `rtdetrv2 train` reads.
        size: side of training and validation images in pixels.
        epochs: of a run.
        batch: images per optimizer step.
        minutes: of a run in bfloat16 with one thread, estimated.
        model: of the model table.
        about: for the page.
        update: other values of the configuration, for all recipes.
        is_generated: whether the folder is generated.
        class_weights: of the generated set, see `make_digits_dataset`.
        default: the recipe that `rtdetrv2 train` chooses.
        earlier: the one that it chose before decisions 0032, 0033 and 0035.
        rare: names of the rarest third of the classes, if they are out of balance.
    """

    name: str
    folder: Path
    size: int
    epochs: int
    batch: int = 4
    minutes: float = 10.0
    model: str = "S"
    about: str = ""
    update: Mapping[str, Any] = field(default_factory=dict)
    is_generated: bool = False
    class_weights: Sequence[float] | None = None
    default: str = REFERENCE
    earlier: str = REFERENCE
    rare: Sequence[str] = ()

    def missing(self) -> str | None:
        """Return why the data set cannot be used; None if it can."""
        if self.is_generated or self.folder.is_dir():
            return None
        return f"{self.folder}: no such folder"

    def splits(self) -> Splits:
        """Return the COCO files and image folders; the sample set is generated once."""
        if self.is_generated:
            make_digits_dataset(self.folder, class_weights=self.class_weights)
        return find_splits(self.folder, WORK / "data" / self.name / CONVERTED)


DATASETS = {
    each.name: each
    for each in (
        DataSet(
            name="bccd",
            folder=SHARED / "bccd" / "supervisely",
            size=320,
            epochs=10,
            minutes=8.5,
            about="blood cells, microscopy, 3 classes",
        ),
        DataSet(
            name="digits",
            folder=WORK / "data" / "digits",
            size=192,
            epochs=6,
            minutes=6.6,
            about="generated sample set, 10 classes",
            default="paste-balanced",
            earlier="mirrored",
            is_generated=True,
        ),
        DataSet(
            name="raccoon",
            folder=SHARED / "raccoon",
            size=224,
            epochs=20,
            minutes=8.1,
            about="photographs, 1 class",
            earlier="mirrored+lr-5e-4",
        ),
        DataSet(
            name="cards",
            folder=SHARED / "cards",
            size=256,
            epochs=20,
            minutes=17.2,
            about="photographs of playing cards, 6 classes",
            default="paste-balanced",
            earlier="mirrored+lr-5e-4",
        ),
        DataSet(
            name="rare-digits",
            folder=WORK / "data" / "rare-digits",
            size=192,
            epochs=6,
            minutes=6.6,
            about="generated, 10 classes; 0 is 50 times as frequent in training as 9",
            default="paste-balanced",
            earlier="mirrored",
            is_generated=True,
            class_weights=[50 ** (-digit / 9) for digit in range(10)],
            rare=("7", "8", "9"),
        ),
    )
}


def rf100vl(folder: Path) -> dict[str, DataSet]:
    """Return the data sets in a folder with the protocol of RF100-VL: 100 epochs, batch size 16.

    Raises:
        ValueError: if the folder contains no folder.
    """
    found = sorted(path for path in folder.glob("*") if path.is_dir())
    if not found:
        raise ValueError(f"{folder}: contains no folders; give a folder of data sets")
    return {
        path.name: DataSet(
            name=path.name, folder=path, size=640, epochs=100, batch=16, about=path.name
        )
        for path in found
    }
