"""The command `predict`: detect objects in files, show them, and write files of results."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.text import counted, printable

from ..terminal.console import LiveLine, print_detail, print_notice, print_path, result_table
from .detections import Detections
from .prediction import PredictionOptions, detect
from .prediction_formats import PredictionWriter
from .sources import ImageSet, PredictedImage, find_images

_MAX_ROWS = 30


@dataclass(kw_only=True)
class PredictionRun:
    """Detects objects in files.

    Args:
        console: to print to.
        sources: paths and URLs of images, folders and videos.
        output: folder of the results.
        write: opens the file of results.
        is_drawn: whether to save images with boxes, class names and scores.
    """

    console: Console
    sources: Sequence[str | Path]
    output: Path
    write: PredictionWriter
    is_drawn: bool
    _rows: list[Sequence[str]] = field(default_factory=list)
    _total: int = 0
    _skipped: int = 0
    _labels: set[str] = field(default_factory=set)
    _first: Detections | None = None

    def run(self, open_predictor: Callable[[], Predictor], options: PredictionOptions) -> int:
        """Predict, and print a table and the paths; return 1 if an image was not readable.

        Args:
            open_predictor: loads the model.
            options: which detections to keep.

        Raises:
            RTDETRError: if a source, the model or an option is invalid.
        """
        one = len(self.sources) == 1
        images = find_images(self.sources[0] if one else list(self.sources))
        drawings = []
        _make_folder(self.output)
        with LiveLine(self.console) as line:
            line.show("Loading the model")
            predictor = open_predictor()
            options.check(predictor)
            for image, found in detect(predictor, images, options, skip=self._skip_of(images)):
                line.show("Detecting", len(self._rows) + self._skipped + 1, images.count)
                label = self._unique(image.label)
                self.write.add(label, found)
                if self.is_drawn:
                    drawings.append(self._draw(image, label, found))
                self._count(label, found)
        self._print_table()
        if len(drawings) == 1:
            print_path(self.console, drawings[0])
        elif drawings:
            print_path(self.console, self.output)
        if self._rows:
            print_path(self.console, self.write.finish())
        return 1 if self._skipped else 0

    def _skip_of(self, images: ImageSet) -> Callable[[DatasetError], None] | None:
        return None if images.is_single else self._skip

    def _skip(self, error: DatasetError) -> None:
        print_notice(self.console, f"{error}; skipped")
        self._skipped += 1

    def _unique(self, label: str) -> str:
        """Distinguish images of the same name in several sources."""
        path, number = Path(label), 2
        while label in self._labels:
            label = path.with_stem(f"{path.stem}-{number}").as_posix()
            number += 1
        self._labels.add(label)
        return label

    def _draw(self, image: PredictedImage, label: str, found: Detections) -> Path:
        is_kept = Path(label).suffix.lower() in (".jpg", ".jpeg", ".png")
        path = self.output / (label if is_kept else f"{label}.png")
        if image.path is not None and path.resolve() == image.path.resolve():
            raise ConfigError(
                f"--output {self.output}: the drawing would replace {path}; choose another folder"
            )
        return found.save(path)

    def _count(self, label: str, found: Detections) -> None:
        if not self._rows:
            self._first = found
        counts = Counter(found.names).most_common()
        self._rows.append((label, ", ".join(f"{n} {name}" for name, n in counts) or "-"))
        self._total += len(found)

    def _print_table(self) -> None:
        """Print a row per detection of a single image, else a row per image."""
        columns: Sequence[str] = ("image", "objects")
        rows = self._rows
        title = f"{counted(len(rows), 'image')}, {counted(self._total, 'object')}"
        if len(rows) == 1 and self._first is not None:
            title = f"{rows[0][0]}: {counted(self._total, 'object')}"
            columns = ("class", "score", "x1", "y1", "x2", "y2")
            rows = [
                (one.name, f"{one.score:.2f}", *(f"{edge:.0f}" for edge in one.box))
                for one in self._first
            ]
        table = result_table(self.console, escape(printable(title)))
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i and len(columns) > 2 else "left")
        for row in rows[:_MAX_ROWS]:
            table.add_row(*(escape(printable(cell)) for cell in row))
        self.console.print(table)
        if len(rows) > _MAX_ROWS:
            print_detail(self.console, f"and {counted(len(rows) - _MAX_ROWS, 'more row')}")


def _make_folder(folder: Path) -> None:
    """Create the output folder.

    Raises:
        ConfigError: if it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: not writable ({error.strerror}); choose another folder"
        ) from error
