"""`Detections`: the objects found in one image."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from PIL import Image

from rtdetrv2_pytorch.src.data.images.conversion import to_rgb
from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange
from rtdetrv2_pytorch.src.deploy.predictor import fraction
from rtdetrv2_pytorch.src.misc.drawing import box_shape, draw_shapes, save_picture
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.text import printable
from rtdetrv2_pytorch.src.structures import DetectionTensors

from . import conversions
from .class_names import labels_of

if TYPE_CHECKING:
    import supervision
    from supervisely import Annotation, ProjectMeta

_NOTEBOOK_PX = 1024  # longest side of the picture in a notebook


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        name: of its class.
        score: 0 to 1.
        box: (x1, y1, x2, y2) in pixels of the image.
        label: index of the class in `Detections.class_names`.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


class Detections:
    """The objects found in one image, highest score first.

    Iterating yields a `Detection` for each object. `detections[0]` is the first one; a slice, a
    list of indices or a boolean mask selects several as `Detections`.

    Args:
        boxes: [N, 4] xyxy in pixels of the image.
        scores: [N], 0 to 1.
        labels: [N] indices in `class_names`.
        class_names: of all classes of the model, in label order.
        size_hw: (height, width) of the image in pixels.
        name: of the image, for messages.
        path: of the image file, if there is one.
        pixels: [H, W, 3] uint8 RGB, if there is no file.
        pixel_range: of the model, to read the file.

    Attributes:
        boxes: [N, 4] float32 xyxy in pixels of the image, as it is displayed (EXIF orientation).
        scores: [N] float32.
        labels: [N] int64.
        class_names: of all classes of the model, in label order.
        size_hw: (height, width) of the image in pixels.
        name: of the image.
        path: of the image file, or None.
    """

    def __init__(
        self,
        *,
        boxes: Any,
        scores: Any,
        labels: Any,
        class_names: Sequence[str],
        size_hw: tuple[int, int],
        name: str = "image",
        path: Path | None = None,
        pixels: np.ndarray | None = None,
        pixel_range: PixelRange | None = None,
    ) -> None:
        self.boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.scores = np.asarray(scores, np.float32)
        self.labels = np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        self.size_hw = size_hw
        self.name = name
        self.path = path
        self._pixels = pixels
        self._pixel_range = pixel_range

    @classmethod
    def from_tensors(cls, tensors: DetectionTensors, **attributes: Any) -> "Detections":
        """Convert the output of the engine; `attributes` are those of the constructor."""
        boxes, scores, labels = tensors["boxes"], tensors["scores"], tensors["labels"]
        return cls(boxes=boxes, scores=scores, labels=labels, **attributes)

    @property
    def names(self) -> list[str]:
        """Class name of each object, in the order of `boxes`."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> "Detections": ...
    def __getitem__(
        self, index: int | slice | Sequence[int] | np.ndarray
    ) -> "Detection | Detections":
        """Return one object, or select several."""
        if isinstance(index, int | np.integer):
            x1, y1, x2, y2 = self.boxes[index].tolist()
            label = int(self.labels[index])
            score = float(self.scores[index])
            return Detection(self.class_names[label], score, (x1, y1, x2, y2), label)
        which = index if isinstance(index, slice) else np.asarray(index)
        if not isinstance(which, slice) and which.size == 0:
            which = which.astype(np.int64)  # an empty list
        return Detections(
            boxes=self.boxes[which],
            scores=self.scores[which],
            labels=self.labels[which],
            class_names=self.class_names,
            size_hw=self.size_hw,
            name=self.name,
            path=self.path,
            pixels=self._pixels,
            pixel_range=self._pixel_range,
        )

    def filter(
        self,
        score: float = 0.0,
        classes: str | int | Sequence[str | int] | None = None,
    ) -> "Detections":
        """Keep objects with at least this score and of these classes.

        Args:
            score: lowest score to keep, 0 to 1.
            classes: names or labels; None keeps all.

        Raises:
            ConfigError: if the score is not a number from 0 to 1, or a class is unknown.
        """
        kept = self.scores >= np.float32(fraction("score", score))
        if classes is not None:
            kept &= np.isin(self.labels, labels_of(classes, self.class_names))
        return self[kept]

    def image(self) -> np.ndarray:
        """Return the pixels: [H, W, 3] uint8 RGB; an image file is read again.

        Raises:
            DatasetError: without pixels, or if the file cannot be read.
        """
        if self._pixels is not None:
            return self._pixels
        if self.path is None:
            raise DatasetError(
                f"{self.name}: these detections have no image; give the image to predict()"
            )
        return to_rgb(self.path, self._pixel_range)

    def plot(self, *, line_px: int | None = None, font_px: int | None = None) -> Image.Image:
        """Draw boxes with names and scores.

        Args:
            line_px: width of lines; None: by the size of the image.
            font_px: height of letters; None: by the size of the image.

        Returns:
            An RGB image of PIL.

        Raises:
            DatasetError: if the image cannot be read.
        """
        picture = Image.fromarray(self.image())  # copies the pixels when it draws
        side = min(picture.size)
        width = line_px or max(1, round(side / 400))
        shapes = [
            box_shape(
                found.box,
                f"hsl({found.label * 137 % 360}, 90%, 55%)",
                label=f"{found.name}  {found.score:.2f}",
                line_px=width,
            )
            for found in self
        ]
        draw_shapes(picture, shapes, font_px=font_px or max(11, round(side / 45)))
        return picture

    def save(self, path: str | Path, **options: Any) -> Path:
        """Save the picture of `plot` in a format by the suffix, for example .jpg or .png.

        Args:
            path: of the file; its folder is created.
            **options: of `plot`.

        Returns:
            The path.

        Raises:
            ConfigError: if the file is not writable, or its suffix is not that of an image.
            DatasetError: if the image cannot be read.
        """
        path = Path(path)
        save_picture(self.plot(**options), path, quality=95)
        return path

    def to_supervision(self) -> "supervision.Detections":
        """Convert to `supervision.Detections`, with the class names under "class_name".

        Raises:
            ConfigError: if the package supervision is not installed.
        """
        return conversions.to_supervision(self)

    def to_coco(
        self, image_id: int, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Return rows of a COCO results file: image_id, category_id, bbox as xywh, score.

        Args:
            image_id: of the image in the annotation file.
            category_ids: id of each class in the annotation file; None: those of COCO for the 80
                classes of COCO, otherwise 1, 2, ... in label order, as this package writes them.

        Raises:
            ConfigError: if a detected class has no id.
        """
        return conversions.to_coco(self, image_id, category_ids)

    def to_supervisely(self, meta: "ProjectMeta | dict[str, Any]") -> "Annotation":
        """Convert to an annotation of Supervisely with rectangles.

        Scores become tags named "confidence", if the meta has such a tag with a number.

        Args:
            meta: of the project, which must contain the detected classes as rectangles or any
                shape.

        Raises:
            ConfigError: if the project lacks a detected class, or the package supervisely is not
                installed.
        """
        return conversions.to_supervisely(self, meta)

    def __repr__(self) -> str:
        height, width = self.size_hw
        found = Counter(self.names).most_common()
        counts = ", ".join(f"{count} {printable(name)}" for name, count in found)
        return f"Detections({printable(self.name)}, {width}x{height}: {counts or 'none'})"

    def _repr_png_(self) -> bytes | None:
        """Picture in a notebook."""
        try:
            picture = self.plot()
        except DatasetError:
            return None  # the file was deleted: the notebook shows the text
        picture.thumbnail((_NOTEBOOK_PX, _NOTEBOOK_PX))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()
