"""Model cards: metadata, thresholds and class names."""

import json

import pytest

from rtdetrv2_pytorch.src.deploy.model_card import (
    ModelCard,
    class_names_of,
    sha256_of,
    thresholds_of,
)
from rtdetrv2_pytorch.src.misc.errors import CheckpointError

CARD = ModelCard(
    class_names=("cat", 'a "quoted" name', "1e3", "caf\u00e9"),
    input_size_hw=(320, 256),
    model_name="RT-DETRv2-S",
    num_detections=120,
    threshold=0.35,
    class_thresholds={"cat": 0.2, "caf\u00e9": 0.7},
    precision="fp16",
    sampling="discrete",
    nms_iou=0.6,
    pixel_range=(0.0, 4095.0),
    source_sha256="ab12",
    versions={"torch": "2.10.0"},
)


def test_metadata_round_trip():
    text = CARD.to_metadata()
    assert all(isinstance(value, str) for value in text.values())
    again = ModelCard.from_metadata(json.loads(json.dumps(text)), source="x.onnx")
    assert again == CARD
    assert isinstance(again.class_names, tuple)
    assert again.input_size_hw == (320, 256)
    assert again.pixel_range == (0, 4095)
    del text["pixel_range"]  # as in files of earlier versions
    assert ModelCard.from_metadata(text, source="x.onnx").pixel_range is None


def test_round_trip_of_missing_values():
    card = ModelCard(class_names=("a",), input_size_hw=(64, 96))
    again = ModelCard.from_metadata(card.to_metadata(), source="x.onnx")
    assert again == card
    assert (again.threshold, again.nms_iou, again.class_thresholds) == (None, None, {})


def test_numeric_names_stay_strings():
    # json.loads of a bare "123" would be a number.
    card = ModelCard(class_names=("7",), input_size_hw=(64, 96), model_name="123")
    again = ModelCard.from_metadata(card.to_metadata(), source="x.onnx")
    assert (again.model_name, again.class_names) == ("123", ("7",))


def test_metadata_for_other_programs():
    text = CARD.to_metadata()
    assert json.loads(text["class_names"])[0] == "cat"
    assert json.loads(text["input_size_hw"]) == [320, 256]
    assert text["input_size_order"] == "height, width"
    assert "pixel / 255" in text["images"]
    assert "(width, height)" in text["orig_target_sizes"]
    assert json.loads(text["class_thresholds"]) == {"cat": 0.2, "caf\u00e9": 0.7}
    assert text["source_sha256"] == "ab12"


def test_missing_metadata_is_rejected():
    with pytest.raises(
        CheckpointError,
        match=r"^theirs\.onnx: the metadata .* is missing; export the chec",
    ):
        ModelCard.from_metadata({"producer": "someone"}, source="theirs.onnx")


@pytest.mark.parametrize(
    "damage",
    [
        {"class_names": "[1"},
        {"class_names": "7"},
        {"input_size_hw": "[640]"},
        {"input_size_hw": '["a", "b"]'},
        {"input_size_hw": "640"},
        {"threshold": None},
    ],
    ids=str,
)
def test_damaged_metadata_is_rejected(damage):
    text = CARD.to_metadata() | damage
    text = {key: value for key, value in text.items() if value is not None}
    with pytest.raises(CheckpointError, match=r"^x\.onnx: the metadata is damaged .*again$"):
        ModelCard.from_metadata(text, source="x.onnx")


def test_class_without_threshold_uses_the_overall_one():
    assert CARD.thresholds() == [0.2, 0.35, 0.35, 0.7]


def test_auto_without_measured_thresholds_is_rejected():
    card = ModelCard(class_names=("a",), input_size_hw=(64, 96))
    with pytest.raises(CheckpointError, match="no measured thresholds; give a threshold"):
        card.thresholds()


@pytest.mark.parametrize(
    ("measured", "fields"),
    [
        (
            {"overall": 0.4, "per_class": {"cat": 0.3, "dog": 1.0, "owl": 0.99}},
            {"threshold": 0.4, "class_thresholds": {"cat": 0.3, "owl": 0.99}},
        ),
        # No detection was correct: a threshold of 1 would hide everything.
        (
            {"overall": 1.0, "per_class": {"cat": 1.0}},
            {"threshold": 0.5, "class_thresholds": {}},
        ),
        ({"overall": 0.4}, {"threshold": 0.4, "class_thresholds": {}}),
        ({"overall": 0.0, "per_class": {}}, {}),
        (None, {}),
        ("damaged", {}),
    ],
)
def test_thresholds_of_a_checkpoint(measured, fields):
    assert thresholds_of({"thresholds": measured}) == fields
    assert thresholds_of({}) == {}


def test_undetected_class_uses_the_overall_threshold():
    fields = thresholds_of({"thresholds": {"overall": 0.4, "per_class": {"cat": 0.3, "dog": 1.0}}})
    card = ModelCard(class_names=("dog", "cat"), input_size_hw=(64, 96), **fields)
    assert card.thresholds() == [0.4, 0.3]


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        ({"class_names": ["b", "a"]}, ["b", "a"]),
        ({"class_names": [1, 2]}, ["1", "2"]),
        ({"model_meta": {"classes": [{"title": "x", "shape": "rectangle"}]}}, ["x"]),
        # Our list is in label order.
        ({"class_names": ["a"], "model_meta": {"classes": [{"title": "x"}]}}, ["a"]),
        ({"model_meta": {"classes": []}}, None),
        ({"model_meta": "damaged"}, None),
        ({}, None),
    ],
)
def test_class_names_of_a_checkpoint(checkpoint, names):
    assert class_names_of(checkpoint) == names


def test_hash_of_a_file(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
