"""Recorded kernels: one launch a batch instead of some hundred, where a GPU waits for launches.

A detector at batch 1 keeps a GPU busy for a fraction of the time that the host needs to queue its
kernels. A graph holds them all; it works on the memory that it was recorded with, so inputs are
copied there and outputs from there.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .detector import RawDetections

Work = Callable[[], RawDetections]
# Runs some work again and again on the same memory: (work) -> (run it once more, its outputs).
Record = Callable[[Work], tuple[Callable[[], None], RawDetections]]

_MOST_GRAPHS = 4  # each keeps its own memory; other batch sizes run as they come
_WARM_UP = 3  # runs in which libraries choose kernels and allocate, as torch asks for


@dataclass(frozen=True)
class _Graph:
    images: Tensor
    sizes_wh: Tensor
    replay: Callable[[], None]
    outputs: RawDetections


def record_on_cuda(work: Work) -> tuple[Callable[[], None], RawDetections]:
    """Record the kernels that some work queues on the present GPU.

    Args:
        work: queues kernels and waits for nothing.

    Returns:
        What runs them once more, and the outputs that every run writes to.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Its own stream would be one for all graphs, on the GPU of the first.
    with torch.cuda.graph(graph, stream=side):
        outputs = work()
    return graph.replay, outputs


class GraphedDetector(nn.Module):
    """A detector whose kernels are recorded per batch shape, the first few of them.

    Args:
        detector: on a GPU, in evaluation mode; nothing in it may depend on values of its input.
        record: how to record.
    """

    def __init__(self, detector: nn.Module, record: Record = record_on_cuda) -> None:
        super().__init__()
        self.detector = detector
        self._record = record
        self._graphs: dict[tuple[torch.Size, torch.dtype], _Graph] = {}
        self._lock = threading.Lock()  # threads share the memory of a graph

    def forward(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `Detector`; what is returned is the caller's own."""
        shape = (images.shape, images.dtype)
        with self._lock:
            graph = self._graphs.get(shape)
            if graph is None and len(self._graphs) < _MOST_GRAPHS:
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
        with torch.cuda.device_of(own_images):  # streams are made on the present GPU
            replay, outputs = self._record(lambda: self.detector(own_images, own_sizes))
        return _Graph(own_images, own_sizes, replay, outputs)
