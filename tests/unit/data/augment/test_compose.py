"""Operations run in order and are disabled by the policy."""

import random

import pytest

from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.geometric import RandomHorizontalFlip, RandomZoomOut, Resize
from rtdetrv2_pytorch.src.data.augment.mosaic import Mosaic
from rtdetrv2_pytorch.src.data.augment.transform import EmptyTransform


def flip_and_zoom(policy=None):
    ops = [RandomHorizontalFlip(p=1), RandomZoomOut(p=1, side_range=(2, 2)), EmptyTransform()]
    return Compose(ops=ops, policy=policy)


def happened(compose, sample, epoch):
    """Return (is flipped, is zoomed) of the result."""
    result = compose(sample, random.Random(0), epoch)
    return result.is_flipped, result.canvas_hw == (40, 60)


def stop(epoch, *ops):
    return {"name": "stop_epoch", "epoch": epoch, "ops": list(ops)}


@pytest.mark.parametrize(
    ("policy", "epoch", "expected"),
    [
        (None, 1000, (True, True)),
        ({"name": "default"}, 1000, (True, True)),
        ({"name": "default", "epoch": 2, "ops": ["RandomZoomOut"]}, 1000, (True, True)),
        (stop(2, "RandomZoomOut"), 1, (True, True)),
        (stop(2, "RandomZoomOut"), 2, (True, False)),
        (stop(2, "RandomZoomOut"), 3, (True, False)),
        (stop(2, "RandomHorizontalFlip"), 2, (False, True)),
        (stop(0, "RandomHorizontalFlip", "RandomZoomOut"), 0, (False, False)),
        (stop(None, "RandomZoomOut"), 1000, (True, True)),
        (stop(2), 2, (True, True)),
        ({"name": "stop_epoch", "epoch": 2}, 2, (True, True)),
    ],
)
def test_policy_disables_named_operations(make_sample, policy, epoch, expected):
    assert happened(flip_and_zoom(policy), make_sample(20, 30), epoch) == expected


def test_operation_is_active_in_its_epochs(make_sample):
    policy = {"name": "default", "active": {"RandomZoomOut": (1, 3)}}
    for epoch, is_zoomed in enumerate((False, True, True, False)):
        assert happened(flip_and_zoom(policy), make_sample(20, 30), epoch) == (True, is_zoomed)


def test_mosaic_can_skip_later_operations(make_sample):
    class Source:
        def __len__(self):
            return 1

        def load_readable(self, index):
            return index, make_sample(32, 32)

    zoom = RandomZoomOut(p=1, side_range=(2, 2))
    for skip, size in ((["RandomZoomOut"], 32), ([], 64)):
        compose = Compose(ops=[Mosaic(size=32, skip=skip), zoom])
        compose.bind(Source())
        assert compose(make_sample(32, 32), random.Random(0)).canvas_hw == (size, size)


def test_operations_run_in_order(make_sample):
    # Flip uses the current canvas: width 30 before the resize, 60 after it.
    flip, resize = RandomHorizontalFlip(p=1), Resize(size=[20, 60])
    for ops in ([flip, resize], [resize, flip]):
        sample = Compose(ops=ops)(make_sample(20, 30, (0, 0, 10, 20)), random.Random(0))
        assert sample.boxes.tolist() == [[40, 0, 60, 20]]
    zoom = RandomZoomOut(p=1, side_range=(2, 2))
    assert Compose(ops=[zoom, resize])(make_sample(20, 30), random.Random(0)).canvas_hw == (20, 60)
    assert Compose(ops=[resize, zoom])(make_sample(20, 30), random.Random(0)).canvas_hw == (40, 120)


@pytest.mark.parametrize("ops", [None, []])
def test_empty_pipeline_keeps_sample(make_sample, ops):
    sample = make_sample(20, 30, (1, 2, 3, 4))
    assert Compose(ops=ops)(sample, random.Random(0)) is sample
    assert sample.boxes.tolist() == [[1, 2, 3, 4]]


def test_policy_ignores_names_without_operation(make_sample):
    compose = flip_and_zoom(stop(2, "RandomZoomOut", "Mosaic"))
    canvas = {e: compose(make_sample(20, 30), random.Random(0), e).canvas_hw for e in (0, 2)}
    assert canvas[0] != (20, 30)
    assert canvas[2] == (20, 30)


def test_bind_passes_data_set_to_mosaic(make_sample):
    class Source:
        def __len__(self):
            return 1

        def load_readable(self, index):
            sample = make_sample(32, 32, (0, 0, 8, 8))
            sample.labels[:] = 9
            return index, sample

    compose = Compose(ops=[EmptyTransform(), Mosaic(size=32, max_size=64)])
    compose.bind(Source())
    result = compose(make_sample(32, 32, (0, 0, 16, 16)), random.Random(0))
    assert sorted(result.labels.tolist()) == [0, 9, 9, 9]


def test_published_recipe_disables_strong_operations(training_pipeline):
    names = [type(op).__name__ for op in training_pipeline.ops]
    assert names == [
        "RandomPhotometricDistort",
        "RandomZoomOut",
        "RandomIoUCrop",
        "SanitizeBoundingBoxes",
        "RandomHorizontalFlip",
        "Resize",
        "SanitizeBoundingBoxes",
        "ConvertPILImage",
        "ConvertBoxes",
    ]
    assert training_pipeline.policy == stop(71, *names[:3])
