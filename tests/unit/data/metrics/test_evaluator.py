"""COCO metrics equal pycocotools; operating points by hand."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.metrics.detection_limit import (
    limit_notes,
    limit_of_split,
    missed_objects_warning,
)
from rtdetrv2_pytorch.src.data.metrics.evaluator import (
    STAT_NAMES,
    CocoEvaluator,
    Evaluation,
)
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint, best_operating_point
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES

TABLE = CategoryTable((3, 17, 95), ("cat", "dog", "cow"))
NOWHERE = OperatingPoint(1.0, 0.0, 0.0, 0.0)


def image(image_id, boxes=(), labels=(), area=None, iscrowd=None):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    sizes = boxes[:, 2:] - boxes[:, :2]
    return ImageRecord(
        file_name=f"{image_id}.jpg",
        image_id=image_id,
        size_wh=(640, 480),
        boxes_xyxy=boxes,
        labels=np.array(labels, dtype=np.int64),
        area=sizes.prod(axis=1) if area is None else np.array(area, dtype=np.float64),
        iscrowd=np.array([0] * len(boxes) if iscrowd is None else iscrowd, dtype=np.int64),
    )


def found(boxes=(), scores=(), labels=()):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def measured(evaluator):
    evaluator.synchronize_between_processes()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.result()


def evaluate(images, predictions, table=TABLE, **options) -> Evaluation:
    evaluator = CocoEvaluator(annotations=Annotations(images, table), iou_types=["bbox"], **options)
    evaluator.update(predictions)
    return measured(evaluator)


def random_boxes(rng, count):
    """Boxes inside 640x480 in all three of COCO's area ranges."""
    sizes = np.exp(rng.uniform(np.log(6), np.log(300), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * ((640, 480) - sizes).clip(0)
    return np.concatenate((corners, corners + sizes), axis=1)


def random_split(seed, num_images=24, is_crowded=True):
    """Images and partly correct detections, with edge cases of the metrics."""
    rng = np.random.default_rng(seed)
    images, predictions = [], {}
    for number in range(num_images):
        count = 0 if number % 6 == 5 else int(rng.integers(1, 12))
        boxes, labels = random_boxes(rng, count), rng.integers(0, 3, count)
        images.append(
            image(
                1000 - 7 * number,
                boxes,
                labels,
                area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.uniform(0.5, 1, count),
                iscrowd=rng.random(count) < 0.15 * is_crowded,
            )
        )
        # Two detections of most boxes, some with another class, and false positives.
        looks = np.repeat(np.arange(count), rng.integers(0, 3, count))
        sizes = np.tile(boxes[looks, 2:] - boxes[looks, :2], 2)
        near = boxes[looks] + rng.normal(0, 0.08, (len(looks), 4)) * sizes
        names = np.where(
            rng.random(len(looks)) < 0.8, labels[looks], rng.integers(0, 3, len(looks))
        )
        extra = 350 if number == 3 else int(rng.integers(0, 30))
        all_boxes = np.concatenate((near, random_boxes(rng, extra)))
        scores = np.concatenate((rng.beta(3, 2, len(looks)), rng.beta(1, 3, extra)))
        if number % 2:
            scores = scores.round(1)  # equal scores
        order = rng.permutation(len(scores))
        names = np.concatenate((names, rng.integers(0, 3, extra)))
        predictions[1000 - 7 * number] = found(all_boxes[order], scores[order], names[order])
    return images, predictions


def pycocotools(images, predictions, table=TABLE, category_ids=None, image_ids=None, limit=100):
    """Return the 12 metrics of the reference implementation; "AR_100" is AR with the limit."""
    truth, rows = [], []
    for record in images:
        for box, label, area, crowd in zip(
            record.boxes_xyxy, record.labels, record.area, record.iscrowd, strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": record.image_id,
                    "category_id": table.evaluation_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    for image_id, one in predictions.items():
        for box, score, label in zip(one["boxes"], one["scores"], one["labels"], strict=True):
            x1, y1, x2, y2 = box.double().tolist()
            size = [x2 - x1, y2 - y1]
            rows.append([image_id, x1, y1, *size, score, table.evaluation_ids[label]])
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "info": {},
            "images": [{"id": r.image_id, "width": 640, "height": 480} for r in images],
            "categories": [
                {"id": i, "name": n} for i, n in zip(table.evaluation_ids, table.names, strict=True)
            ],
            "annotations": truth,
        }
        gt.createIndex()
        coco_eval = COCOeval(gt, gt.loadRes(np.array(rows, dtype=np.float64)), "bbox")
        if category_ids is not None:
            coco_eval.params.catIds = category_ids
        coco_eval.params.maxDets = [1, 10, limit]
        if image_ids is not None:
            coco_eval.params.imgIds = image_ids
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
        precision = coco_eval.eval["precision"][..., 0, 2]  # summarize() takes AP at 100 only
        coco_eval.stats[0] = precision[precision > -1].mean()
    return dict(zip(STAT_NAMES, coco_eval.stats.tolist(), strict=True))


# --- the twelve numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_pycocotools(seed):
    images, predictions = random_split(seed)
    result = evaluate(images, predictions)
    expected = pycocotools(images, predictions)
    assert list(result.stats) == list(STAT_NAMES)
    assert result.stats == pytest.approx(expected, abs=1e-9)
    assert all(0.01 < v < 0.99 for v in expected.values())  # not trivial
    assert result.num_images == 24


def test_class_metrics_equal_pycocotools():
    images, predictions = random_split(5)
    result = evaluate(images, predictions)
    assert [c.name for c in result.classes] == ["cat", "dog", "cow"]
    for label, metrics in enumerate(result.classes):
        expected = pycocotools(images, predictions, category_ids=[TABLE.ids[label]])
        assert metrics.ap == pytest.approx(expected["AP"], abs=1e-9)
        assert metrics.ap50 == pytest.approx(expected["AP50"], abs=1e-9)
        wanted = sum(int(((r.labels == label) & (r.iscrowd == 0)).sum()) for r in images)
        assert metrics.num_boxes == wanted
    assert result.stats["AP"] == pytest.approx(np.mean([c.ap for c in result.classes]), abs=1e-9)


def test_only_updated_images_count():
    images, predictions = random_split(6)
    half = dict(list(predictions.items())[::2])
    result = evaluate(images, half)
    expected = pycocotools(images, half, image_ids=list(half))
    assert result.stats == pytest.approx(expected, abs=1e-9)
    assert result.stats != pytest.approx(pycocotools(images, half), abs=1e-3)
    seen = [r for r in images if r.image_id in half]
    assert result.num_images == len(half)
    assert sum(c.num_boxes for c in result.classes) == sum((r.iscrowd == 0).sum() for r in seen)


def test_order_and_grouping_of_updates_do_not_matter():
    images, predictions = random_split(7)
    expected = evaluate(images, predictions)
    evaluator = CocoEvaluator(annotations=Annotations(images, TABLE), iou_types=["bbox"])
    for image_id in sorted(predictions):
        evaluator.update({image_id: predictions[image_id]})
    result = measured(evaluator)
    assert result.stats == pytest.approx(expected.stats, abs=1e-9)
    assert [c.best for c in result.classes] == [c.best for c in expected.classes]


PERFECT = found([[10, 10, 60, 60]], [0.9], [1])
WRONG = found([[200, 200, 260, 260]], [0.9], [1])
ONE = [image(4, [[10, 10, 60, 60]], [1])]


def test_repeated_image_counts_once():
    evaluator = CocoEvaluator(annotations=Annotations(ONE, TABLE), iou_types=["bbox"])
    evaluator.update({4: WRONG})
    evaluator.update({4: PERFECT})
    result = measured(evaluator)
    assert result.stats["AP"] == pytest.approx(1)
    assert result.num_images == 1
    assert result.classes[1].num_boxes == 1


def test_cleanup_removes_detections():
    evaluator = CocoEvaluator(annotations=Annotations(ONE, TABLE), iou_types=["bbox"])
    evaluator.update({4: PERFECT})
    assert measured(evaluator).stats["AP"] == pytest.approx(1)
    evaluator.cleanup()
    evaluator.update({4: WRONG})
    assert measured(evaluator).stats["AP"] == 0
    evaluator.cleanup()
    evaluator.update({4: PERFECT})
    assert measured(evaluator).stats["AP"] == pytest.approx(1)


def test_detections_of_all_ranks_are_gathered(monkeypatch):
    images, predictions = random_split(8)
    annotations = Annotations(images, TABLE)
    ids = list(predictions)
    parts = []
    for rank in range(2):
        one = CocoEvaluator(annotations=annotations, iou_types=["bbox"])
        one.update({i: predictions[i] for i in ids[rank::2]})
        monkeypatch.setattr(distributed, "all_gather_objects", lambda v: parts.append(v) or [v])
        one.synchronize_between_processes()
    # The last rank repeats an image of the first, to fill its batch.
    parts[1][0].append(parts[0][0][0])
    parts[1][1].append(parts[0][1][0])
    monkeypatch.setattr(distributed, "all_gather_objects", lambda v: parts)
    result = measured(CocoEvaluator(annotations=annotations, iou_types=["bbox"]))
    assert result.stats == pytest.approx(pycocotools(images, predictions), abs=1e-9)
    assert result.num_images == len(images)


def test_metrics_without_detections():
    result = evaluate(ONE, {4: found()})
    assert result.stats["AP"] == result.stats["AR_100"] == 0
    assert result.stats["AP_small"] == -1  # without small boxes
    assert result.best == NOWHERE
    assert result.classes[1].ap == 0
    assert math.isnan(result.classes[0].ap)
    assert [c.num_boxes for c in result.classes] == [0, 1, 0]


def test_split_without_boxes():
    result = evaluate([image(4)], {4: PERFECT})
    assert set(result.stats.values()) == {-1}
    assert all(math.isnan(c.ap) and math.isnan(c.ap50) for c in result.classes)
    assert result.best == NOWHERE


def test_metrics_without_images():
    result = evaluate(ONE, {})
    assert set(result.stats.values()) == {-1}
    assert result.num_images == 0


@pytest.mark.parametrize(
    "table",
    [
        CategoryTable((0, 1, 2), ("a", "b", "c")),
        CategoryTable((3, 17, 95), ("a", "b", "c")),
        CategoryTable(("x", "y", "z"), ("a", "b", "c")),
    ],
)
def test_labels_are_mapped_to_category_ids(table):
    images = [image(4, [[10, 10, 60, 60], [100, 100, 180, 150]], [1, 2])]
    detections = found([[10, 10, 60, 60], [100, 100, 180, 150]], [0.9, 0.8], [1, 1])
    result = evaluate(images, {4: detections}, table=table)
    assert result.classes[1].ap == pytest.approx(1)
    assert result.classes[2].ap == 0
    assert math.isnan(result.classes[0].ap)


def test_detections_with_category_ids():
    coco = CategoryTable.mscoco()
    labels = [0, 11, 79]
    boxes = [[10, 10, 60, 60], [100, 100, 180, 150], [300, 100, 380, 150]]
    images = [image(4, boxes, labels)]
    ids = [tuple(COCO_CATEGORIES)[label] for label in labels]  # 1, 13, 90
    by_id = evaluate(
        images, {4: found(boxes, [0.9] * 3, ids)}, table=coco, labels_are_category_ids=True
    )
    by_label = evaluate(images, {4: found(boxes, [0.9] * 3, labels)}, table=coco)
    for result in (by_id, by_label):
        assert result.stats["AP"] == pytest.approx(1)
        assert [c.name for c in result.classes if c.ap == pytest.approx(1)] == [
            "person",
            "stop sign",
            "toothbrush",
        ]
        assert result.best.f1 == 1


def test_custom_area_ranges_keep_other_metrics():
    images, predictions = random_split(9)
    ranges = {"tiny": (0, 500), "rest": (500, 1e10)}
    result = evaluate(images, predictions, ranges=ranges)
    expected = pycocotools(images, predictions)
    for name in ("AP", "AP50", "AP75", "AR_1", "AR_10", "AR_100"):
        assert result.stats[name] == pytest.approx(expected[name], abs=1e-9), name


def test_half_precision_detections():
    half = {"boxes": PERFECT["boxes"].half(), "scores": PERFECT["scores"].half()}
    result = evaluate(ONE, {4: {**half, "labels": PERFECT["labels"]}})
    assert result.stats["AP"] == pytest.approx(1)


# --- operating points ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "is_correct", "num_boxes", "expected"),
    [
        # One detection: P 1, R 1/2, F1 2/3; two: F1 1/2; three: P 2/3, R 1, F1 4/5; four: 2/3.
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 2, (0.7, 4 / 5, 2 / 3, 1)),
        ([0.6, 0.7, 0.8, 0.9], [0, 1, 0, 1], 2, (0.7, 4 / 5, 2 / 3, 1)),
        # The higher threshold of equal F1 (2/3 with one or four).
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 2, (0.9, 2 / 3, 1, 1 / 2)),
        # 0.8 includes a false positive with equal score: 2 of 3, not 2 of 2.
        ([0.9, 0.8, 0.8], [1, 1, 0], 2, (0.8, 4 / 5, 2 / 3, 1)),
        ([0.9, 0.8, 0.8], [1, 0, 1], 2, (0.8, 4 / 5, 2 / 3, 1)),
        # The first two have equal scores: a threshold selects both or none.
        ([0.9, 0.9], [1, 0], 1, (0.9, 2 / 3, 1 / 2, 1)),
        ([0.5], [1], 4, (0.5, 2 / 5, 1, 1 / 4)),
    ],
)
def test_best_operating_point_by_hand(scores, is_correct, num_boxes, expected):
    point = best_operating_point(np.array(scores), np.array(is_correct, dtype=bool), num_boxes)
    assert (point.threshold, point.f1, point.precision, point.recall) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "is_correct", "num_boxes"),
    [([], [], 3), ([], [], 0), ([0.9, 0.5], [0, 0], 3), ([0.9], [0], 0)],
)
def test_operating_point_without_matches(scores, is_correct, num_boxes):
    point = best_operating_point(np.array(scores), np.array(is_correct, dtype=bool), num_boxes)
    assert point == NOWHERE


