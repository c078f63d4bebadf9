"""Annotations in flat arrays."""

import numpy as np
import pytest

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable

TABLE = CategoryTable((3, 7), ("cat", "dog"))


def record(name, image_id, size_wh=None, rows=()):
    """Rows are (x1, y1, x2, y2, label, area, iscrowd)."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return ImageRecord(
        file_name=name,
        image_id=image_id,
        size_wh=size_wh,
        boxes_xyxy=rows[:, :4],
        labels=rows[:, 4].astype(np.int64),
        area=rows[:, 5],
        iscrowd=rows[:, 6].astype(np.int64),
    )


RECORDS = [
    record("none.png", 9),
    record("sub/bl\u00e4tter \u2603.png", 4, (40, 30), [(1, 2, 11, 7, 1, 50, 0)]),
    record("c.png", 17, None, [(0, 0, 5, 5, 0, 12.5, 1), (-2, 1, 45.5, 9, 1, 380, 0)]),
    record("d.png", 1),
]


def same(one, other):
    assert (one.file_name, one.image_id, one.size_wh) == (
        other.file_name,
        other.image_id,
        other.size_wh,
    )
    for name in ("boxes_xyxy", "labels", "area", "iscrowd"):
        got, wanted = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(got, wanted)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1], [1], [0], [0, 3]])
def test_records_round_trip(order):
    records = [RECORDS[i] for i in order]
    annotations = Annotations(records, TABLE)
    assert len(annotations) == len(records)
    for i, wanted in enumerate(records):
        same(annotations[i], wanted)


def test_boxes_per_image():
    annotations = Annotations(RECORDS, TABLE)
    assert annotations.boxes_per_image().tolist() == [0, 1, 2, 0]
    assert annotations.image_ids.tolist() == [9, 4, 17, 1]


def test_images_by_class():
    cats = [(0, 0, 5, 5, 0, 25, 0), (5, 5, 9, 9, 0, 16, 0)]  # twice in an image: the image once
    annotations = Annotations([*RECORDS, record("e.png", 2, None, cats)], TABLE)
    found = [(label, images.tolist()) for label, images in annotations.images_by_class()]
    assert found == [(0, [4]), (1, [1, 2])]  # the cat in c.png is a crowd
    assert Annotations(RECORDS[:1], TABLE).images_by_class() == []


def test_no_python_objects_are_kept_per_image():
    parts = dict(vars(Annotations(RECORDS, TABLE)))
    assert parts.pop("categories") is TABLE
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in parts.values())


def test_to_coco_has_ids_of_the_file_and_xywh_boxes():
    assert Annotations(RECORDS[1:3], TABLE).to_coco() == {
        "info": {},
        "images": [{"id": 4, "width": 40, "height": 30}, {"id": 17, "width": 0, "height": 0}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 4,
                "category_id": 7,
                "bbox": [1, 2, 10, 5],
                "area": 50,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 17,
                "category_id": 3,
                "bbox": [0, 0, 5, 5],
                "area": 12.5,
                "iscrowd": 1,
            },
            {
                "id": 3,
                "image_id": 17,
                "category_id": 7,
                "bbox": [-2, 1, 47.5, 8],
                "area": 380,
                "iscrowd": 0,
            },
        ],
    }


def test_to_coco_numbers_string_categories():
    words = CategoryTable(("cat", "dog"), ("cat", "dog"))
    coco = Annotations(RECORDS, words).to_coco()
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [a["category_id"] for a in coco["annotations"]] == [2, 1, 2]


def test_to_coco_without_boxes():
    coco = Annotations([RECORDS[0]], TABLE).to_coco()
    assert coco["annotations"] == []
    assert coco["images"] == [{"id": 9, "width": 0, "height": 0}]
