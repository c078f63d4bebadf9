"""`RTDETR`: predict, train, evaluate and export from Python."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Literal, TypedDict, Unpack, overload

import numpy as np
from PIL import Image
from torch import Tensor

from rtdetrv2_pytorch.src.deploy.predictor import Predictor, fraction
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.text import counted

from ..terminal.console import LiveLine, open_console
from .detections import Detections
from .model_file import ModelFile, find_model, find_transformers
from .prediction import PredictionOptions, detect
from .results import TrainingResult
from .sources import ImageSource, find_images

_FORMATS = {"onnx": ".onnx", "tensorrt": ".engine"}


class Thresholds(TypedDict, total=False):
    """Options of `RTDETR.predict`, see there."""

    score: float | Literal["auto"]
    nms_iou: float | None
    classes: str | int | Sequence[str | int] | None


class RTDETR:
    """A detector.

    Args:
        source: a model name such as "RT-DETRv2-S" or "S"; the name or path of a configuration; a
            checkpoint (best.pth), ONNX file or TensorRT engine; the folder of a run or an
            experiment, whose best weights are used; a folder of `transformers`; or the URL of a
            checkpoint.
        weights: of a model given by name or configuration: "coco" or "objects365" for the
            published ones, which are downloaded once; the path or URL of a checkpoint; None for
            random weights, which must be trained first.
        device: cpu, cuda, cuda:1; None: a GPU if available.
        runtime: pytorch, onnxruntime, openvino or tensorrt; None: by the suffix of the file.

    Raises:
        ConfigError: if a name, runtime or device is unknown.
        CheckpointError: if weights cannot be downloaded or loaded.
    """

    def __init__(
        self,
        source: str | Path = "RT-DETRv2-S",
        *,
        weights: str | Path | None = "coco",
        device: str | None = None,
        runtime: str | None = None,
    ) -> None:
        self._device, self._runtime = device, runtime
        self._source = str(source)
        self._file = find_model(source, weights)
        self._copy: TemporaryDirectory[str] | None = None  # of a model that has no file
        self._predictor: Predictor | None = None
        if self._file.path is not None:
            self._open()

    @classmethod
    def from_transformers(
        cls, source: Any, *, processor: Any = None, device: str | None = None
    ) -> "RTDETR":
        """Open a model of `transformers`; it computes the same logits up to rounding.

        Args:
            source: a folder with config.json and model.safetensors, or an instance of
                RTDetrV2ForObjectDetection.
            processor: the image processor of an instance; None: 640x640 pixels.
            device: see `RTDETR`.

        Raises:
            CheckpointError: if it is another model, or a file is damaged.
        """
        from .transformers import saved

        if isinstance(source, str | Path):
            return cls(find_transformers(source), device=device)
        folder = saved(source, processor)
        model = cls(Path(folder.name, "transformers.pth"), device=device)
        model._copy = folder
        return model

    def to_transformers(self, folder: str | Path) -> Path:
        """Write a folder for `from_pretrained` of RTDetrV2ForObjectDetection, AutoImageProcessor.

        Args:
            folder: to write config.json, model.safetensors and preprocessor_config.json to.

        Returns:
            The folder.

        Raises:
            ConfigError: if the model is not a checkpoint, or naming what `transformers` cannot
                hold.
        """
        from .transformers import write

        self.predictor  # noqa: B018 (checks that there are weights)
        return write(self._file, Path(folder))

    def _open(self) -> None:
        self._predictor = self._file.predictor(self._runtime, self._device)

    @property
    def predictor(self) -> Predictor:
        """Predictor of the engine, for tensors instead of `Detections`.

        Raises:
            CheckpointError: if the model has random weights.
        """
        if self._predictor is None:
            raise CheckpointError(
                f"{self._source}: the model has random weights; train it first, or open it with "
                "other weights"
            )
        return self._predictor

    @property
    def path(self) -> Path | None:
        """Path of the model file; None for random weights."""
        return self._file.path

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, in label order."""
        return self.predictor.runtime.card.class_names

    @property
    def input_size_hw(self) -> tuple[int, int]:
        """(height, width) of the network's input in pixels."""
        return self.predictor.runtime.card.input_size_hw

    def __repr__(self) -> str:
        if self._predictor is None:
            return f"RTDETR({self._source!r}, random weights)"
        runtime = self._predictor.runtime
        height, width = self.input_size_hw
        return (
            f"RTDETR({self._source!r}, {counted(len(self.class_names), 'class')}, "
            f"{height}x{width}, {runtime.kind} on {runtime.device})"
        )

    @overload
    def predict(
        self, source: ImageSource, *, stream: Literal[True], **options: Unpack[Thresholds]
    ) -> Iterator[Detections]: ...
    @overload
    def predict(
        self,
        source: Image.Image | bytes | BinaryIO,
        *,
        stream: Literal[False] = ...,
        **options: Unpack[Thresholds],
    ) -> Detections: ...
    @overload
    def predict(
        self,
        source: list[Any] | tuple[Any, ...],
        *,
        stream: Literal[False] = ...,
        **options: Unpack[Thresholds],
    ) -> list[Detections]: ...
    @overload
    def predict(
        self,
        source: str | Path | np.ndarray | Tensor | Iterable[Any],
        *,
        stream: bool = ...,
        **options: Unpack[Thresholds],
    ) -> Any: ...
    def predict(
        self,
        source: Any,
        *,
        score: float | Literal["auto"] = 0.5,
        nms_iou: float | None = None,
        classes: str | int | Sequence[str | int] | None = None,
        stream: bool = False,
    ) -> Any:
        """Detect objects.

        Args:
            source: an image: path, URL, bytes or binary file; PIL image; [H, W], [H, W, 3] or
                [H, W, 4] array; [C, H, W] or [H, W, C] tensor. Colors are RGB. Numbers are 0 to
                255, 0 to 1 for floats, or 16 bits for uint16. Or several images: a list or iterator
                of them, a [B, H, W, C] array, a [B, C, H, W] tensor, a folder with its subfolders,
                a video file.
            score: lowest score, 0 to 1; "auto" uses the threshold with the best F1 of each class,
                measured in training.
            nms_iou: IoU above which the lower-scoring detection of a class is removed; None: no
                NMS, which RT-DETR does not need.
            classes: names or labels to keep; None keeps all.
            stream: whether to return an iterator, which needs little memory.

        Returns:
            `Detections` for one image. For several images a list; an iterator with `stream` and
            for a video. Images of a folder that cannot be read are skipped with a warning.

        Raises:
            ConfigError: if an option is invalid, or an object is not an image.
            DatasetError: if a file is missing or cannot be read or downloaded.
            CheckpointError: if the model has random weights, or for "auto" no thresholds.
        """
        predictor = self.predictor
        options = PredictionOptions(score=score, nms_iou=nms_iou, classes=classes)
        options.check(predictor)
        images = find_images(source)
        found = (one for _, one in detect(predictor, images, options))
        if stream or images.is_video:
            return found
        if images.is_single:
            return next(found)
        with LiveLine(open_console()) as line:
            results = []
            for one in found:
                results.append(one)
                line.show("Detecting", len(results), images.count)
        return results

    def __call__(self, source: Any, **options: Any) -> Any:
        """Detect objects, see `predict`."""
        return self.predict(source, **options)

    def train(
        self,
        data: str | Path | None = None,
        *,
        sample: bool = False,
        epochs: int | None = None,
        time_budget: float | str | None = None,
        batch_size: int | None = None,
        size: int | None = None,
        name: str | None = None,
        output_dir: str | Path | None = None,
        seed: int | None = None,
        use_amp: bool | None = None,
        augmentation: str | None = None,
        overwrite: bool = False,
        examine: bool = True,
        update: Mapping[str, Any] | None = None,
    ) -> TrainingResult:
        """Train on a dataset; afterwards the model has the best weights.

        Args:
            data: dataset folder (COCO, YOLO, VOC, LabelMe or Supervisely); its splits are detected.
            sample: whether to generate a small dataset of digits in data/digits and train on it.
            epochs: number of epochs; None: of the recipe, or for about 8 minutes on a CPU.
            time_budget: such as "30m" or "2h", or hours; chooses the number of epochs that fits.
            batch_size: images per step.
            size: height and width of the network's input in pixels, a multiple of 32.
            name: of the run, which writes to output/NAME; None: the name of the dataset.
            output_dir: folder of the run, instead of output/NAME.
            seed: of all random numbers.
            use_amp: whether to use mixed precision.
            augmentation: preset for a kind of pictures, see docs/augmentation.md.
            overwrite: whether to delete results in the output folder, instead of choosing another.
            examine: whether to examine the dataset first.
            update: other values, for example {"optimizer.lr": 1e-4}; see docs/configuration.md.

        Returns:
            Paths of checkpoints and report, and the metrics of the best epoch.

        Raises:
            ConfigError: if an option is invalid, or the model is not a checkpoint.
            DatasetError: if the dataset cannot be used.
            TrainingDiverged: if too many consecutive losses are non-finite.
            OutOfMemory: if a single image does not fit in memory.
        """
        from .training import train

        if (data is None) != sample:
            raise ConfigError("train: give data, the folder of a dataset, or sample=True")
        self._predictor = None  # its memory is needed
        options = {
            "data": None if data is None else Path(data),
            "sample": sample,
            "epochs": epochs,
            "time_budget": time_budget,
            "batch_size": batch_size,
            "size": size,
            "name": name,
            "output_dir": None if output_dir is None else str(output_dir),
            "seed": seed,
            "use_amp": use_amp,
            "augmentation": augmentation,
            "device": self._device,
            "overwrite": overwrite,
            "examine": examine,
            "update": [f"{key}={json.dumps(value)}" for key, value in (update or {}).items()],
        }
        try:
            console = open_console()
            with LiveLine(console) as line:
                result = train(self._file, options, console, line)
            if result.best is not None:
                self._file = ModelFile(path=result.best, data=result.data)
                self._source, self._runtime = str(result.best), None
        finally:
            if self._file.path is not None:
                self._open()
        return result

    def val(
        self,
        data: str | Path,
        *,
        split: Literal["train", "val", "test"] = "val",
        score: float = 0.0,
    ) -> dict[str, Any]:
        """Evaluate on a split of a dataset, in the runtime of the model.

        Args:
            data: dataset folder, see `train`; its classes are matched by name.
            split: the images to use.
            score: lowest score, 0 to 1.

        Returns:
            Metrics as in `TrainingResult`: AP, AP50, ..., best_threshold, best_f1, per_class; and
            under "images" which images were used.

        Raises:
            ConfigError: if an option is invalid.
            DatasetError: if the data is not usable or has no class of the model.
            CheckpointError: if the model has random weights.
        """
        from ..analysis.evaluation import evaluate

        with LiveLine(open_console()) as line:
            measured = evaluate(
                self.predictor.runtime,
                data=Path(data),
                split=split,
                score=fraction("score", score),
                on_progress=lambda activity, done, total: line.show(activity, done, total or None),
            )
        return measured.as_dict()

    def export(
        self,
        format: Literal["onnx", "tensorrt"] = "onnx",  # noqa: A002 (the usual name)
        *,
        output: str | Path | None = None,
        data: str | Path | None = None,
        size: int | tuple[int, int] | None = None,
        fp16: bool | None = None,
        nms_iou: float | None = None,
        int8: bool = False,
    ) -> Path:
        """Export the checkpoint; the file is kept only if its results match PyTorch.

        Args:
            format: onnx or tensorrt.
            output: of the file; None: next to the checkpoint, with "_int8" in the name for `int8`.
            data: dataset folder; outputs and AP are compared on its validation split. None: that of
                `train`, or else generated images.
            size: (height, width) of the network's input in pixels, multiples of 32; None: the
                trained size.
            fp16: whether to use half precision; None: for tensorrt only.
            nms_iou: adds NMS within classes at this IoU.
            int8: whether to quantize, in ONNX files only: calibrated on the training split of
                `data`, and written if AP on the validation split drops by at most 0.005. The model
                may be a float32 ONNX file.

        Returns:
            The path of the file.

        Raises:
            ConfigError: if an option is invalid, or the model is not a checkpoint.
            DatasetError: if the data is not usable.
            ExportError: if the export fails or its results differ; no file remains.
        """
        from .exporting import export

        if format not in _FORMATS:
            raise ConfigError(f"format = {format!r}: unknown; choose {', '.join(_FORMATS)}")
        self.predictor  # noqa: B018 (checks that there are weights)
        with LiveLine(open_console()) as line:
            return export(
                self._file,
                _FORMATS[format],
                output=None if output is None else Path(output),
                data=None if data is None else Path(data),
                size_hw=(size, size) if isinstance(size, int) else size,
                fp16=fp16,
                nms_iou=nms_iou,
                int8=int8,
                device=self._device,
                line=line,
            )