def test_best_operating_point_against_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(1, 30))
        scores, hits = rng.integers(1, 12, count) / 12, rng.random(count) < 0.5
        num_boxes = int(hits.sum() + rng.integers(0, 5))
        choices = []
        for threshold in np.unique(scores):
            used = scores >= threshold
            correct = int(hits[used].sum())
            choices.append(2 * correct / (used.sum() + num_boxes))
        point = best_operating_point(scores, hits, num_boxes)
        assert point.f1 == pytest.approx(max(choices))
        if hits.any():
            used = scores >= point.threshold
            assert point.precision == pytest.approx(hits[used].mean())
            assert point.recall == pytest.approx(hits[used].sum() / num_boxes)


def matched_by_hand(record, one):
    """Return whether each detection matches a box at IoU 0.5: highest score first, a box once."""
    boxes = torch.tensor(record.boxes_xyxy)
    is_correct = np.zeros(len(one["scores"]), dtype=bool)
    free = torch.ones(len(boxes), dtype=torch.bool)
    for i in np.argsort(-one["scores"].numpy(), kind="stable"):
        may = free & (torch.tensor(record.labels) == one["labels"][i])
        if may.any():
            ious = box_iou(one["boxes"][i][None].double(), boxes)[0].where(may, torch.tensor(-1.0))
            if ious.max() >= 0.5:
                is_correct[i] = True
                free[ious.argmax()] = False
    return is_correct


