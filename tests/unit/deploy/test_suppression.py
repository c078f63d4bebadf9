"""Non-maximum suppression against a greedy loop in numpy."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import parser

from rtdetrv2_pytorch.src.deploy.suppression import (
    above,
    add_suppression,
    set_output_sizes,
    suppress,
)
from rtdetrv2_pytorch.src.structures import DetectionTensors


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common)


def greedy(labels, boxes, scores, iou):
    """Return the indices to keep, best first; for equal scores the first."""
    kept = []
    for place in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if labels[k] == labels[place]]
        if all(overlap(boxes[k], boxes[place]) <= iou for k in rivals):
            kept.append(place)
    return kept


def random_detections(batch, number, num_classes=3, seed=0):
    """Return crowded boxes, some partly outside the image, by descending score."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 10, (batch, number, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(30, 50, (batch, number, 2))], axis=-1)
    labels = rng.integers(num_classes, size=(batch, number))
    scores = -np.sort(-rng.uniform(0.05, 1, (batch, number)), axis=1)
    return labels, boxes.astype(np.float32), scores.astype(np.float32)


def as_detections(labels, boxes, scores):
    return DetectionTensors(
        labels=torch.as_tensor(labels),
        boxes=torch.as_tensor(boxes),
        scores=torch.as_tensor(scores),
    )


def detector_graph(number, opset=17):
    """Replaces an exported detector: returns its inputs."""
    return parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": {opset}], producer_name: "pytorch">
        detector (int64[N, {number}] l, float[N, {number}, 4] b, float[N, {number}] s)
            => (int64[N, {number}] labels, float[N, {number}, 4] boxes, float[N, {number}] scores)
        {{
            labels = Identity (l)
            boxes = Identity (b)
            scores = Identity (s)
        }}
        """
    )


def run(model, labels, boxes, scores):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["labels", "boxes", "scores"], {"l": labels, "b": boxes, "s": scores})


@pytest.mark.parametrize("iou", [0.2, 0.5, 0.8])
def test_suppress_equals_a_greedy_loop(iou):
    labels, boxes, scores = (values[0] for values in random_detections(1, 60))
    kept = greedy(labels, boxes, scores, iou)
    assert 0 < len(kept) < 60
    found = suppress(as_detections(labels, boxes, scores), iou)
    assert found["labels"].tolist() == labels[kept].tolist()
    assert found["boxes"].tolist() == boxes[kept].tolist()
    assert found["scores"].tolist() == scores[kept].tolist()


def test_suppress_without_detections():
    empty = as_detections(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0))
    assert suppress(empty, 0.5)["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("batch", "opset"), [(1, 17), (3, 17), (3, 18), (2, 20)])
@pytest.mark.parametrize("iou", [0.2, 0.7])
def test_graph_equals_a_greedy_loop_per_image(batch, opset, iou):
    number = 40
    given = random_detections(batch, number, seed=batch)
    model = add_suppression(detector_graph(number, opset), iou, number)
    onnx.checker.check_model(model, full_check=True)
    labels, boxes, scores = run(model, *given)
    counts = set()
    for image in range(batch):
        one = [values[image] for values in given]
        kept = greedy(*one, iou)
        dropped = [place for place in range(number) if place not in kept]
        counts.add(len(kept))
        order = kept + dropped
        assert labels[image].tolist() == one[0][order].tolist()
        assert boxes[image].tolist() == one[1][order].tolist()
        assert scores[image].tolist() == one[2][kept].tolist() + [0] * len(dropped)
    assert max(counts) < number


# Two classes at the same place; a weaker detection of the first class next to it.
SAME_PLACE = np.array([[[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 6]]], np.float32)


def test_classes_are_independent():
    labels = np.array([[0, 1, 0]])
    scores = np.array([[0.9, 0.8, 0.7]], np.float32)
    labels, boxes, scores = run(
        add_suppression(detector_graph(3), 0.5, 3), labels, SAME_PLACE, scores
    )
    np.testing.assert_allclose(scores, [[0.9, 0.8, 0]])
    assert labels.tolist() == [[0, 1, 0]]
    assert boxes[0, 2].tolist() == [0, 0, 10, 6]


@pytest.mark.parametrize(("iou", "kept"), [(0.5, 2), (0.499, 1)])
def test_iou_equal_to_the_threshold_is_kept(iou, kept):
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 5]]], np.float32)
    labels = np.array([[0, 0]])
    scores = np.array([[0.9, 0.8]], np.float32)
    found = run(add_suppression(detector_graph(2), iou, 2), labels, boxes, scores)
    assert np.count_nonzero(found[2]) == kept
    assert len(suppress(as_detections(labels[0], boxes[0], scores[0]), iou)["scores"]) == kept


def test_first_of_equal_scores_is_kept():
    boxes = np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]], np.float32)
    labels = np.array([[4, 4, 4]])
    scores = np.full((1, 3), 0.5, np.float32)
    found = run(add_suppression(detector_graph(3), 0.5, 3), labels, boxes, scores)
    assert found[1][0].tolist() == [[0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10]]
    assert found[2].tolist() == [[0.5, 0.5, 0]]
    one = suppress(as_detections(labels[0], boxes[0], scores[0]), 0.5)
    assert one["boxes"].tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]


def test_removed_detections_do_not_suppress_others():
    """The second overlaps both, but is dropped before it could drop the third."""
    boxes = np.array([[[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]], np.float32)
    scores = np.array([[0.9, 0.8, 0.7]], np.float32)
    found = run(
        add_suppression(detector_graph(3), 0.3, 3), np.zeros((1, 3), np.int64), boxes, scores
    )
    np.testing.assert_allclose(found[2], [[0.9, 0.7, 0]])


def test_names_and_producer_are_kept():
    model = add_suppression(detector_graph(3), 0.5, 3)
    assert [value.name for value in model.graph.input] == ["l", "b", "s"]
    assert [value.name for value in model.graph.output] == ["labels", "boxes", "scores"]
    assert model.producer_name == "pytorch"


def test_output_sizes_replace_symbolic_names():
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        d (float[N, 4] x) => (int64[a, b] labels, float[c, d, e] boxes, float[f, g] scores)
        {
            labels = Shape (x)
            boxes = Identity (x)
            scores = Identity (x)
        }
        """
    )
    set_output_sizes(model, 36)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }
    assert shapes == {"labels": ["N", 36], "boxes": ["N", 36, 4], "scores": ["N", 36]}


def test_above_uses_inclusive_class_thresholds():
    found = above(
        as_detections([0, 1, 0, 1], torch.arange(16.0).view(4, 4), [0.75, 0.5, 0.5, 0.25]),
        torch.tensor([0.75, 0.25]),
    )
    assert found["labels"].tolist() == [0, 1, 1]
    assert found["scores"].tolist() == [0.75, 0.5, 0.25]
    assert found["boxes"][:, 0].tolist() == [0, 4, 12]


def test_above_removes_score_0():
    found = above(as_detections([0, 0], torch.zeros(2, 4), [0.1, 0.0]), torch.tensor([0.0]))
    torch.testing.assert_close(found["scores"], torch.tensor([0.1]))
