"""The evaluation report of a training: its numbers, its files, and what happens without it."""

import io
import json
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, load_strict, model_state
from tests.app.running import (
    CLASSES,
    add_image,
    digits_meta,
    files_below,
    read_json,
    state_of,
    train_to_end,
)
from tests.tiny import SMALL_HEAD

pytestmark = pytest.mark.slow

SIZE = [96, 96]
METRICS = {
    *("mAP", "AP50", "AP75", "f1", "precision", "recall", "iou", "classification_accuracy"),
    *("calibration_score", "f1_optimal_conf"),
    *("expected_calibration_error", "maximum_calibration_error"),
}
# Seen again and again without augmentation, four images are found within 75 steps.
QUICK = {
    **SMALL_HEAD,
    "epoches": 3,
    "batch_size": 4,
    "eval_spatial_size": SIZE,
    "use_ema": False,
    "optimizer": {"type": "AdamW", "lr": 0.003, "params": []},
    "lr_scheduler": {"type": "MultiStepLR", "milestones": [2]},
    "lr_warmup_scheduler": {"type": "LinearWarmup", "warmup_duration": 5},
    "train_dataloader": {
        "collate_fn": {"scales": None},
        "dataset": {
            "transforms": {
                "ops": [
                    {"type": "Resize", "size": SIZE},
                    {"type": "SanitizeBoundingBoxes"},
                    {"type": "ConvertPILImage"},
                    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
                ],
                "policy": {"name": "default", "ops": []},
            }
        },
    },
}


def make_project(store, folder, *, name, polygons=()):
    """Four images of digits, once to validate on and 25 times to train on; returns ids."""
    data = make_digits_dataset(folder, num_train=4, num_val=1)
    content = json.loads((data / "annotations" / "instances_train.json").read_text())
    project_id = store.projects.create(name, digits_meta(polygons))
    parent = store.datasets.create(project_id, "all")
    datasets = {
        split: store.datasets.create(project_id, split, parent_id=parent)
        for split in ("train", "val")
    }
    for split, copies in (("train", 25), ("val", 1)):
        for image in content["images"]:
            path = data / "train" / image["file_name"]
            for number in range(copies):
                own = f"{split}_{number}_{path.name}"
                add_image(store, datasets[split], content, image, path, own, split, polygons)
    return project_id, datasets


@pytest.fixture(scope="module")
def train(instance, tmp_path_factory):
    """Trains with a report; returns what there is to look at afterwards."""

    def run(name, *, polygons=(), speed_test=False, split=None, convert=True, **hyperparameters):
        folder = tmp_path_factory.mktemp("benchmark")
        project_id, ids = make_project(
            instance.store, folder / "digits", name=name, polygons=polygons
        )
        split = split or {
            "method": "datasets",
            "train_datasets": [ids["train"]],
            "val_datasets": [ids["val"]],
        }
        state = state_of(split, hyperparameters={**QUICK, **hyperparameters})
        state["options"]["model_benchmark"] = {"enable": True, "speed_test": speed_test}
        state["options"]["convert_class_shapes"] = convert
        task_id, log = train_to_end(instance, folder / "task", project_id, state)
        experiment = files_below(
            instance.store, f"/experiments/{project_id}_{name}/{task_id}_RT-DETRv2"
        )
        assert "experiment_info.json" in experiment, log[-4000:]
        return SimpleNamespace(
            store=instance.store,
            task_id=task_id,
            folder=folder / "task" / "work_dir",
            log=log,
            experiment=experiment,
            info=read_json(instance.store, experiment["experiment_info.json"]),
            report=files_below(
                instance.store, f"/model-benchmark/{project_id}_{name}/{task_id}_Train RT-DETRv2"
            ),
        )

    return run


@pytest.fixture(scope="module")
def finished(train):
    """A training that ended with a report, speed included."""
    return train("four digits [v1] é", speed_test=True)


def detections(run):
    """What the best checkpoint finds on the validation split, computed without the app."""
    checkpoint, config = (
        run.store.files.contents(run.experiment[name])
        for name in ("checkpoints/best.pth", "model_config.yml")
    )
    copy = run.folder / "served.yml"
    copy.write_text(config.read_text())
    cfg = YAMLConfig(copy)
    load_strict(cfg.model, model_state(load_checkpoint(checkpoint)), source="best.pth")
    model, postprocessor = cfg.model.deploy(), cfg.postprocessor.deploy()
    truth = json.loads((run.folder / "coco" / "instances_val.json").read_text())
    found = []
    for image in truth["images"]:
        pixels = np.array(Image.open(run.folder / "sly_project" / "val" / image["file_name"]))
        with torch.no_grad():
            batch = preprocess(pixels, tuple(SIZE))[None] / 255
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
    """AP, AP50 and AP75 as pycocotools has them."""
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("mAP", "AP50", "AP75"), evaluation.stats[:3].tolist(), strict=True))