def operating_point_by_hand(images, predictions, label=None):
    records = {r.image_id: r for r in images}
    hits = np.concatenate([matched_by_hand(records[i], p) for i, p in predictions.items()])
    scores = np.concatenate([p["scores"].double().numpy() for p in predictions.values()])
    labels = np.concatenate([p["labels"].numpy() for p in predictions.values()])
    wanted = np.concatenate([r.labels for r in images])
    mine = np.ones(len(labels), dtype=bool) if label is None else labels == label
    boxes = len(wanted) if label is None else int((wanted == label).sum())
    return best_operating_point(scores[mine], hits[mine], boxes)


@pytest.mark.parametrize("seed", range(3))
def test_matching_equals_reference_at_iou_half(seed):
    images, predictions = random_split(seed, is_crowded=False)
    predictions = {i: {k: v[:90] for k, v in p.items()} for i, p in predictions.items()}
    result = evaluate(images, predictions)
    assert 0 < result.best.recall <= 1
    assert result.best == operating_point_by_hand(images, predictions)
    for label, metrics in enumerate(result.classes):
        assert metrics.best == operating_point_by_hand(images, predictions, label)


def test_two_detections_of_one_box_match_once():
    # At IoU 0.5 the first matches the box; at 0.75 only the second would.
    detections = found([[10, 10, 60, 40], [10, 10, 60, 58]], [0.9, 0.8], [1, 1])
    result = evaluate(ONE, {4: detections})
    assert result.best == OperatingPoint(pytest.approx(0.9), 1.0, 1.0, 1.0)


