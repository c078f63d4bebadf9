"""CUDA graphs: one launch per batch instead of hundreds.

At batch size 1 the host needs longer to launch the kernels than the GPU to run them. A CUDA graph
launches them all in one call. It works on the memory it was captured with, so inputs are copied
into that memory and outputs out of it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .detector import RawDetections

Work = Callable[[], RawDetections]
# Captures work: (work) -> (function that replays it, its outputs).
Capture = Callable[[Work], tuple[Callable[[], None], RawDetections]]

_MAX_GRAPHS = 4  # each keeps its own memory; other batch shapes run without a graph
_WARMUP_RUNS = 3  # before the capture, as torch requires


@dataclass(frozen=True)
class _Graph:
    images: Tensor
    sizes_wh: Tensor
    replay: Callable[[], None]
    outputs: RawDetections


def capture_on_cuda(work: Work) -> tuple[Callable[[], None], RawDetections]:
    """Capture the kernels of some work on the current GPU.

    Args:
        work: launches kernels without synchronizing.

    Returns:
        A function that replays the kernels, and the outputs they write to.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARMUP_RUNS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # The default capture stream belongs to the GPU of the first graph.
    with torch.cuda.graph(graph, stream=side):
        outputs = work()
    return graph.replay, outputs


class GraphedDetector(nn.Module):
    """A detector with one CUDA graph for each of the first few batch shapes.

    Args:
        detector: on a GPU, in evaluation mode, without control flow that depends on input values.
        capture: captures the graph.
    """

    def __init__(self, detector: nn.Module, capture: Capture = capture_on_cuda) -> None:
        super().__init__()
        self.detector = detector
        self._capture = capture
        self._graphs: dict[tuple[torch.Size, torch.dtype], _Graph] = {}
        self._lock = threading.Lock()  # threads share the memory of a graph

    def forward(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `Detector`; the outputs are copies."""
        shape = (images.shape, images.dtype)
        with self._lock:
            graph = self._graphs.get(shape)
            if graph is None and len(self._graphs) < _MAX_GRAPHS:
                graph = self._graphs[shape] = self._new_graph(images, sizes_wh)
            if graph is not None:
                graph.images.copy_(images)
                graph.sizes_wh.copy_(sizes_wh)
                graph.replay()
                labels, boxes, scores = (output.clone() for output in graph.outputs)
                return labels, boxes, scores
        found: RawDetections = self.detector(images, sizes_wh)
        return found

    def _new_graph(self, images: Tensor, sizes_wh: Tensor) -> _Graph:
        own_images, own_sizes = images.clone(), sizes_wh.clone()
        with torch.cuda.device_of(own_images):  # streams belong to the current GPU
            replay, outputs = self._capture(lambda: self.detector(own_images, own_sizes))
        return _Graph(own_images, own_sizes, replay, outputs)
