"""Evidence for annotation errors, computed by hand."""

import numpy as np
import pytest

from rtdetrv2.analysis.radar.evidence import Boxes, evidence, own_scores

NO_CROWDS = np.empty((0, 4))


def boxes(*rows):
    """Return boxes from (x1, y1, x2, y2, class, score) each."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


def test_agreement_is_no_evidence():
    labels = boxes((0, 0, 10, 10, 0, 1), (50, 50, 70, 70, 1, 1))
    found = boxes((0, 0, 10, 10, 0, 1), (50, 50, 70, 70, 1, 1.2))  # scores count up to 1
    result = evidence(labels, found, NO_CROWDS)
    for values in (result.unsupported, result.wrong_class, result.loose_box, result.missed):
        assert values.tolist() == [0, 0]


def test_label_without_detection_and_detection_without_label():
    result = evidence(
        boxes((0, 0, 10, 10, 0, 1)),
        boxes((50, 50, 60, 60, 0, 0.8), (0, 2, 10, 9, 1, 0.1)),
        NO_CROWDS,
    )
    assert result.unsupported == pytest.approx([0.9])  # the second supports it by 0.1
    assert result.missed == pytest.approx([0.8, 0])


def test_other_class_counts_by_the_difference_of_scores():
    labels = boxes((0, 0, 10, 10, 0, 1))
    found = boxes((0, 0, 10, 10, 0, 0.2), (0, 0, 10, 9, 1, 0.7), (0, 0, 10, 4, 2, 0.9))
    result = evidence(labels, found, NO_CROWDS)
    assert result.wrong_class == pytest.approx([0.5])  # the third has IoU 0.4
    assert result.rival.tolist() == [1]
    assert result.unsupported == pytest.approx([0.1])


def test_shifted_label_is_paired_with_its_detection():
    labels = boxes((3, 3, 13, 13, 0, 1))
    result = evidence(labels, boxes((0, 0, 10, 10, 0, 0.9)), NO_CROWDS)
    iou = 49 / 151
    assert result.loose_box == pytest.approx([0.9 * (1 - iou)])
    assert result.partner.tolist() == [0]
    assert result.missed.tolist() == [0]


def test_neighbor_is_not_taken_for_the_object():
    """The detection in the middle fits the second label exactly, so the first has no partner."""
    labels = boxes((0, 0, 10, 10, 0, 1), (4, 0, 14, 10, 0, 1))
    result = evidence(labels, boxes((4, 0, 14, 10, 0, 0.9)), NO_CROWDS)
    assert result.loose_box.tolist() == [0, 0]
    assert result.partner.tolist() == [-1, -1]


def test_second_detection_of_an_object_is_not_a_missing_label():
    labels = boxes((0, 0, 10, 10, 0, 1))
    found = boxes((0, 0, 10, 10, 0, 0.9), (0, 1, 10, 10, 1, 0.8), (4, 0, 14, 10, 0, 0.7))
    assert evidence(labels, found, NO_CROWDS).missed.tolist() == [0, 0, 0]


def test_detections_in_crowd_regions_need_no_label():
    found = boxes((0, 0, 10, 10, 0, 0.9), (40, 0, 50, 10, 0, 0.9))
    result = evidence(boxes(), found, np.array([[0.0, 0, 10, 6]]))
    assert result.missed == pytest.approx([0, 0.9])


def test_image_without_labels_or_detections():
    empty = evidence(boxes(), boxes(), NO_CROWDS)
    assert len(empty.missed) == len(empty.unsupported) == 0
    alone = evidence(boxes((0, 0, 9, 9, 0, 1)), boxes(), NO_CROWDS)
    assert (alone.unsupported.tolist(), alone.wrong_class.tolist()) == ([1], [0])
    assert (alone.rival.tolist(), alone.partner.tolist()) == ([-1], [-1])


def test_own_score_is_of_the_same_class_and_place():
    labels = boxes((0, 0, 10, 10, 0, 1), (50, 0, 60, 10, 1, 1))
    found = boxes((0, 0, 10, 8, 0, 0.4), (0, 0, 10, 10, 1, 0.9), (50, 0, 60, 4, 1, 0.9))
    assert own_scores(labels, found).tolist() == [0.4, 0]
