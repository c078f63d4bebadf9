"""Planted errors, probabilities and the ranked list."""

import numpy as np
import pytest

from rtdetrv2.analysis.radar.evidence import Boxes
from rtdetrv2.analysis.radar.planting import ComparedImage, fit, planted_values, shifted
from rtdetrv2.analysis.radar.suspicions import find_suspicions
from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable

PLACES = [(20 + 60 * column, 20 + 60 * row) for column in range(4) for row in range(3)]


def test_probability_is_the_share_of_errors_at_the_same_evidence():
    """90 correct labels at 0.1 to 0.3, and 10 errors among 20 labels at 0.8 to 1."""
    rng = np.random.default_rng(0)
    correct = np.concatenate([rng.uniform(0.1, 0.3, 970), rng.uniform(0.8, 0.9, 10)])
    errors = rng.uniform(0.8, 1, 20)
    posterior = fit(np.concatenate([correct, errors]), rng.uniform(0.8, 1, 2000), total=1000)
    assert posterior.prior == pytest.approx(0.02, abs=0.006)
    low, middle, high = posterior(np.array([0.2, 0.85, 0.97]))
    assert low < 0.2
    assert middle == pytest.approx(0.5, abs=0.2)
    assert high > 0.9
    assert posterior(np.zeros(1)).tolist() == [0]


def test_probability_never_decreases_with_the_evidence():
    rng = np.random.default_rng(1)
    posterior = fit(rng.random(300) ** 3, rng.random(300), total=300)
    values = posterior(np.linspace(0, 1, 50))
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize(
    ("observed", "planted"),
    [
        ([0.5] * 10, []),
        ([0.5] * 10, [0.0] * 10),  # planted errors leave no evidence
        ([0.5] * 10, [0.0] * 9 + [0.9]),  # few of them leave any
        ([1.0] * 10, [1.0] * 10),  # all labels look like errors: an untrained network
    ],
)
def test_useless_evidence_gives_no_probability(observed, planted):
    posterior = fit(np.array(observed), np.array(planted), total=10)
    assert posterior(np.array([0.5, 1.0])).tolist() == [0, 0]


def test_shift_moves_by_a_fraction_of_the_size():
    box = np.array([10.0, 20, 30, 60])
    moved = shifted(box, np.random.default_rng(0))
    assert np.abs(moved - box).tolist() == [6, 12, 6, 12]


def test_planted_errors_are_measured_in_their_own_image():
    """A perfect detector: planted errors leave full evidence."""
    table = np.array([[x, y, x + 20, y + 20] for x, y in PLACES], dtype=np.float64)
    perfect = Boxes(table, np.arange(len(table)) % 3, np.ones(len(table)))
    image = ComparedImage(perfect, perfect, np.empty((0, 4)), (300, 300))
    values = planted_values([image], 3, seed=0)
    iou = 14**2 / (2 * 20**2 - 14**2)  # of a box of 20 pixels, moved by 6 in both directions
    assert values["missed"].tolist() == [1] * len(PLACES)
    assert values["unsupported"].tolist() == [1] * len(PLACES)
    assert values["wrong_class"].tolist() == [1] * len(PLACES)
    assert values["loose_box"] == pytest.approx([1 - iou] * len(PLACES))
    assert len(planted_values([image], 1, seed=0)["wrong_class"]) == 0


def dataset(num_images=30):
    """Return labels with one error of each kind, and nearly perfect detections."""
    rng = np.random.default_rng(0)
    truth = np.array([[x, y, x + 30, y + 30] for x, y in PLACES], dtype=np.float64)
    records, counts, found_boxes, found_labels = [], [], [], []
    for number in range(num_images):
        boxes, labels = truth.copy(), np.arange(len(truth)) % 3
        found_boxes.append(boxes + rng.normal(0, 0.5, boxes.shape))
        found_labels.append(labels.copy())
        counts.append(len(boxes))
        if number == 0:
            boxes, labels = boxes[1:], labels[1:]  # missed at PLACES[0]
        elif number == 1:
            labels[1] = 2
        elif number == 2:
            boxes[2] += 9
        elif number == 3:
            boxes = np.vstack([boxes, [250, 250, 280, 280]])
            labels = np.append(labels, 1)
        area = np.full(len(boxes), 900.0)
        crowd = np.zeros(len(boxes), np.int64)
        records.append(
            ImageRecord(f"{number}.jpg", number + 1, (300, 300), boxes, labels, area, crowd)
        )
    table = DetectionTable(
        image_ids=np.arange(1, num_images + 1),
        counts=np.array(counts),
        boxes=np.concatenate(found_boxes).astype(np.float32),
        scores=rng.uniform(0.7, 0.9, sum(counts)).astype(np.float32),
        labels=np.concatenate(found_labels),
    )
    return Annotations(records, CategoryTable((1, 2, 3), ("a", "b", "c"))), table


def test_one_error_of_each_kind_is_first_in_the_list():
    annotations, found = dataset()
    suspicions, rates = find_suspicions(annotations, found, split="train")
    first = {each.kind: each for each in suspicions[:4]}
    assert {kind: each.image_id for kind, each in first.items()} == {
        "missed": 1,
        "wrong_class": 2,
        "loose_box": 3,
        "unsupported": 4,
    }
    assert all(each.probability > 0.25 for each in first.values())
    assert len(suspicions) == 4
    missed, wrong = first["missed"], first["wrong_class"]
    assert missed.label is None
    assert missed.detection.class_name == "a"
    assert missed.detection.box == pytest.approx((20, 20, 50, 50), abs=3)
    assert (wrong.label.class_name, wrong.detection.class_name) == ("c", "b")
    assert first["unsupported"].label.box == (250, 250, 280, 280)
    assert first["unsupported"].detection is None
    assert rates["unsupported"] == pytest.approx(2 / 360)  # one, and one standard error


def test_list_is_the_same_every_time():
    annotations, found = dataset(8)
    first, second = (find_suspicions(annotations, found, split="val")[0] for _ in range(2))
    assert [each.as_dict() for each in first] == [each.as_dict() for each in second]
