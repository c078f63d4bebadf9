"""COCO files: used, skipped and rejected content."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.finding_kinds import KINDS
from rtdetrv2_pytorch.src.data.metrics.evaluator import CocoEvaluator
from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def test_boxes_are_converted_to_clipped_corners(write_coco):
    data = CocoDetection(
        **write_coco(
            [
                {"bbox": [4, 3, 10, 8], "area": 33},
                {"bbox": [-5, -2.5, 10, 8], "category_id": 1},
                {"bbox": [30, 25, 100, 100]},
            ]
        )
    )
    image, target = data[0]
    assert image.shape == (3, 30, 40)
    assert target["boxes"].tolist() == [[4, 3, 14, 11], [0, 0, 5, 5.5], [30, 25, 40, 30]]
    assert target["labels"].tolist() == [1, 0, 1]
    # As annotated: the file's where it has one, else of the whole box.
    assert target["area"].tolist() == [33, 80, 10000]
    # Evaluation uses the annotated boxes without clipping.
    assert data.annotations.boxes_xyxy.tolist() == [
        [4, 3, 14, 11],
        [-5, -2.5, 5, 5.5],
        [30, 25, 130, 125],
    ]
    assert data.findings.counts() == {}


def test_pixels_equal_the_file(write_coco):
    arguments = write_coco()
    image, _ = CocoDetection(**arguments)[1]
    stored = np.array(Image.open(Path(arguments["img_folder"], "b.png")))
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), stored)


def test_crowd_regions_have_their_own_boxes(write_coco):
    data = CocoDetection(**write_coco([{}, {"iscrowd": 1, "bbox": [1, 1, 5, 5]}]))
    _, target = data[0]
    assert target["boxes"].tolist() == [[4, 3, 14, 11]]
    assert target["crowd_boxes"].tolist() == [[1, 1, 6, 6]]
    assert target["crowd_labels"].tolist() == target["labels"].tolist()
    assert target["iscrowd"].tolist() == [0]
    assert data.annotations[0].iscrowd.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("value", "is_crowd"), [(0, False), (1, True), (None, False), ("0", False), ("1", True)]
)
def test_iscrowd_values(write_coco, value, is_crowd):
    data = CocoDetection(**write_coco([{"iscrowd": value}]))
    assert data.annotations.iscrowd.tolist() == [int(is_crowd)]


def test_images_without_objects_are_kept(write_coco):
    data = CocoDetection(**write_coco([{"image_id": 2}]))
    assert len(data) == 2
    _, target = data[0]
    assert target["boxes"].tolist() == []
    assert target["boxes"].shape == (0, 4)
    assert len(data[1][1]["labels"]) == 1


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([4, 3, 0, 8], "box_zero_area"),
        ([4, 3, 10, 0.0], "box_zero_area"),
        ([4, 3, -10, 8], "box_inverted"),
        ([4, 3, 10, float("nan")], "box_not_finite"),
        ([float("-inf"), 3, 10, 8], "box_not_finite"),
        ([0, 0, 10**400, 1], "box_not_finite"),  # exceeds the range of floats
        ([4, 3, 10, None], "box_null"),
        (None, "box_null"),
        ([4, 3, 10, "8px"], "box_malformed"),
        ([4, 3, 10, [8]], "box_malformed"),
        ([4, 3, 10], "box_malformed"),
        ([], "box_malformed"),
        ("4,3,10,8", "box_malformed"),
        ({"x": 4}, "box_malformed"),
    ],
)
def test_unusable_boxes_are_skipped_and_logged(write_coco, bbox, kind, caplog):
    data = CocoDetection(**write_coco([{"bbox": bbox}, {}, {"id": 77, "bbox": bbox}]))
    assert data.annotations.boxes_xyxy.tolist() == [[4, 3, 14, 11]]
    assert data.findings.counts() == {kind: 2}
    text = str(bbox) if len(str(bbox)) <= 80 else f"{str(bbox)[:80]}..."
    assert (
        f"skips: {KINDS[kind].title} (2): a.png (annotation 1: {text}); "
        f"a.png (annotation 77: {text})"
    ) in caplog.text


def test_box_around_polygons_replaces_a_missing_box(write_coco):
    polygons = [[1, 2, 5, 2, 5, 9], [3, 1, 4, 1, 4, 3]]
    data = CocoDetection(**write_coco([{"bbox": None, "segmentation": polygons}]))
    assert data.annotations.boxes_xyxy.tolist() == [[1, 1, 5, 9]]


def test_numbers_written_as_strings_are_read(write_coco):
    entry = {"image_id": "1", "category_id": "2", "bbox": ["4", "3.5", "10", "8"]}
    data = CocoDetection(**write_coco([entry]))
    assert data.annotations.boxes_xyxy.tolist() == [[4, 3.5, 14, 11.5]]
    assert data.annotations.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("area", "expected"),
    [(None, 80), (-1, 80), ("12", 80), (float("nan"), 80), (float("inf"), 80), (10**400, 80)]
    + [(12, 12), (0, 0)],
)
def test_invalid_area_is_replaced_by_box_area(write_coco, area, expected):
    data = CocoDetection(**write_coco([{"area": area}]))
    assert data.annotations.area.tolist() == [expected]


def test_annotations_without_image_or_class_are_skipped(write_coco):
    annotations = [{}, {"category_id": 99}, {"category_id": None}, {"image_id": 3}, "text", None]
    data = CocoDetection(**write_coco(annotations))
    assert len(data.annotations.labels) == 1
    assert data.findings.counts() == {
        "unknown_class": 2,
        "annotation_without_image": 1,
        "annotation_malformed": 2,
    }


def test_missing_images_are_logged(write_coco, caplog):
    names = [f"{i}.png" for i in range(9)]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    arguments = write_coco([{"image_id": 8}, {"image_id": 2}], images, files=names[:2] + names[8:])
    data = CocoDetection(**arguments)
    assert [data.annotations[i].file_name for i in range(len(data))] == ["0.png", "1.png", "8.png"]
    assert data.annotations.boxes_per_image().tolist() == [0, 0, 1]
    assert data.findings.counts() == {"missing_image": 6}
    assert (data.findings.lost_images, data.findings.lost_objects) == (6, 1)
    warning = (
        "skips: listed images whose file is missing (6 with 1 object): 2.png; 3.png; 4.png; "
        "and 3 more"
    )
    assert f"{arguments['ann_file']}: {warning}" in caplog.messages


def test_file_names_with_folders(write_coco):
    images = [{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "x/y/a.png"}]
    data = CocoDetection(**write_coco(images=images))
    assert [data.annotations[i].file_name for i in (0, 1)] == ["x/a.png", "x/y/a.png"]
    assert not (data[0][0] == data[1][0]).all()


@pytest.mark.parametrize(
    "entry", [{"file_name": "a.png"}, {"id": 1}, {"id": 1, "file_name": ""}, None, "a.png"]
)
def test_image_entries_without_id_or_name_are_skipped(write_coco, entry):
    good = {"id": 2, "file_name": "b.png"}
    data = CocoDetection(**write_coco(images=[entry, good], files=["b.png"]))
    assert data.annotations.image_ids.tolist() == [2]
    assert data.findings.counts() == {"image_entry_malformed": 1}


def test_file_name_that_is_not_a_string_is_skipped(write_coco):
    images = [{"id": 1, "file_name": 17}, {"id": 2, "file_name": "b.png"}]
    data = CocoDetection(**write_coco(images=images, files=["b.png"]))
    assert data.annotations.image_ids.tolist() == [2]
    assert sum(data.findings.counts().values()) == 1


@pytest.mark.parametrize("second", [1, "1", 1.0])
def test_repeated_image_ids_raise(write_coco, second):
    images = [{"id": 1, "file_name": "a.png"}, {"id": second, "file_name": "b.png"}]
    message = (
        r"instances\.json: image id 1 occurs more than once \(a\.png, b\.png\).*"
        r"give every image its own id"
    )
    with pytest.raises(DatasetError, match=message):
        CocoDetection(**write_coco(images=images, files=["a.png"]))


def test_string_image_ids_are_numbered(write_coco):
    images = [{"id": "b7", "file_name": "a.png"}, {"id": 12, "file_name": "b.png"}]
    data = CocoDetection(**write_coco([{"image_id": 12}, {"image_id": "b7"}], images))
    assert data.annotations.image_ids.tolist() == [1, 2]
    assert data.annotations.boxes_per_image().tolist() == [1, 1]
    assert data[1][1]["image_id"].tolist() == [2]


@pytest.mark.parametrize("first", [2**53 + 1, 20230101123456789, 2**63 + 1])
def test_very_long_image_ids_can_be_evaluated(write_coco, first):
    # Time stamps and hashes; a float holds them only up to 2**53.
    images = [{"id": first, "file_name": "a.png"}, {"id": first + 2, "file_name": "b.png"}]
    data = CocoDetection(**write_coco([{"image_id": i["id"]} for i in images], images))
    evaluator = CocoEvaluator(annotations=data.annotations, iou_types=["bbox"])
    for _, target in (data[0], data[1]):
        found = {"boxes": target["boxes"], "labels": target["labels"]}
        evaluator.update({int(target["image_id"]): {**found, "scores": target["area"] / 100}})
    evaluator.accumulate()
    evaluator.summarize()
    assert evaluator.result().stats["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("size", "is_usable"),
    [
        ({"width": 40, "height": 30}, True),
        ({"width": 30, "height": 40}, False),
        ({"width": 41, "height": 30}, False),
        ({"width": 40}, True),
        ({"width": None, "height": None}, True),
        ({"width": 0, "height": 0}, True),
        ({"width": -1, "height": 30}, True),
        ({}, True),
    ],
)
def test_images_with_wrong_declared_size_are_skipped(write_coco, size, is_usable, caplog):
    images = [{"id": 1, "file_name": "a.png", **size}]
    item = CocoDetection(**write_coco(images=images))[0]
    assert (item is not None) == is_usable
    assert ("boxes would be wrong" in caplog.text) == (not is_usable)


def coco_entries():
    return [{"id": id_, "name": name} for id_, name in COCO_CATEGORIES.items()]


def test_coco_labels(write_coco):
    annotations = [{"category_id": 1}, {"category_id": 90}, {"category_id": 12}]
    arguments = write_coco(annotations, categories=coco_entries())
    for remap in (True, False):
        data = CocoDetection(**arguments, remap_mscoco_category=remap)
        assert data.annotations.labels.tolist() == [0, 79]
        assert data.categories.is_mscoco


def test_remap_mscoco_category_accepts_a_subset(write_coco):
    arguments = write_coco([{"category_id": 90}], categories=coco_entries()[-3:])
    data = CocoDetection(**arguments, remap_mscoco_category=True)
    assert data.annotations.labels.tolist() == [79]
    assert len(data.categories) == 80


def test_remap_mscoco_category_rejects_other_classes(write_coco):
    categories = [{"id": 1, "name": "rbc"}]
    with pytest.raises(DatasetError, match=r"classes \['rbc'\] .* use the same names"):
        CocoDetection(**write_coco(categories=categories), remap_mscoco_category=True)


def test_validation_file_uses_labels_of_training(write_coco):
    training = CategoryTable((1, 2, 3), ("cat", "dog", "cow"))
    categories = [{"id": 5, "name": "cow"}, {"id": 6, "name": "cat"}]
    annotations = [{"category_id": 5}, {"category_id": 6}]
    arguments = write_coco(annotations, categories=categories)
    data = CocoDetection(**arguments, categories=training)
    assert data.annotations.labels.tolist() == [2, 0]
    assert data.categories is training
    assert [c["category_id"] for c in data.annotations.to_coco()["annotations"]] == [3, 1]


def test_objects_of_classes_that_training_lacks_are_skipped_and_counted(write_coco, caplog):
    training = CategoryTable((1,), ("cat",))
    categories = [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}, {"id": 7, "name": "owl"}]
    annotations = [{"category_id": 5}, {"category_id": 6}, {"category_id": 6}]
    data = CocoDetection(**write_coco(annotations, categories=categories), categories=training)
    assert data.annotations.labels.tolist() == [0]
    assert data.findings.counts() == {"unknown_class": 2}
    assert "skips: annotations of an unknown class (2)" in caplog.text


def test_validation_file_without_a_class_of_training_raises(write_coco):
    training = CategoryTable((1,), ("bird",))
    with pytest.raises(DatasetError, match=r"instances\.json: none of its classes \['cat', 'dog"):
        CocoDetection(**write_coco(), categories=training)


def write_text(write_coco, content: bytes):
    arguments = write_coco([{}])
    Path(arguments["ann_file"]).write_bytes(content)
    return arguments


def test_byte_order_mark_is_ignored(write_coco):
    arguments = write_coco([{}])
    content = Path(arguments["ann_file"]).read_bytes()
    Path(arguments["ann_file"]).write_bytes(b"\xef\xbb\xbf" + content)
    assert CocoDetection(**arguments).annotations.boxes_per_image().tolist() == [1, 0]


def test_class_names_are_read_as_utf_8(write_coco):
    categories = [{"id": 1, "name": "k\u00e4tzchen"}, {"id": 2, "name": "\u72d7"}]
    arguments = write_coco(categories=categories)
    path = Path(arguments["ann_file"])
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False).encode("utf-8"))
    assert CocoDetection(**arguments).categories.names == ("k\u00e4tzchen", "\u72d7")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'{"images": [],\n "a" 1}', r"not valid JSON at line 2, column 6", id="JSON"),
        pytest.param(b"", r"is not valid JSON at line 1, column 1", id="empty"),
        pytest.param(
            '{"images": "\u00e4"}'.encode("latin-1"), r"is not in UTF-8 .*; save it as UTF-8",
            id="Latin-1",
        ),
        pytest.param('{"a": 1}'.encode("utf-16"), r"is not in UTF-8", id="UTF-16"),
        pytest.param(b"[]", r"has no list 'images'; a COCO detection file has", id="a list"),
        pytest.param(b"null", r"has no list 'images'", id="null"),
        pytest.param(b'{"images": {}}', r"has no list 'images'", id="images as an object"),
        pytest.param(b'{"images": [], "categories": []}', r"has no list 'annotations'", id="test"),
        pytest.param(b'{"images": [], "annotations": []}', r"no list 'categories'", id="no names"),
    ],
)  # fmt: skip
def test_files_that_are_not_coco_raise(write_coco, content, message):
    with pytest.raises(DatasetError, match=rf"instances\.json: .*{message}"):
        CocoDetection(**write_text(write_coco, content))


def test_missing_annotation_file_raises(write_coco):
    arguments = write_coco() | {"ann_file": "/nowhere/instances.json"}
    with pytest.raises(
        DatasetError, match=r"/nowhere/instances\.json: cannot be read \(No such file"
    ):
        CocoDetection(**arguments)


@pytest.mark.parametrize(
    ("images", "reason"),
    [([], ""), ([{"id": 1}, {"file_name": "a.png"}], r" with an id .* \(2 image entries\)")],
)
def test_split_that_lists_no_usable_image_raises(write_coco, images, reason):
    message = rf"instances\.json: lists no images{reason}; a split needs at least one"
    with pytest.raises(DatasetError, match=message):
        CocoDetection(**write_coco(images=images, files=["a.png"]))


@pytest.mark.parametrize("img_folder", ["/nowhere", None])
def test_split_without_images_raises(write_coco, tmp_path, img_folder):
    folder = img_folder or str(tmp_path)
    arguments = write_coco() | {"img_folder": folder}
    message = rf"none of its 2 images is in {folder}; check the image folder of this split"
    with pytest.raises(DatasetError, match=message):
        CocoDetection(**arguments)


@pytest.mark.parametrize(
    ("bbox", "is_used"),
    [
        ([40, 3, 10, 8], False),  # begins where the image of 40 x 30 ends
        ([4, 30, 10, 8], False),
        ([-10, 3, 10, 8], False),
        ([4, -8, 10, 8], False),
        ([39, 29, 10, 8], True),
        ([-9, -7, 10, 8], True),
    ],
)
def test_boxes_outside_the_declared_size_are_skipped(write_coco, bbox, is_used):
    images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    data = CocoDetection(**write_coco([{"bbox": [1, 2, 3, 4]}, {"bbox": bbox}], images))
    assert len(data.annotations.labels) == 1 + is_used
    assert data.findings.counts() == ({} if is_used else {"box_outside": 1})


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (40.0, "30", (40, 30)),
        (10**30, 30, (2**31 - 1, 30)),  # is kept, so that the picture disagrees
        (None, 30, None),
        (0, 30, None),
        (40.5, 30, None),
        (True, 30, None),
    ],
)
def test_declared_sizes(write_coco, width, height, expected):
    images = [{"id": 1, "file_name": "a.png", "width": width, "height": height}]
    assert CocoDetection(**write_coco(images=images)).annotations[0].size_wh == expected


def test_invalid_unicode_and_too_long_file_names(write_coco, tmp_path):
    names = ["a.png", "odd\udcff.png", "\ud800.png", "x" * 300 + "/b.png", "nul\0/c.png"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    arguments = write_coco(images=images, files=["a.png"])
    (tmp_path / "images" / names[1]).write_bytes((tmp_path / "images" / "a.png").read_bytes())
    data = CocoDetection(**arguments)
    assert [data.annotations[i].file_name for i in range(len(data))] == names[:2]
    assert data.findings.counts() == {"image_entry_malformed": 2, "missing_image": 1}
    assert data[1] is not None


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}"], ids=["nesting", "number"]
)
def test_too_deep_json_and_too_long_numbers_raise(write_coco, text):
    with pytest.raises(DatasetError, match=r"instances\.json: cannot be parsed as JSON"):
        CocoDetection(**write_text(write_coco, text.encode()))


def test_check_boxes_raises_without_boxes(write_coco):
    CocoDetection(**write_coco([{}])).check_boxes()
    crowd = CocoDetection(**write_coco([{"iscrowd": 1}]))
    with pytest.raises(DatasetError, match="none of 2 images has a usable box; label them"):
        crowd.check_boxes()
