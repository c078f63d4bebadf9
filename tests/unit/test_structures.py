"""The flat table of ground truth."""

import dataclasses

import pytest
import torch

from rtdetrv2_pytorch.src.structures import GroundTruth


def target(labels, boxes, image_id):
    return {
        "labels": torch.tensor(labels, dtype=torch.int64),
        "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        "image_id": torch.tensor([image_id]),
    }


def test_three_images_with_two_no_and_one_box_by_hand():
    first, last = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.1, 0.1]], [[0.9, 0.8, 0.1, 0.2]]
    truth = GroundTruth.from_targets(
        [target([4, 2], first, 11), target([], [], 22), target([7], last, 33)],
        torch.device("cpu"),
    )
    assert truth.labels.tolist() == [4, 2, 7]
    assert truth.image_index.tolist() == [0, 0, 2]
    assert truth.counts == (2, 0, 1)
    assert [int(i) for i in truth.image_ids] == [11, 22, 33]
    # Boxes of any type become float32.
    torch.testing.assert_close(truth.boxes, torch.tensor(first + last, dtype=torch.float32))


def test_a_batch_without_boxes_is_an_empty_table():
    truth = GroundTruth.from_targets([target([], [], 1)] * 2, torch.device("cpu"))
    assert truth.counts == (0, 0)
    assert truth.image_index.tolist() == truth.labels.tolist() == truth.boxes.tolist() == []
    assert (truth.labels.dtype, truth.image_index.dtype) == (torch.int64, torch.int64)
    assert truth.boxes.shape == (0, 4)


def test_ids_are_optional_because_only_messages_need_them():
    bare = {"labels": torch.tensor([3]), "boxes": torch.rand(1, 4)}
    truth = GroundTruth.from_targets([bare], torch.device("cpu"))
    assert truth.image_ids == ()
    assert truth.counts == (1,)


def test_the_table_cannot_be_changed():
    truth = GroundTruth.from_targets([target([1], [[0, 0, 1, 1]], 5)], torch.device("cpu"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        truth.counts = (2,)
