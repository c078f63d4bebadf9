"""The evaluation report of a training: its numbers, its files, and its failure."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, load_strict, model_state
from tests.app.experiment import SIZE, train_experiment
from tests.app.real_app import CLASSES, TAGS, read_json

pytestmark = pytest.mark.slow

METRICS = {
    *("mAP", "AP50", "AP75", "f1", "precision", "recall", "iou", "classification_accuracy"),
    *("calibration_score", "f1_optimal_conf"),
    *("expected_calibration_error", "maximum_calibration_error"),
}


def detections(run, folder):
    """Run the best checkpoint on the validation split without the app."""
    checkpoint, config = (
        run.store.files.contents(run.files[name])
        for name in ("checkpoints/best.pth", "model_config.yml")
    )
    copy = folder / "served.yml"
    copy.write_text(config.read_text())
    cfg = YAMLConfig(copy)
    load_strict(cfg.model, model_state(load_checkpoint(checkpoint)), source="best.pth")
    model, postprocessor = cfg.model.deploy(), cfg.postprocessor.deploy()
    work_dir = run.folder / "work_dir"
    truth = json.loads((work_dir / "coco" / "instances_val.json").read_text())
    found = []
    for image in truth["images"]:
        pixels = np.array(Image.open(work_dir / "sly_project" / "val" / image["file_name"]))
        with torch.no_grad():
            batch = preprocess([pixels], tuple(SIZE), torch.device("cpu")) / 255
            sizes_wh = torch.tensor([[image["width"], image["height"]]])
            results = postprocessor(model(batch), sizes_wh)
        for label, box, score in zip(*(r[0].tolist() for r in results), strict=True):
            left, top, right, bottom = box
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": score,
                }
            )
    return truth, found


def average_precision(truth, found):
    """Compute AP, AP50 and AP75 with pycocotools."""
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("mAP", "AP50", "AP75"), evaluation.stats[:3].tolist(), strict=True))


def assert_metrics_match_pycocotools(run, folder):
    metrics = run.info["evaluation_metrics"]
    assert set(metrics) == METRICS
    ours = load_checkpoint(run.store.files.contents(run.files["checkpoints/best.pth"]))
    for name, value in average_precision(*detections(run, folder)).items():
        assert metrics[name] == pytest.approx(value, abs=0.002)
        saved = ours["metrics"][name.replace("mAP", "AP")]
        assert metrics[name] == pytest.approx(saved, abs=0.01)
    assert metrics["mAP"] > 0.05  # the network learned something to compare
    assert metrics["expected_calibration_error"] == pytest.approx(1 - metrics["calibration_score"])
    assert 0.5 <= metrics["iou"] <= 1
    assert 0.02 <= metrics["f1_optimal_conf"] <= 1


def test_metrics_match_pycocotools(experiment, tmp_path):
    assert_metrics_match_pycocotools(experiment, tmp_path)
    assert experiment.info["primary_metric"] == "mAP"


def test_report_is_linked_from_the_experiment(experiment):
    names = set(experiment.report)
    assert {f"evaluation/coco{kind}.json" for kind in ("Gt", "Dt")} <= names
    assert {"visualizations/template.vue", "visualizations/state.json"} <= names
    truth = read_json(experiment.store, experiment.report["evaluation/cocoGt.json"])
    assert [c["name"] for c in truth["categories"]] == CLASSES
    assert len(truth["images"]) == 4
    inference = read_json(experiment.store, experiment.report["evaluation/inference_info.json"])
    assert inference["inference_settings"]["confidence_threshold"] == 0.02
    template = experiment.report["visualizations/template.vue"]
    link = experiment.files["Model Evaluation Report.lnk"]
    target = experiment.store.files.contents(link).read_text()
    assert target == f"/model-benchmark?id={template['id']}"
    assert experiment.info["evaluation_report_id"] == template["id"]
    assert experiment.info["evaluation_report_link"].endswith(target)


def test_report_shows_the_metrics(experiment):
    def shown(part):
        names = [n for n in experiment.report if part in n and "click_data" not in n]
        return experiment.store.files.contents(experiment.report[names[0]]).read_text()

    metrics = experiment.info["evaluation_metrics"]
    overall = json.loads(shown("key_metrics_chart"))["chartContent"]["data"][0]
    values = dict(zip(overall["theta"], overall["r"], strict=True))
    for title, name in (("mAP", "mAP"), ("F1-score", "f1"), ("Avg. IoU", "iou")):
        assert values[title] == pytest.approx(metrics[name])
    chart = json.loads(shown("confusion_matrix_chart"))["chartContent"]["data"][0]
    assert chart["x"] == [*CLASSES, "(None)"]
    assert "RT-DETRv2-S" in shown("markdown_overview")


def test_speed_test_measures_three_batch_sizes(experiment):
    content = read_json(experiment.store, experiment.report["speedtest/speedtest.json"])
    rows = content["speedtest"]
    assert [row["batch_size"] for row in rows] == [1, 8, 16]
    for row in rows:
        assert row["num_iterations"] == 20
        assert (row["device"], row["runtime"]) == ("cpu", "PyTorch")
        times = row["benchmark"]
        parts = [times[name] for name in ("preprocess", "inference", "postprocess")]
        assert all(part > 0 for part in parts)
        assert sum(parts) <= times["total"]


def test_polygons_are_evaluated_as_the_boxes_of_the_training(instance, tmp_path):
    run = train_experiment(instance, tmp_path, name="polygons", polygons=CLASSES, split=TAGS)
    assert {c["shape"] for c in run.json("model_meta.json")["classes"]} == {"rectangle"}
    truth = read_json(run.store, run.report["evaluation/cocoGt.json"])
    trained, _ = detections(run, tmp_path)
    boxes = [sorted(a["bbox"] for a in content["annotations"]) for content in (truth, trained)]
    assert boxes[0] == boxes[1]
    assert_metrics_match_pycocotools(run, tmp_path)