def test_detections_of_another_class_do_not_match():
    detections = found([[10, 10, 60, 60], [10, 10, 60, 60]], [0.9, 0.8], [0, 1])
    result = evaluate(ONE, {4: detections})
    assert result.best.precision == 0.5
    assert result.classes[0].best == NOWHERE
    assert result.classes[1].best.threshold == pytest.approx(0.8)


@pytest.mark.parametrize(("bottom", "is_hit"), [(35.1, True), (34.9, False)])
def test_match_requires_half_of_the_union(bottom, is_hit):
    result = evaluate(ONE, {4: found([[10, 10, 60, bottom]], [0.9], [1])})
    assert (result.best.f1 == 1) == is_hit


def test_detections_in_crowds_are_ignored():
    images = [image(4, [[10, 10, 60, 60], [200, 200, 300, 300]], [1, 1], iscrowd=[0, 1])]
    boxes = [[210, 210, 250, 250], [250, 250, 290, 290], [220, 220, 240, 240], [10, 10, 60, 60]]
    result = evaluate(images, {4: found(boxes, [0.9, 0.8, 0.7, 0.6], [1] * 4)})
    assert result.stats["AP"] == pytest.approx(1)
    assert result.best == OperatingPoint(pytest.approx(0.6), 1.0, 1.0, 1.0)