def assert_metrics_are_true(run):
    metrics = run.info["evaluation_metrics"]
    assert set(metrics) == METRICS
    ours = load_checkpoint(run.store.files.contents(run.experiment["checkpoints/best.pth"]))
    for name, value in average_precision(*detections(run)).items():
        assert metrics[name] == pytest.approx(value, abs=0.002)
        saved = ours["metrics"][name.replace("mAP", "AP")]
        assert metrics[name] == pytest.approx(saved, abs=0.01)
    assert metrics["mAP"] > 0.05  # something was learned, or nothing would be compared
    assert metrics["expected_calibration_error"] == pytest.approx(1 - metrics["calibration_score"])
    assert 0.5 <= metrics["iou"] <= 1
    assert 0.02 <= metrics["f1_optimal_conf"] <= 1


def test_the_metrics_are_those_of_the_checkpoint(finished):
    assert_metrics_are_true(finished)
    assert finished.info["primary_metric"] == "mAP"


def test_the_report_is_in_team_files_and_the_link_leads_to_it(finished):
    names = set(finished.report)
    assert {f"evaluation/coco{kind}.json" for kind in ("Gt", "Dt")} <= names
    assert {"visualizations/template.vue", "visualizations/state.json"} <= names
    truth = read_json(finished.store, finished.report["evaluation/cocoGt.json"])
    assert [c["name"] for c in truth["categories"]] == CLASSES
    assert len(truth["images"]) == 4
    inference = read_json(finished.store, finished.report["evaluation/inference_info.json"])
    assert inference["inference_settings"]["confidence_threshold"] == 0.02
    template = finished.report["visualizations/template.vue"]
    link = finished.experiment["Model Evaluation Report.lnk"]
    target = finished.store.files.contents(link).read_text()
    assert target == f"/model-benchmark?id={template['id']}"
    assert finished.info["evaluation_report_id"] == template["id"]
    assert finished.info["evaluation_report_link"].endswith(target)


def test_what_the_report_shows_is_what_was_measured(finished):
    def shown(part):
        names = [n for n in finished.report if part in n and "click_data" not in n]
        return finished.store.files.contents(finished.report[names[0]]).read_text()

    metrics = finished.info["evaluation_metrics"]
    overall = json.loads(shown("key_metrics_chart"))["chartContent"]["data"][0]
    values = dict(zip(overall["theta"], overall["r"], strict=True))
    for title, name in (("mAP", "mAP"), ("F1-score", "f1"), ("Avg. IoU", "iou")):
        assert values[title] == pytest.approx(metrics[name])
    chart = json.loads(shown("confusion_matrix_chart"))["chartContent"]["data"][0]
    assert chart["x"] == [*CLASSES, "(None)"]
    assert "RT-DETRv2-S" in shown("markdown_overview")


def test_the_speed_test_has_numbers(finished):
    content = read_json(finished.store, finished.report["speedtest/speedtest.json"])
    rows = content["speedtest"]
    assert [row["batch_size"] for row in rows] == [1, 8, 16]
    for row in rows:
        assert row["num_iterations"] == 20
        assert (row["device"], row["runtime"]) == ("cpu", "PyTorch")
        times = row["benchmark"]
        parts = [times[name] for name in ("preprocess", "inference", "postprocess")]
        assert all(part > 0 for part in parts)
        assert sum(parts) <= times["total"]


def test_objects_of_other_shapes_are_compared_as_the_boxes_they_were_trained_as(train):
    tags = {"method": "tags", "train_tag": "train", "val_tag": "val", "untagged_action": "ignore"}
    run = train("polygons", polygons=CLASSES[:5], split=tags)
    truth = read_json(run.store, run.report["evaluation/cocoGt.json"])
    trained, _ = detections(run)
    boxes = [sorted(a["bbox"] for a in content["annotations"]) for content in (truth, trained)]
    assert boxes[0] == boxes[1]
    assert_metrics_are_true(run)


def test_a_report_that_fails_costs_nothing_but_itself_and_is_no_secret(train):
    run = train("nothing learned", epoches=1, lr_warmup_scheduler=None, optimizer={"lr": 1e-9})
    assert {"checkpoints/best.pth", "checkpoints/last.pth", "app_state.json"} <= set(run.experiment)
    assert "Model Evaluation Report.lnk" not in run.experiment
    assert run.info["evaluation_metrics"] == {}
    assert run.info["evaluation_report_id"] is None
    said = [json.loads(line) for line in run.log.splitlines() if line.startswith("{")]
    last = [line for line in said if line["level"] == "error"][-1]
    assert last["message"].startswith(
        "The experiment is complete, but it has no evaluation report: "
    )
    assert "predict" in last["message"]
