"""Accuracy of quantized models, measured while the search changes their layers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ...data.metrics.evaluator import Evaluation
from ...misc.errors import extra
from ...misc.text import counted
from ...structures import DetectionTensors
from ..accuracy import ap_losses, class_ap, evaluation
from ..comparison_images import ComparisonImages
from ..model_card import ModelCard
from ..onnx_file import read_card
from ..parity import BATCH, MIN_SCORE, OnProgress
from ..predictor import Predictor
from ..runtimes import open_runtime
from .graph import MixedGraph
from .search import Deadline

with extra("onnx"):
    import onnx
    from onnx import helper

_NAMED_LAYERS = 3  # in a sentence


def trial_runtime() -> str:
    """Return the runtime of the trials: OpenVINO if it is installed, which is faster."""
    return "openvino" if find_spec("openvino") else "onnxruntime"


class Trials:
    """Measure the AP of mixtures of a float32 and a quantized graph, and record them.

    Args:
        graph: the mixtures.
        float_file: ONNX file of the float32 graph.
        images: annotated images to measure on.
        deadline: checked before each batch of all trials but the first.
        on_progress: called with (activity, images done, images in total).
    """

    def __init__(
        self,
        graph: MixedGraph,
        float_file: Path,
        images: ComparisonImages,
        deadline: Deadline,
        on_progress: OnProgress,
    ) -> None:
        self._graph, self._folder = graph, float_file.parent
        self._card = replace(read_card(float_file), precision="int8")
        self._images, self._deadline, self._on_progress = images, deadline, on_progress
        self.sentences: list[str] = []  # one for each trial
        self._before = self._evaluate(float_file, "measuring float32")

    def save(self, float_layers: Sequence[str], path: Path) -> None:
        """Write the model with some layers in float32."""
        save_model(self._graph.with_float(float_layers), self._card, path)

    def passes(self, float_layers: Sequence[str]) -> bool:
        """Return whether the model with these layers in float32 is accurate enough.

        Raises:
            TimeOverError: if the time is over.
        """
        number = len(self.sentences) + 1
        path = self._folder / f"trial_{number}.onnx"
        self.save(float_layers, path)
        layers = f"{counted(len(float_layers), 'more layer')} in float32"
        after = self._evaluate(path, f"measuring INT8, trial {number}, {layers}")
        path.unlink()
        aps = self._before.stats["AP"], after.stats["AP"]
        losses = ap_losses(*aps, class_ap(self._before, after))
        names = [self._graph.title(layer) for layer in float_layers[:_NAMED_LAYERS]]
        if len(float_layers) > len(names):
            names.append("...")
        described = f"{layers} ({', '.join(names)})" if names else layers
        self.sentences.append(
            f"{described}: {'; '.join(losses) or f'AP {aps[1]:.4f}, float32 {aps[0]:.4f}'}"
        )
        return not losses

    def _evaluate(self, path: Path, activity: str) -> Evaluation:
        def on_batch(done: int) -> None:
            if self.sentences:
                self._deadline.check()
            self._on_progress(activity, done, len(self._images.images))

        return evaluate(path, self._images, on_batch)


def evaluate(path: Path, images: ComparisonImages, on_batch: Callable[[int], None]) -> Evaluation:
    """Evaluate a file on the images of a split, in `trial_runtime`.

    Args:
        path: ONNX file.
        images: annotated images.
        on_batch: called before each batch with the number of images done.
    """
    predictor = Predictor(open_runtime(path, trial_runtime()), BATCH)
    found: list[DetectionTensors] = []
    for start in range(0, len(images.images), BATCH):
        on_batch(start)
        found += predictor.predict(images.images[start : start + BATCH], MIN_SCORE)[0]
    result = evaluation(found, images)
    assert result is not None  # images of a split are annotated
    return result


def save_model(model: "onnx.ModelProto", card: ModelCard, path: Path) -> None:
    """Write a checked model with its card."""
    helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
