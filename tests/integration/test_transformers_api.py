"""`RTDETR.from_transformers` and `RTDETR.to_transformers`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, RTDetrV2ForObjectDetection

from rtdetrv2 import RTDETR
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from tests.random_detectors import NAMES, SIZE_HW, save_random_detector

IMAGE = np.random.default_rng(3).integers(0, 256, (70, 110, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> RTDETR:
    path = tmp_path_factory.mktemp("ours") / "best.pth"
    save_random_detector(path)
    return RTDETR(path, device="cpu")


@pytest.fixture(scope="module")
def folder(ours, tmp_path_factory) -> Path:
    return ours.to_transformers(tmp_path_factory.mktemp("theirs"))


def assert_same(one, other):
    assert torch.equal(torch.as_tensor(one.boxes), torch.as_tensor(other.boxes))
    assert torch.equal(torch.as_tensor(one.scores), torch.as_tensor(other.scores))
    assert list(one.names) == list(other.names)
    assert len(one) > 10


def test_detections_stay_the_same(ours, folder):
    expected = ours.predict(IMAGE, score=0.0)
    for model in (RTDETR(folder, device="cpu"), RTDETR.from_transformers(folder, device="cpu")):
        assert model.class_names == tuple(NAMES)
        assert model.input_size_hw == SIZE_HW
        assert_same(model.predict(IMAGE, score=0.0), expected)


def test_instance_with_its_processor(ours, folder):
    theirs = RTDetrV2ForObjectDetection.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    model = RTDETR.from_transformers(theirs, processor=processor, device="cpu")
    assert_same(model.predict(IMAGE, score=0.0), ours.predict(IMAGE, score=0.0))
    again = RTDETR(model.to_transformers(folder.with_name("again")), device="cpu")
    assert_same(again.predict(IMAGE, score=0.0), ours.predict(IMAGE, score=0.0))


def test_detections_of_transformers_are_ours(ours, folder):
    theirs = RTDetrV2ForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = theirs(**processor(IMAGE, return_tensors="pt"))
    found = processor.post_process_object_detection(
        outputs, threshold=0.0, target_sizes=[IMAGE.shape[:2]]
    )[0]
    mine = ours.predict(IMAGE, score=0.0)
    count = len(found["scores"])  # as many as queries
    assert count == 12
    np.testing.assert_allclose(found["scores"][:count], mine.scores[:count], atol=1e-4)
    assert [theirs.config.id2label[int(i)] for i in found["labels"][:5]] == list(mine.names[:5])


def test_mistakes_are_named(ours, tmp_path):
    with pytest.raises(ConfigError, match="not a folder with config.json; save the model there"):
        RTDETR.from_transformers("PekingU/rtdetr_v2_r18vd")
    with pytest.raises(CheckpointError, match="Linear: not a model of transformers"):
        RTDETR.from_transformers(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"neither best\.pth nor checkpoints/best\.pth"):
        RTDETR(tmp_path)
