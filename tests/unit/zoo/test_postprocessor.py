"""Detections from predictions, by hand."""

import math

import pytest
import torch

from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORY_IDS
from rtdetrv2_pytorch.src.zoo.rtdetr.postprocessor import RTDETRPostProcessor


def logit(p):
    return math.log(p / (1 - p))


# One image of 200 x 100 pixels (width x height), two queries, three classes.
SIZES = torch.tensor([[200, 100]])
OUTPUTS = {
    "pred_logits": torch.tensor(
        [[[logit(0.9), logit(0.2), logit(0.6)], [logit(0.1), logit(0.8), logit(0.3)]]]
    ),
    "pred_boxes": torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4]]]),
}
FIRST = [80.0, 30.0, 120.0, 70.0]
SECOND = [-20.0, 70.0, 60.0, 110.0]  # not clamped to the image


def test_query_class_pairs_are_ranked_by_hand():
    (found,) = RTDETRPostProcessor(num_classes=3, num_top_queries=4)(OUTPUTS, SIZES)
    assert found["labels"].tolist() == [0, 1, 2, 2]
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.8, 0.6, 0.3]))
    # The first query gives two detections; width scales x, height scales y.
    torch.testing.assert_close(found["boxes"], torch.tensor([FIRST, SECOND, FIRST, SECOND]))


def test_num_top_queries_above_candidates_returns_all():
    (found,) = RTDETRPostProcessor(num_classes=3, num_top_queries=300)(OUTPUTS, SIZES)
    torch.testing.assert_close(
        found["scores"], torch.tensor([0.9, 0.8, 0.6, 0.3, 0.2, 0.1]), rtol=1e-5, atol=1e-6
    )
    assert found["labels"].tolist() == [0, 1, 2, 2, 1, 0]


def test_softmax_excludes_background_class():
    processor = RTDETRPostProcessor(num_classes=2, use_focal_loss=False, num_top_queries=300)
    shares = torch.tensor([[[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]]])
    outputs = {"pred_logits": shares.log() + 3, "pred_boxes": torch.rand(1, 3, 4)}
    (found,) = processor(outputs, SIZES)
    assert found["labels"].tolist() == [0, 1, 1]
    torch.testing.assert_close(found["scores"], torch.tensor([0.5, 0.3, 0.2]))
    cx, cy, w, h = outputs["pred_boxes"][0, [1, 2, 0]].unbind(-1)
    expected = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)
    torch.testing.assert_close(found["boxes"], expected * torch.tensor([200, 100, 200, 100]))
    processor.num_top_queries = 2
    (best,) = processor(outputs, SIZES)
    assert best["labels"].tolist() == [0, 1]
    torch.testing.assert_close(best["boxes"], found["boxes"][:2])


@pytest.mark.parametrize("use_focal_loss", [True, False])
def test_boxes_are_scaled_to_size_of_each_image(use_focal_loss):
    processor = RTDETRPostProcessor(use_focal_loss=use_focal_loss, num_top_queries=5)
    outputs = {"pred_logits": torch.randn(3, 7, 4), "pred_boxes": torch.rand(3, 7, 4)}
    sizes = torch.tensor([[200, 100], [50, 400], [64, 64]])
    together = processor(outputs, sizes)
    assert len(together) == 3
    for image in range(3):
        one = {key: value[image : image + 1] for key, value in outputs.items()}
        (alone,) = processor(one, sizes[image : image + 1])
        for key in ("labels", "boxes", "scores"):
            torch.testing.assert_close(alone[key], together[image][key])


def test_labels_are_remapped_to_coco_ids():
    logits = torch.full((1, 1, 80), -9.0)
    logits[0, 0, [0, 11, 79]] = torch.tensor([3.0, 2.0, 1.0])
    outputs = {"pred_logits": logits, "pred_boxes": torch.rand(1, 1, 4)}
    options = {"num_classes": 80, "num_top_queries": 3}
    (plain,) = RTDETRPostProcessor(**options)(outputs, SIZES)
    (mapped,) = RTDETRPostProcessor(**options, remap_mscoco_category=True)(outputs, SIZES)
    assert plain["labels"].tolist() == [0, 11, 79]
    assert mapped["labels"].tolist() == [1, 13, 90]
    assert mapped["labels"].tolist() == [COCO_CATEGORY_IDS[i] for i in plain["labels"]]
    assert mapped["labels"].dtype == torch.int64


@pytest.mark.parametrize("remap", [False, True])
def test_deploy_returns_batched_tensors_without_remapping(remap):
    options = {"num_classes": 3, "num_top_queries": 4}
    expected = RTDETRPostProcessor(**options)(OUTPUTS, SIZES)[0]
    processor = RTDETRPostProcessor(**options, remap_mscoco_category=remap).train()
    assert processor.deploy() is processor
    assert not processor.training
    labels, boxes, scores = processor(OUTPUTS, SIZES)
    for name, value in (("labels", labels), ("boxes", boxes), ("scores", scores)):
        torch.testing.assert_close(value, expected[name][None])


def test_postprocessing_uses_float32():
    half = {key: value.bfloat16() for key, value in OUTPUTS.items()}
    as_float = {key: value.float() for key, value in half.items()}
    processor = RTDETRPostProcessor(num_classes=3)
    (found,), (expected,) = processor(half, SIZES), processor(as_float, SIZES)
    for key in ("labels", "boxes", "scores"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
