"""CUDA graphs: bookkeeping with a fake capture, and real graphs on a GPU."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rtdetrv2_pytorch.src.deploy import runtimes
from rtdetrv2_pytorch.src.deploy.cuda_graphs import GraphedDetector
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError


class FakeCapture:
    """Replay work on the memory it was captured with."""

    def __init__(self):
        self.count = 0

    def __call__(self, work):
        self.count += 1
        outputs = work()

        def replay():
            for output, value in zip(outputs, work(), strict=True):
                output.copy_(value)

        return replay, outputs


@pytest.fixture
def pixels(tiny):
    return (tiny.images * 255).round().to(torch.uint8)


@torch.inference_mode()
def test_each_batch_size_is_captured_once(tiny, pixels):
    capture = FakeCapture()
    graphed = GraphedDetector(tiny.detector, capture)
    for start, end in ((0, 1), (3, 4), (0, 7), (2, 3)):
        found = graphed(pixels[start:end], tiny.sizes_wh[start:end])
        expected = tiny.detector(pixels[start:end], tiny.sizes_wh[start:end])
        for value, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(value, wanted)
    assert capture.count == 2


@torch.inference_mode()
def test_capture_uses_the_device_of_the_detector(tiny, pixels, monkeypatch):
    """The current device may differ."""
    present = ["cuda:0"]

    @contextlib.contextmanager
    def device_of(tensor):
        present.append(str(tensor.device))
        yield
        present.pop()

    def record(work):
        assert present == ["cuda:0", "cpu"]
        return FakeCapture()(work)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    GraphedDetector(tiny.detector, record)(pixels[:1], tiny.sizes_wh[:1])
    assert present == ["cuda:0"]


@torch.inference_mode()
def test_outputs_are_copies(tiny, pixels):
    graphed = GraphedDetector(tiny.detector, FakeCapture())
    first = graphed(pixels[:1], tiny.sizes_wh[:1])
    kept = [value.clone() for value in first]
    graphed(pixels[1:2], tiny.sizes_wh[1:2])
    assert all(torch.equal(value, copy) for value, copy in zip(first, kept, strict=True))


@torch.inference_mode()
def test_number_of_graphs_is_limited(tiny, pixels):
    capture = FakeCapture()
    graphed = GraphedDetector(tiny.detector, capture)
    for batch in (1, 2, 3, 4, 5, 6, 5):
        assert len(graphed(pixels[:batch], tiny.sizes_wh[:batch])[0]) == batch
    assert capture.count == 4


def test_graphs_are_thread_safe(tiny, pixels):
    graphed = GraphedDetector(tiny.detector, FakeCapture())

    def detect(i):
        with torch.inference_mode():
            return graphed(pixels[i : i + 1], tiny.sizes_wh[i : i + 1])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(detect, [i % 7 for i in range(28)]))
    for i, found in enumerate(results):
        with torch.inference_mode():
            expected = tiny.detector(pixels[i % 7 : i % 7 + 1], tiny.sizes_wh[i % 7 : i % 7 + 1])
        torch.testing.assert_close(found[2], expected[2])


def test_cuda_graphs_on_a_cpu_are_rejected(tiny):
    with pytest.raises(ConfigError, match="cuda_graphs with device = 'cpu': CUDA graphs need"):
        open_runtime(tiny.path, cuda_graphs=True)


def test_compiled_runtime(tiny, pixels, monkeypatch):
    """With a fake compiler, because the real one takes minutes."""
    calls = []

    def count(call, **options):
        return lambda *inputs: calls.append(options) or call(*inputs)

    monkeypatch.setattr(torch, "compile", count)
    found = open_runtime(tiny.path, compiled=True)(pixels[:2], tiny.sizes_wh[:2])
    assert calls == [{"dynamic": False}]
    with torch.inference_mode():
        expected = tiny.detector(pixels[:2], tiny.sizes_wh[:2])
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-3)  # another layout


@pytest.mark.gpu
def test_cuda_graphs_agree(tiny, pixels, gpu):
    plain = runtimes.open_runtime(tiny.path, device="cuda")
    graphed = runtimes.open_runtime(tiny.path, device="cuda", cuda_graphs=True)
    for start, end in ((0, 1), (1, 2), (0, 4)):
        images, sizes = pixels[start:end].to(gpu), tiny.sizes_wh[start:end]
        for value, wanted in zip(graphed(images, sizes), plain(images, sizes), strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3)
