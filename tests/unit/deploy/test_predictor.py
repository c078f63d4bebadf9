"""The predictor, with a fake runtime that returns known detections."""

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.predictor import Predictor, Timing, clip
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError

CARD = ModelCard(
    class_names=("cat", "dog"),
    input_size_hw=(32, 64),
    threshold=0.5,
    class_thresholds={"dog": 0.25},
)


class Echo:
    """Return the same four boxes for every image; the scores identify the image.

    The first two boxes are one object detected twice. Scores fall with the mean of the red channel.
    """

    kind = "echo"
    device = torch.device("cpu")

    def __init__(self, card=CARD, max_batch_size=None):
        self.card = card
        self.max_batch_size = max_batch_size
        self.batches = []

    def __call__(self, images, sizes_wh):
        self.batches.append((images.clone(), sizes_wh.clone()))
        red = images[:, 0].float().mean((1, 2)) / 1000
        labels = torch.tensor([0, 0, 1, 1]).repeat(len(images), 1)
        scores = torch.tensor([0.75, 0.625, 0.375, 0.125]) - red[:, None] / 10
        places = torch.tensor(
            [[-0.1, 0.2, 0.5, 0.6], [0.0, 0.2, 0.5, 0.6], [0.5, 0.5, 1.2, 1.5], [0, 0, 1, 1]]
        )
        return labels, places * sizes_wh.repeat(1, 2)[:, None], scores


def image(height, width, red=0):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = red
    return pixels


def scores_of(found):
    return [[round(score, 5) for score in one["scores"].tolist()] for one in found]


def test_detections_by_hand():
    found, _ = Predictor(Echo()).predict([image(100, 200)], confidence_threshold=0.25)
    (one,) = found
    assert one["labels"].tolist() == [0, 0, 1]
    assert one["scores"].tolist() == [0.75, 0.625, 0.375]
    # Clipped to 200 x 100 pixels: -20 becomes 0, 240 becomes 200, 150 becomes 100.
    expected = torch.tensor(
        [[0.0, 20, 100, 60], [0.0, 20, 100, 60], [100, 50, 200, 100]],
    )
    torch.testing.assert_close(one["boxes"], expected)


@pytest.mark.parametrize(
    ("threshold", "scores"),
    [
        (0, [0.75, 0.625, 0.375, 0.125]),
        (0.125, [0.75, 0.625, 0.375, 0.125]),  # the threshold is inclusive
        (0.5, [0.75, 0.625]),
        (1, []),
        ("auto", [0.75, 0.625, 0.375]),  # 0.5 for cats, 0.25 for dogs
    ],
)
def test_thresholds(threshold, scores):
    (one,), _ = Predictor(Echo()).predict([image(10, 20)], confidence_threshold=threshold)
    assert one["scores"].tolist() == scores
    assert one["boxes"].shape == (len(scores), 4)


def test_default_threshold():
    (one,), _ = Predictor(Echo()).predict([image(10, 20)])
    assert one["scores"].tolist() == [0.75, 0.625]


def test_nms_removes_duplicates():
    # The two overlap by 100 / 120 before clipping, and by 1 after it.
    predict = Predictor(Echo()).predict
    (one,), _ = predict([image(10, 20)], confidence_threshold=0, nms_iou=0.9)
    assert one["scores"].tolist() == [0.75, 0.375, 0.125]
    (one,), _ = predict([image(10, 20)], confidence_threshold=0, nms_iou=1.0)
    assert len(one["scores"]) == 4


def test_order_of_images_over_batches():
    images = [
        image(height, width, red)
        for height, width, red in [
            (50, 60, 0),
            (100, 200, 50),
            (50, 60, 100),
            (7, 9, 150),
            (33, 44, 200),
        ]
    ]
    runtime = Echo()
    found, _ = Predictor(runtime, batch_size=2).predict(images, confidence_threshold=0.5)
    assert [len(batch) for batch, _ in runtime.batches] == [2, 2, 1]
    sizes = [size for _, batch in runtime.batches for size in batch.tolist()]
    assert sizes == [[60, 50], [200, 100], [60, 50], [9, 7], [44, 33]]  # (width, height)
    reds = [0, 50, 100, 150, 200]
    expected = [[round(s - red / 10000, 5) for s in (0.75, 0.625)] for red in reds]
    assert scores_of(found) == expected
    assert [one["boxes"][0, 2].item() for one in found] == [30, 100, 30, 4.5, 22]


