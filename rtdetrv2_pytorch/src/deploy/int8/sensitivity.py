"""The layers of a quantized graph, by the rounding error that each one adds."""

from collections.abc import Sequence

import numpy as np

from ...misc.errors import extra
from ..onnx_file import INPUTS
from ..parity import OnProgress
from .calibration import network_input
from .graph import MixedGraph
from .search import Deadline

NUM_IMAGES = 8


def by_sensitivity(
    graph: MixedGraph,
    images: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    deadline: Deadline,
    on_progress: OnProgress,
) -> list[str]:
    """Return the layers, those with the largest relative error first.

    The error of a layer is measured with exact inputs, so that it does not contain the errors of
    earlier layers.

    Args:
        graph: the layers.
        images: to measure on, [H, W, 3] uint8 RGB each.
        size_hw: (height, width) of the network's input.
        deadline: checked before each image.
        on_progress: called with (activity, images done, images in total).

    Raises:
        TimeOverError: if the time is over.
    """
    with extra("int8"):
        import onnxruntime as ort
    model, outputs = graph.with_noise()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # only errors
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sums = np.zeros((len(outputs), 2))
    for place, image in enumerate(images[:NUM_IMAGES]):
        deadline.check()
        on_progress("measuring the error of each layer", place, NUM_IMAGES)
        inputs = (network_input(image, size_hw), np.array([[1, 1]], np.int64))
        results = session.run(
            [name for pair in outputs for name in pair], dict(zip(INPUTS, inputs, strict=True))
        )
        sums += np.array(results).reshape(-1, 2)
    errors = sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float32).tiny)
    return [graph.layers[place] for place in np.argsort(-errors, kind="stable")]
