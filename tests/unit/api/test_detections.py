"""`Detections` by hand."""

import io

import numpy as np
import pytest
import supervision
from PIL import Image

from rtdetrv2 import Detection, Detections
from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)

NAMES = ("cat", "dog", "owl")


def detections(**attributes) -> Detections:
    return Detections(
        **{
            "boxes": [[10, 20, 30.4, 50.6], [0, 0, 100, 60], [90, 50, 100, 60]],
            "scores": [0.9, 0.7, 0.4],
            "labels": [1, 0, 1],
            "class_names": NAMES,
            "size_hw": (60, 100),
            "pixels": np.zeros((60, 100, 3), np.uint8),
            **attributes,
        }
    )


def test_arrays_and_names():
    found = detections()
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert found.names == ["dog", "cat", "dog"]
    assert len(found) == 3
    assert repr(found) == "Detections(image, 100x60: 2 dog, 1 cat)"
    assert repr(found[:0]) == "Detections(image, 100x60: none)"


def test_items():
    first, *_, last = detections()
    name, score, box, label = first
    assert (name, label) == ("dog", 1)
    assert score == pytest.approx(0.9)
    assert box == pytest.approx((10, 20, 30.4, 50.6))
    assert detections()[-1] == last == detections()[np.int64(2)]
    assert isinstance(last, Detection)
    with pytest.raises(IndexError):
        detections()[3]


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (slice(1, None), [0, 1]),
        ([2, 0], [1, 1]),
        ([], []),
        (np.array([True, True, False]), [1, 0]),
        ([False, True, False], [0]),
    ],
)
def test_selections(index, labels):
    selected = detections()[index]
    assert selected.labels.tolist() == labels
    assert selected.boxes.shape == (len(labels), 4)
    assert selected.size_hw == (60, 100)


def test_filter():
    assert detections().filter(score=0.7).labels.tolist() == [1, 0]  # inclusive, in float32
    assert detections().filter(classes="dog").scores.tolist() == pytest.approx([0.9, 0.4])
    assert detections().filter(0.5, [0, "dog"]).names == ["dog", "cat"]
    assert len(detections().filter(classes=["owl"])) == 0
    with pytest.raises(ConfigError, match=r"does not have 'dgo'; did you mean dog\?"):
        detections().filter(classes="dgo")
    with pytest.raises(ConfigError, match="does not have 7; its classes are cat, dog, owl"):
        detections().filter(classes=7)
    with pytest.raises(ConfigError, match="score = 2: must be a number from 0 to 1"):
        detections().filter(score=2)


def test_plot_draws_boxes_on_a_copy():
    found = detections()
    picture = found.plot(line_px=1)
    assert picture.size == (100, 60)
    colored = np.asarray(picture).any(-1)
    assert colored[22:50, 10].all()  # the left edge of the first box
    assert not colored[22:50, 12:28].any()
    assert not found.image().any()
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        assert shown.size == (100, 60)


def test_save(tmp_path):
    path = detections().save(tmp_path / "new" / "a.jpg")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("JPEG", (100, 60))
    with pytest.raises(ConfigError, match=r"a\.text: cannot be written .*\.jpg or \.png"):
        detections().save(tmp_path / "a.text")


def test_image_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 60), (1, 2, 3)).save(path)
    found = detections(pixels=None, path=path)
    assert found.image()[0, 0].tolist() == [1, 2, 3]
    path.unlink()
    assert found._repr_png_() is None
    with pytest.raises(DatasetError, match=r"a\.png"):
        found.plot()
    with pytest.raises(DatasetError, match="these detections have no image"):
        detections(pixels=None).image()


def test_supervision():
    found = detections().to_supervision()
    assert isinstance(found, supervision.Detections)
    np.testing.assert_array_equal(found.xyxy, detections().boxes)
    np.testing.assert_array_equal(found.confidence, detections().scores)
    assert found.class_id.tolist() == [1, 0, 1]
    assert found["class_name"].tolist() == ["dog", "cat", "dog"]
    assert len(detections()[:0].to_supervision()) == 0


def test_coco_results():
    first = {"image_id": 7, "category_id": 2, "bbox": [10, 20, 20.4, 30.6], "score": 0.9}
    assert detections().to_coco(7)[0] == first
    assert [row["category_id"] for row in detections().to_coco(7)] == [2, 1, 2]
    ids = {"dog": 18, "cat": 17}
    assert [row["category_id"] for row in detections().to_coco(7, ids)] == [18, 17, 18]
    with pytest.raises(ConfigError, match="category_ids: no id of the class 'cat'"):
        detections().to_coco(7, {"dog": 18})
    coco = detections(class_names=list(COCO_CATEGORIES.values()), labels=[0, 79, 11])
    assert [row["category_id"] for row in coco.to_coco(7)] == [1, 90, 13]


def test_supervisely_annotation():
    classes = [sly.ObjClass("dog", sly.Rectangle), sly.ObjClass("cat", sly.AnyGeometry)]
    tag = sly.TagMeta("confidence", sly.TagValueType.ANY_NUMBER)
    meta = sly.ProjectMeta(obj_classes=classes, tag_metas=[tag])
    annotation = detections().to_supervisely(meta)
    assert annotation.img_size == (60, 100)
    first, second, _ = annotation.labels
    # The last row and column belong to the rectangle.
    assert first.geometry.to_json()["points"]["exterior"] == [[10, 20], [29, 50]]
    assert second.geometry.to_json()["points"]["exterior"] == [[0, 0], [99, 59]]
    assert (first.obj_class.name, first.tags.get("confidence").value) == ("dog", 0.9)
    without_tag = detections().to_supervisely(sly.ProjectMeta(obj_classes=classes).to_json())
    assert [len(label.tags) for label in without_tag.labels] == [0, 0, 0]


def test_supervisely_annotation_needs_the_classes():
    meta = sly.ProjectMeta(obj_classes=[sly.ObjClass("dog", sly.Polygon)])
    with pytest.raises(ConfigError, match=r"not have the class 'cat'; .*filter\(classes="):
        detections().to_supervisely(meta)
    with pytest.raises(ConfigError, match="'dog' of the project has the shape polygon"):
        detections()[:1].to_supervisely(meta)
