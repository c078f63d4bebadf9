"""`rtdetrv2 val`: the metrics of training, in all runtimes, on data in all formats."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2.analysis.evaluation import evaluate
from rtdetrv2.commands import val
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, DatasetError
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.integration.overfitted_checkpoint import overfitted_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector that is overfitted to four images: as a checkpoint and as an ONNX file."""
    checkpoint, data = overfitted_checkpoint(tmp_path_factory)
    folder = tmp_path_factory.mktemp("val")
    write_onnx(*load_detector(checkpoint), folder / "best.onnx")
    shutil.copy(checkpoint, folder / "best.pth")
    ann_file = data / "annotations" / "instances_val.json"
    return SimpleNamespace(folder=folder, checkpoint=checkpoint, data=data, ann_file=ann_file)


@pytest.fixture(scope="module")
def solved(trained):
    """The evaluation of the same checkpoint by the solver."""
    config = trained.checkpoint.with_name("model_config.yml")
    return DetSolver(YAMLConfig(config, resume=str(trained.checkpoint))).val()


def facts(evaluation):
    return [(c.name, c.ap, c.ap50, c.num_boxes) for c in evaluation.classes]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_checkpoint_has_exactly_the_metrics_of_the_solver(trained, solved, batch_size):
    measured = evaluate(trained.folder, data=trained.data, batch_size=batch_size)
    assert solved.stats["AP"] > 0.3
    assert measured.evaluation.stats == solved.stats
    # A class without boxes has AP NaN.
    assert str(facts(measured.evaluation)) == str(facts(solved))
    assert measured.evaluation.best.threshold == pytest.approx(solved.best.threshold, abs=1e-5)
    assert measured.evaluation.num_images == 4
    assert measured.as_dict()["runtime"] == "pytorch"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exports_have_the_metrics_of_the_checkpoint(trained, solved, runtime):
    measured = evaluate(trained.folder / "best.onnx", data=trained.data, runtime=runtime)
    assert measured.runtime == runtime
    assert measured.evaluation.stats["AP"] == pytest.approx(solved.stats["AP"], abs=1e-3)
    for ours, theirs in zip(measured.evaluation.classes, solved.classes, strict=True):
        assert ours.ap == pytest.approx(theirs.ap, abs=5e-3, nan_ok=True)


def test_other_formats_have_the_same_metrics(trained, solved, tmp_path):
    """The four images as a YOLO folder without named splits; the file names its classes."""
    content = json.loads(trained.ann_file.read_text())
    images = {entry["id"]: entry for entry in content["images"]}
    for kind in ("images", "labels"):
        (tmp_path / kind / "test").mkdir(parents=True)
    for entry in images.values():
        shutil.copy(trained.data / "train" / entry["file_name"], tmp_path / "images" / "test")
        lines = []
        for a in content["annotations"]:
            if a["image_id"] == entry["id"]:
                x, y, w, h = a["bbox"]
                wide, high = entry["width"], entry["height"]
                box = ((x + w / 2) / wide, (y + h / 2) / high, w / wide, h / high)
                label = [c["id"] for c in content["categories"]].index(a["category_id"])
                lines.append(" ".join(map(repr, (label, *box))))
        name = entry["file_name"].rpartition(".")[0]
        (tmp_path / "labels" / "test" / f"{name}.txt").write_text("\n".join(lines))
    names = "".join(f"  {i}: '{c['name']}'\n" for i, c in enumerate(content["categories"]))
    (tmp_path / "data.yaml").write_text(f"test: images/test\nnames:\n{names}")
    measured = evaluate(trained.folder / "best.pth", data=tmp_path, split="test")
    assert measured.evaluation.stats["AP"] == pytest.approx(solved.stats["AP"], abs=1e-6)
    with pytest.raises(DatasetError, match="no val split .* found .*choose another with --split"):
        evaluate(trained.folder / "best.pth", data=tmp_path, split="val")


def test_classes_are_matched_by_name(trained, solved, tmp_path):
    """Reversed ids and an unknown class change nothing for the shared classes."""
    content = json.loads(trained.ann_file.read_text())
    renamed = content["categories"][0]["name"]
    for each in content["categories"]:
        each["id"] = 100 - each["id"]
    for each in content["annotations"]:
        each["category_id"] = 100 - each["category_id"]
    content["categories"][0]["name"] = "unicorn"
    shutil.copytree(trained.data / "train", tmp_path / "val")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    measured = evaluate(trained.folder / "best.pth", data=tmp_path)
    assert measured.split.unknown_classes == ["unicorn"]
    found = {name: rest for name, *rest in facts(measured.evaluation)}
    expected = {name: rest for name, *rest in facts(solved)}
    del expected[renamed]
    assert str(sorted(found.items())) == str(sorted(expected.items()))

    for each in content["categories"]:
        each["name"] = f"not a {each['name']}"
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="none of its classes .* is a class of the model"):
        evaluate(trained.folder / "best.pth", data=tmp_path)


def test_command_writes_metrics_results_and_report(trained, solved, tmp_path, capsys):
    arguments = [str(trained.folder), "--data", str(trained.data), "-o", str(tmp_path)]
    assert val.main([*arguments, "--save-json", "--plots"]) == 0
    out = capsys.readouterr().out
    assert f"{solved.stats['AP']:.3f}" in out
    assert str(tmp_path / "report.html") in out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["AP"] == solved.stats["AP"]
    assert metrics["per_class"].keys() == {c.name for c in solved.classes}
    report = (tmp_path / "report.html").read_text()
    assert "best.pth: Split val" in report

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(trained.ann_file))
        other = COCOeval(truth, truth.loadRes(str(tmp_path / "predictions.json")), "bbox")
        other.evaluate()
        other.accumulate()
        other.summarize()
    assert other.stats[0] == pytest.approx(solved.stats["AP"], abs=2e-3)  # rounded boxes


def test_minimum_score_removes_detections(trained):
    everything = evaluate(trained.folder, data=trained.data)
    few = evaluate(trained.folder, data=trained.data, score=0.5)
    scores = [each["score"] for each in everything.coco_results()]
    assert len(few.coco_results()) == sum(score >= 0.5 for score in scores) > 0
    assert few.evaluation.stats["AP"] <= everything.evaluation.stats["AP"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": "missing.onnx"}, CheckpointError, "missing.onnx: no such file; give a checkp"),
        ({"runtime": "openvino"}, ConfigError, "best.pth: openvino needs a .onnx file"),
        ({"data": "nowhere"}, ConfigError, "nowhere: no such folder; give the folder of a dataset"),
        ({"split": "test"}, DatasetError, "no test split .coco format, found .*--split"),
        ({"data": None}, ConfigError, "no data: give a dataset folder"),
        ({"batch_size": 0}, ConfigError, "batch_size = 0: must be 1 or higher"),
    ],
)
def test_errors_name_value_and_remedy(trained, arguments, kind, message):
    values = {"model": trained.folder / "best.pth", "data": trained.data, **arguments}
    if isinstance(values["data"], str):
        values["data"] = Path(values["data"])
    with pytest.raises(kind, match=message):
        evaluate(**values)


def test_data_of_a_configuration_and_missing_section(trained, solved):
    config = trained.checkpoint.with_name("model_config.yml")
    measured = evaluate(trained.folder, config=config)
    assert measured.evaluation.stats == solved.stats
    with pytest.raises(ConfigError, match="test_dataloader.dataset has no ann_file; choose"):
        evaluate(trained.folder, config=config, split="test")