def test_preprocessing_is_that_of_validation():
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=(h, w, 3), dtype=np.uint8) for h, w in [(80, 70), (16, 200)]]
    runtime = Echo()
    Predictor(runtime).predict(images)
    ((batch, _),) = runtime.batches
    assert batch.dtype == torch.uint8
    assert batch.shape == (2, 3, 32, 64)
    for place, pixels in enumerate(images):
        assert torch.equal(batch[place], preprocess([pixels], (32, 64), torch.device("cpu"))[0])


@pytest.mark.parametrize(
    ("asked", "largest", "size"),
    [
        (None, None, 16),
        (None, 4, 4),
        (None, 64, 16),
        (8, None, 8),
        (8, 4, 4),
        (2, 4, 2),
        (40, 64, 40),
    ],
)
def test_batch_size_is_limited_by_the_runtime(asked, largest, size):
    runtime = Echo(max_batch_size=largest)
    predictor = Predictor(runtime, batch_size=asked)
    predictor.predict([image(4, 4)] * (size + 1))
    assert [len(batch) for batch, _ in runtime.batches] == [size, 1]


@pytest.mark.parametrize("size", [0, -1])
def test_invalid_batch_size_is_rejected(size):
    with pytest.raises(ConfigError, match=f"batch_size = {size}: must be 1 or higher"):
        Predictor(Echo(), batch_size=size)


def test_predict_without_images():
    assert Predictor(Echo()).predict([]) == ([], Timing())


@pytest.mark.parametrize(
    "value", [-0.1, 1.5, float("nan"), "0.5", None, True, [0.5], np.ones(2), np.bool_(True)]
)
def test_invalid_threshold_is_rejected_before_inference(value):
    runtime = Echo()
    with pytest.raises(
        ConfigError, match=r"^confidence_threshold = .*: must be (a number )?from 0 to 1"
    ):
        Predictor(runtime).predict([image(4, 4)], confidence_threshold=value)
    assert runtime.batches == []


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_scalars_of_numpy_and_torch_are_thresholds(value):
    (one,), _ = Predictor(Echo()).predict([image(4, 4)], confidence_threshold=value, nms_iou=value)
    assert one["scores"].tolist() == [0.75]  # the second box is suppressed


def test_images_of_every_kind_are_accepted(tmp_path):
    pixels = image(6, 8, red=200)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels)
    images = [pixels, path, str(path), path.read_bytes(), Image.open(path), tensor]
    images += [tensor.permute(2, 0, 1), tensor / 255, pixels / 255, tensor.half() / 255]
    runtime = Echo()
    Predictor(runtime).predict(images)
    (batch, sizes_wh), *more = runtime.batches
    assert not more
    assert sizes_wh.tolist() == [[8, 6]] * len(images)
    assert (batch == batch[:1]).all()
    assert batch[0, 0].unique().tolist() == [200]


@pytest.mark.parametrize("value", [0, -0.5, 1.01, float("nan"), "0.5", False])
def test_invalid_nms_iou_is_rejected(value):
    with pytest.raises(ConfigError, match=r"^nms_iou = .*: must be "):
        Predictor(Echo()).predict([image(4, 4)], nms_iou=value)


def test_auto_without_measured_thresholds_is_rejected():
    runtime = Echo(ModelCard(class_names=("a", "b"), input_size_hw=(32, 64)))
    with pytest.raises(
        CheckpointError, match="the model has no measured thresholds; give a thresh"
    ):
        Predictor(runtime).predict([image(4, 4)], confidence_threshold="auto")


def test_durations_of_batches_are_added():
    assert Timing(1, 2, 3) + Timing(0.5, 0.25, 0) == Timing(1.5, 2.25, 3)
    _, timing = Predictor(Echo(), batch_size=1).predict([image(40, 40)] * 3)
    assert min(timing.preprocess_s, timing.inference_s, timing.postprocess_s) > 0


def test_boxes_are_clipped_to_their_image():
    boxes = torch.tensor([[[-5.0, -1, 300, 50]], [[10, 20, 30, 400]]])
    sizes_wh = torch.tensor([[200, 100], [25, 500]])
    assert clip(boxes, sizes_wh).tolist() == [[[0, 0, 200, 50]], [[10, 20, 25, 400]]]