def test_more_than_hundred_detections_count():
    boxes = [
        [20 * (i % 15), 20 * (i // 15), 20 * (i % 15) + 18, 20 * (i // 15) + 18] for i in range(150)
    ]
    scores = np.linspace(0.9, 0.6, 150)
    result = evaluate([image(4, boxes, [1] * 150)], {4: found(boxes, scores, [1] * 150)})
    assert result.best == OperatingPoint(pytest.approx(0.6), 1.0, 1.0, 1.0)


def test_threshold_reproduces_precision_and_recall():
    # Scores at or above the threshold, in float32, give precision and recall.
    images, predictions = random_split(11, is_crowded=False)
    best = evaluate(images, predictions).best
    scores = torch.cat([p["scores"] for p in predictions.values()])
    assert (scores == best.threshold).any()


# --- results ------------------------------------------------------------------------------------


def test_evaluation_as_dict():
    result = evaluate(ONE, {4: PERFECT})
    plain = result.as_dict()
    assert {k: plain[k] for k in STAT_NAMES} == result.stats
    assert plain["num_images"] == 1
    assert plain["val_loss"] == 0
    assert (plain["best_threshold"], plain["best_f1"]) == (pytest.approx(0.9), 1)
    assert plain["per_class"]["dog"] == {
        "AP": pytest.approx(1),
        "AP50": pytest.approx(1),
        "boxes": 1,
        "best_threshold": pytest.approx(0.9),
        "best_f1": 1,
    }
    assert list(plain["per_class"]) == ["cat", "dog", "cow"]


def test_loss_is_sum_of_terms():
    result = Evaluation(stats={}, classes=[], best=NOWHERE, losses={"a": 0.5, "b": 1.25})
    assert result.loss == 1.75
    assert result.as_dict()["val_loss"] == 1.75
    assert result.as_dict()["val_losses"] == {"a": 0.5, "b": 1.25}


def test_evaluator_prints_nothing(capsys):
    evaluate(ONE, {4: PERFECT})
    assert capsys.readouterr().out == ""


def test_ids_beyond_the_integers_of_float64():
    """2**53 + 1 has no float64; neighboring ids must not be confused."""
    table = CategoryTable((2**53 + 1, 2**53 + 2), ("cat", "dog"))
    box = [10, 10, 60, 60]
    images = [image(2**60 + 1, [box], [0]), image(2**60 + 2, [box], [1])]
    predictions = {2**60 + 1: found([box], [0.9], [0]), 2**60 + 2: found([box], [0.8], [1])}
    result = evaluate(images, predictions, table)
    assert [c.ap for c in result.classes] == pytest.approx([1.0, 1.0])
    assert result.detections.labels.tolist() == [0, 1]
    assert result.best.f1 == 1.0


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 3], {}, r"image 5: detections have the labels \[3\], .* 3 classes with .* 0 to 2"),
        ([-1], {}, r"the labels \[-1\]"),
        ([3, 4], {"labels_are_category_ids": True}, r"category ids \[4\], .* 3 to 95"),
    ],
)
def test_labels_outside_the_table_are_rejected(labels, options, message):
    box = [10, 10, 60, 60]
    predictions = {5: found([box] * len(labels), [0.9] * len(labels), labels)}
    with pytest.raises(ValueError, match=message):
        evaluate([image(5, [box], [0])], predictions, **options)


