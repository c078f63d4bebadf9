"""Advice of the report: each rule with numbers that trigger it, and with other numbers."""

import numpy as np
import pytest

from rtdetrv2_pytorch.src.data.metrics.evaluator import ClassMetrics, Evaluation
from rtdetrv2_pytorch.src.data.metrics.operating_point import OperatingPoint
from rtdetrv2_pytorch.src.report.advice import Facts, advice, confusions
from rtdetrv2_pytorch.src.report.run_log import RunLog

POINT = OperatingPoint(0.4, 0.5, 0.6, 0.43)


def log(aps, losses=None, **last):
    losses = losses or [1.0] * len(aps)
    epochs = [
        {"epoch": i, "AP": ap, "val_loss": loss}
        for i, (ap, loss) in enumerate(zip(aps, losses, strict=True))
    ]
    if epochs:
        epochs[-1].update(last)
    return RunLog(plan={}, epochs=epochs)


def evaluation(**aps):
    classes = [ClassMetrics(name, ap, ap, 50, POINT) for name, ap in aps.items()]
    return Evaluation({"AP_small": 0.3, "AP_large": 0.4}, classes, POINT)


STEADY = log([0.1, 0.3, 0.5, 0.5, 0.49])


def test_no_advice_for_a_good_run():
    assert advice(Facts(log=STEADY, evaluation=evaluation(a=0.5, b=0.4), num_images=99)) == []
    assert advice(Facts(log=RunLog())) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"most_objects": 400, "most_detections": 300},
            "An image has 400 objects, but the model returns 300 detections",
        ),
        ({"log": log([0.1, 0.2, 0.3, 0.4])}, "AP was still rising: 0.400 in the last epoch, 0.300"),
        (
            {"log": log([0.1, 0.5, 0.4, 0.3, 0.3, 0.3], [3, 2, 2.2, 2.4, 2.6, 3])},
            "lowest in epoch 2 (2.00) and ended at 3.00; AP was best in epoch 2",
        ),
        (
            {"evaluation": evaluation(a=0.5, b=0.6, c=0.1), "train_boxes": [500, 500, 20]},
            "Classes with few training boxes have low AP: c: AP 0.100, 20 boxes. Label",
        ),
        (
            {
                "evaluation": evaluation(cat=0.5, dog=0.5),
                "matrix": np.array([[40, 6, 4], [1, 9, 0], [0, 0, 0]]),
            },
            "cat is confused with dog in 6 of 50 boxes",
        ),
        (
            {"evaluation": Evaluation({"AP_small": 0.1, "AP_large": 0.4}, [], POINT)},
            "Small objects (below 32x32 pixels) have low AP: 0.100, large objects 0.400",
        ),
        (
            {"num_background": 10, "num_background_wrong": 2},
            "2 of 10 images without objects",
        ),
        ({"log": log([0.5], verdict="input bound: 2 more workers")}, "input bound: 2 more workers"),
        ({"calibration_error": 0.2}, "The expected calibration error is 0.20"),
        ({"num_images": 12}, "With only 12 validation images"),
    ],
)
def test_advice_contains_its_numbers(facts, expected):
    (line,) = advice(Facts(**{"log": STEADY, **facts}))
    assert expected in line


def test_compute_bound_without_remedy_gives_no_advice():
    verdict = "compute bound: the input keeps up"
    assert advice(Facts(log=log([0.5], verdict=verdict))) == []
    verdict = "compute bound: use_amp: true would compute in bfloat16"
    assert advice(Facts(log=log([0.5], verdict=verdict))) == [f"Training speed is {verdict}."]


def test_sizes_without_objects_give_no_advice():
    nothing = Evaluation({"AP_small": -1.0, "AP_large": 0.4}, [], POINT)
    assert advice(Facts(log=STEADY, evaluation=nothing)) == []


def test_confusions_are_sorted_by_boxes():
    matrix = np.array([[5, 2, 0, 1], [7, 1, 0, 0], [0, 3, 4, 0], [9, 9, 9, 0]])
    assert confusions(matrix) == [(1, 0, 7, 8), (2, 1, 3, 7), (0, 1, 2, 8)]
