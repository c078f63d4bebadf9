"""The command `predict`."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rtdetrv2.commands.predict import main
from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)

SCORE = "0.05"


@pytest.fixture
def predict(checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command in a folder; returns (exit status, lines of stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, model=checkpoint):
        capsys.readouterr()
        status = main([str(model), *map(str, words), "--score", SCORE, "--device", "cpu"])
        printed, errors = capsys.readouterr()
        return status, printed.splitlines(), errors

    return run


def test_image_gets_a_table_a_drawing_and_a_file(predict, model, image, pixels, tmp_path):
    status, lines, errors = predict(image)
    expected = model.predict(image, score=float(SCORE))
    assert (status, errors) == (0, "")
    count = len(expected)
    assert lines[0] == f"image.png: {count} object{'s' if count > 1 else ''}"
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    first = expected[0]
    assert lines[2].split() == [first.name, f"{first.score:.2f}", *(f"{e:.0f}" for e in first.box)]
    assert lines[-2:] == ["predictions/image.png", "predictions/predictions.json"]
    (content,) = json.loads((tmp_path / lines[-1]).read_text())
    assert (content["image"], content["width"], content["height"]) == ("image.png", 80, 60)
    assert [one["name"] for one in content["objects"]] == expected.names
    boxes = [one["box"] for one in content["objects"]]
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.01)
    with Image.open(tmp_path / lines[-2]) as drawing:
        assert drawing.size == (80, 60)
        assert (np.asarray(drawing) != pixels).any()


def test_several_sources_as_coco(predict, model, image, tmp_path):
    folder = tmp_path / "more" / "sub"
    folder.mkdir(parents=True)
    Image.open(image).save(folder / "image.png")
    (folder / "torn.jpg").write_bytes(b"torn")
    (tmp_path / "torn.png").write_bytes(b"torn")
    sources = [image, folder, tmp_path / "more", tmp_path / "torn.png"]
    status, lines, errors = predict(*sources, "--format", "coco", "--no-draw", "-o", "out")
    assert (status, errors) == (1, "")
    assert [line.split(":")[0] for line in lines[:3]] == [
        str(folder / "torn.jpg"),
        str(folder / "torn.jpg"),
        str(tmp_path / "torn.png"),
    ]
    assert lines[-1] == "out/predictions.json"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
    content = json.loads((tmp_path / lines[-1]).read_text())
    names = [each["file_name"] for each in content["images"]]
    assert names == ["image.png", "image-2.png", "sub/image.png"]
    assert content["categories"][1] == {"id": 2, "name": "dog"}
    found = model.predict(image, score=float(SCORE))
    rows = [row for row in content["annotations"] if row["image_id"] == 1]
    assert [row["score"] for row in rows] == [round(one.score, 5) for one in found]
    assert [row["id"] for row in content["annotations"]] == [*range(1, 3 * len(found) + 1)]
    x1, y1, x2, y2 = found[0].box
    assert rows[0]["area"] == pytest.approx((x2 - x1) * (y2 - y1), abs=0.1)


def test_annotations_of_supervisely(predict, model, image, tmp_path):
    status, lines, _ = predict(image, "--format", "supervisely", "--no-draw")
    assert (status, lines[-1]) == (0, "predictions/image.png.json")
    classes = [sly.ObjClass(name, sly.Rectangle) for name in model.class_names]
    tag = sly.TagMeta("confidence", sly.TagValueType.ANY_NUMBER)
    meta = sly.ProjectMeta(classes, [tag])
    read = sly.Annotation.from_json(json.loads((tmp_path / lines[-1]).read_text()), meta)
    expected = model.predict(image, score=float(SCORE)).to_supervisely(meta)
    assert [each.geometry.to_json() for each in read.labels] == [
        each.geometry.to_json() for each in expected.labels
    ]
    assert [each.tags.get("confidence").value for each in read.labels] == pytest.approx(
        [each.tags.get("confidence").value for each in expected.labels], abs=1e-4
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jpg"], "none.jpg: no such file or folder"),
        (["IMAGE", "--classes", "cat,bird"], "the model does not have 'bird'; its classes are cat"),
        (["IMAGE", "--nms-iou", "3"], "nms_iou = 3.0: must be a number from 0 to 1"),
        (["IMAGE", "-o", "."], "the drawing would replace image.png; choose another folder"),
        (["IMAGE", "-o", "IMAGE"], "--output image.png: not writable"),
    ],
)
def test_invalid_input_ends_in_one_sentence(predict, image, words, message):
    before = image.read_bytes()
    status, lines, errors = predict(*(image.name if w == "IMAGE" else w for w in words))
    assert (status, lines) == (1, [])
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert image.read_bytes() == before


def test_unknown_model_and_score(predict, image, checkpoint, capsys):
    assert predict(image, model="yolo")[2].startswith("ConfigError: yolo: neither a file nor")
    assert main([str(checkpoint), str(image), "--score", "high"]) == 1
    assert "score = 'high': must be a number from 0 to 1" in capsys.readouterr().err


def test_checkpoint_without_configuration_needs_its_file(predict, image, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    (tmp_path / "own.yml").write_text(yaml.safe_dump(content.pop("config")))
    names = content["class_names"]
    torch.save({"model": content["model"], "class_names": names}, tmp_path / "bare.pth")
    status, _, errors = predict(image, model="bare.pth")
    assert status == 1
    assert "the checkpoint does not contain its configuration; give its YAML file with -c" in errors
    status, lines, errors = predict(image, "-c", "own.yml", model="bare.pth")
    assert (status, errors) == (0, "")
    expected = predict(image)[1]
    assert lines == expected