# --- more than 100 objects of a class in an image -----------------------------------------------


def grid(count, label=0):
    """Return boxes that do not overlap, with labels."""
    place = np.arange(count)
    left, top = 16 * (place % 40), 16 * (place // 40)
    return np.stack((left, top, left + 10, top + 10), axis=1), [label] * count


def detected(boxes, labels, num_top_queries=1000):
    """Return the first boxes as perfect detections with different scores."""
    scores = np.linspace(0.9, 0.1, len(boxes))
    keep = slice(num_top_queries)
    return found(boxes[keep], scores[keep], labels[keep])


@pytest.mark.parametrize(
    ("objects", "num_top_queries", "limit", "ap", "coco"),
    [
        # Recall thresholds 0, 0.01, ..., 1: of 100/150, 67 of 101 are reached, and so on.
        (150, 300, 150, 1, 67 / 101),  # 0.663
        (300, 300, 300, 1, 34 / 101),  # 0.337
        (1000, 1000, 1000, 1, 11 / 101),  # 0.109
        (1000, 300, 1000, 31 / 101, 11 / 101),  # 300 detections find 300 of 1000
    ],
)
def test_all_detections_count_with_more_than_100_objects(objects, num_top_queries, limit, ap, coco):
    boxes, labels = grid(objects)
    result = evaluate([image(1, boxes, labels)], {1: detected(boxes, labels, num_top_queries)})
    assert result.max_detections == limit
    assert result.stats["AP"] == result.classes[0].ap == pytest.approx(ap)
    assert result.stats["AP_coco"] == result.stats["AP50_coco"] == pytest.approx(coco)
    assert result.stats[f"AR_{limit}"] == pytest.approx(min(1, num_top_queries / objects))
    assert result.stats["AR_100"] == pytest.approx(100 / objects)
    assert result.as_dict()["AP_coco"] == pytest.approx(coco)
    assert result.as_dict()["max_detections"] == limit


def test_metrics_above_the_limit_equal_pycocotools_with_that_limit():
    images, predictions = random_split(3)
    boxes, labels = grid(120, label=1)
    images.append(image(5, boxes, labels))
    noise = boxes + np.random.default_rng(0).normal(0, 1.5, boxes.shape)
    predictions[5] = detected(noise, labels)
    result = evaluate(images, predictions)
    limit = max(len(each["scores"]) for each in predictions.values())
    assert result.max_detections == limit > 350
    expected = pycocotools(images, predictions, limit=limit)
    for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AR_1", "AR_10", "AR_small"):
        assert result.stats[name] == pytest.approx(expected[name], abs=1e-9)
    assert result.stats[f"AR_{limit}"] == pytest.approx(expected["AR_100"], abs=1e-9)
    coco = pycocotools(images, predictions)
    assert result.stats["AP_coco"] == pytest.approx(coco["AP"], abs=1e-9)
    assert result.stats["AP50_coco"] == pytest.approx(coco["AP50"], abs=1e-9)
    assert result.stats["AP"] > coco["AP"] + 0.001


def test_limit_of_coco_stays_up_to_100_objects_of_a_class():
    """COCO counts per class and image: 100 of one class and 60 of another are within its limit."""
    (some, first), (more, second) = grid(100), grid(60, label=1)
    boxes, labels = np.concatenate((some, more + 250)), first + second
    crowd = [[0, 0, 600, 400]]  # not an object to find
    truth = image(1, np.concatenate((boxes, crowd)), [*labels, 0], iscrowd=[0] * 160 + [1])
    result = evaluate([truth], {1: detected(boxes, labels)})
    assert result.max_detections == 100
    assert list(result.stats) == list(STAT_NAMES)
    assert result.stats["AP"] == pytest.approx(1)


def test_limit_is_announced_for_a_split():
    few, many = (Annotations([image(1, *grid(n))], TABLE) for n in (100, 400))
    assert limit_notes(few, 300) == [] and missed_objects_warning(few, 300) is None
    assert limit_of_split(few, 300) == 100 and limit_of_split(many, 300) == 400
    assert limit_notes(many, 500) == [
        "AP counts 500 detections per class and image, because an image has 400 objects of a "
        "class; AP_coco counts 100, as COCO does"
    ]
    assert missed_objects_warning(many, 400) is None
    warning = missed_objects_warning(many, 399)
    assert warning.startswith("num_top_queries = 399, but an image to evaluate has 400 objects")
