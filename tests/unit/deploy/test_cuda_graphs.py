"""Recorded detectors: the bookkeeping with a recorder of this test, the rest on a GPU."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rtdetrv2_pytorch.src.deploy import runtimes
from rtdetrv2_pytorch.src.deploy.cuda_graphs import GraphedDetector
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError


class Recorder:
    """Like a graph: replays on the memory that it saw, and knows nothing of Python."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, work):
        self.recorded += 1
        outputs = work()

        def replay():
            for output, value in zip(outputs, work(), strict=True):
                output.copy_(value)

        return replay, outputs


@pytest.fixture
def pixels(tiny):
    return (tiny.images * 255).round().to(torch.uint8)


@torch.inference_mode()
def test_every_batch_size_is_recorded_once_and_finds_the_same(tiny, pixels):
    recorder = Recorder()
    graphed = GraphedDetector(tiny.detector, recorder)
    for start, end in ((0, 1), (3, 4), (0, 7), (2, 3)):
        found = graphed(pixels[start:end], tiny.sizes_wh[start:end])
        expected = tiny.detector(pixels[start:end], tiny.sizes_wh[start:end])
        for value, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(value, wanted)
    assert recorder.recorded == 2


@torch.inference_mode()
def test_a_detector_is_recorded_on_its_own_device(tiny, pixels, monkeypatch):
    """Whichever GPU is the present one: here, a device that this test has made up."""
    present = ["cuda:0"]

    @contextlib.contextmanager
    def device_of(tensor):
        present.append(str(tensor.device))
        yield
        present.pop()

    def record(work):
        assert present == ["cuda:0", "cpu"]
        return Recorder()(work)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    GraphedDetector(tiny.detector, record)(pixels[:1], tiny.sizes_wh[:1])
    assert present == ["cuda:0"]


@torch.inference_mode()
def test_answers_stay_when_the_next_one_comes(tiny, pixels):
    graphed = GraphedDetector(tiny.detector, Recorder())
    first = graphed(pixels[:1], tiny.sizes_wh[:1])
    kept = [value.clone() for value in first]
    graphed(pixels[1:2], tiny.sizes_wh[1:2])
    assert all(torch.equal(value, copy) for value, copy in zip(first, kept, strict=True))


@torch.inference_mode()
def test_only_a_few_sizes_are_recorded(tiny, pixels):
    recorder = Recorder()
    graphed = GraphedDetector(tiny.detector, recorder)
    for batch in (1, 2, 3, 4, 5, 6, 5):
        assert len(graphed(pixels[:batch], tiny.sizes_wh[:batch])[0]) == batch
    assert recorder.recorded == 4


def test_threads_do_not_write_into_each_others_graph(tiny, pixels):
    graphed = GraphedDetector(tiny.detector, Recorder())

    def detect(i):
        with torch.inference_mode():
            return graphed(pixels[i : i + 1], tiny.sizes_wh[i : i + 1])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(detect, [i % 7 for i in range(28)]))
    for i, found in enumerate(results):
        with torch.inference_mode():
            expected = tiny.detector(pixels[i % 7 : i % 7 + 1], tiny.sizes_wh[i % 7 : i % 7 + 1])
        torch.testing.assert_close(found[2], expected[2])


def test_a_cpu_has_no_cuda_graphs(tiny):
    with pytest.raises(ConfigError, match="cuda_graphs with device = 'cpu': they are for a GPU"):
        open_runtime(tiny.path, cuda_graphs=True)


def test_a_compiled_runtime_runs_what_the_compiler_gives(tiny, pixels, monkeypatch):
    """The compiler itself is torch's, and takes minutes."""
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
def test_real_graphs_find_the_same(tiny, pixels, gpu):
    plain = runtimes.open_runtime(tiny.path, device="cuda")
    graphed = runtimes.open_runtime(tiny.path, device="cuda", cuda_graphs=True)
    for start, end in ((0, 1), (1, 2), (0, 4)):
        images, sizes = pixels[start:end].to(gpu), tiny.sizes_wh[start:end]
        for value, wanted in zip(graphed(images, sizes), plain(images, sizes), strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-3)
