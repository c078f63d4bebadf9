"""Category ids, labels and names."""

import random

import pytest

from rtdetrv2_pytorch.src.data.categories import CategoryTable, normalize_id
from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def read(categories, used=()):
    return CategoryTable.from_coco(categories, set(used), source="train.json")


def table(*pairs):
    return read([{"id": id_, "name": name} for id_, name in pairs])


@pytest.mark.parametrize(
    ("pairs", "ids", "names", "evaluation_ids"),
    [
        pytest.param([(0, "a"), (1, "b")], (0, 1), ("a", "b"), (0, 1), id="from zero"),
        pytest.param([(2, "b"), (1, "a")], (1, 2), ("a", "b"), (1, 2), id="ascending by id"),
        pytest.param(
            [(1000, "c"), (7, "a"), (91, "b")], (7, 91, 1000), ("a", "b", "c"), (7, 91, 1000),
            id="sparse and above 90",
        ),
        pytest.param(
            [("10", "b"), ("9", "a")], (9, 10), ("a", "b"), (9, 10), id="numbers as strings"
        ),
        pytest.param([(2.0, "b"), (1.0, "a")], (1, 2), ("a", "b"), (1, 2), id="floats"),
        pytest.param(
            [("dog", "Dog"), ("cat", "Cat")], ("dog", "cat"), ("Dog", "Cat"), (1, 2),
            id="words, in the order of the file",
        ),
        pytest.param([(30, "a"), ("x", "b")], (30, "x"), ("a", "b"), (1, 2), id="mixed"),
    ],
)  # fmt: skip
def test_labels_follow_the_ids(pairs, ids, names, evaluation_ids):
    categories = table(*pairs)
    assert categories.ids == ids
    assert categories.names == names
    assert categories.evaluation_ids == evaluation_ids
    assert categories.label_of == {name: label for label, name in enumerate(names)}
    assert len(categories) == len(pairs)


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        (7, 7),
        (7.0, 7),
        (7.5, "7.5"),
        ("7", 7),
        ("-7", -7),
        ("7.5", "7.5"),
        ("dog", "dog"),
        (None, "None"),
        (True, "True"),
        ([7], "[7]"),
    ],
)
def test_normalize_id(id_, expected):
    result = normalize_id(id_)
    assert result == expected
    assert type(result) is type(expected)


PARENT = {"id": 0, "name": "cells", "supercategory": "none"}


def child(id_, name):
    return {"id": id_, "name": name, "supercategory": "cells"}


def test_unused_parent_category_of_roboflow_is_ignored():
    assert read([PARENT, child(1, "rbc"), child(2, "wbc")], used={1}).ids == (1, 2)


def test_parent_category_may_share_the_name_of_its_class():
    parent = {"id": 0, "name": "rbc", "supercategory": "none"}
    only = {"id": 1, "name": "rbc", "supercategory": "rbc"}
    assert read([parent, only], used={1}) == CategoryTable((1,), ("rbc",))


@pytest.mark.parametrize(
    ("categories", "used"),
    [
        pytest.param([PARENT, child(1, "rbc")], {0, 1}, id="a parent with boxes"),
        pytest.param([PARENT, child(1, "a"), {"id": 2, "name": "b"}], {1}, id="not the only root"),
        pytest.param([PARENT], set(), id="alone"),
    ],
)
def test_categories_without_boxes_are_kept(categories, used):
    assert read(categories, used).ids == tuple(c["id"] for c in categories)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(1, "a"), (1, "b")], r"train.json: category id 1 occurs .* give each class its own id"),
        ([(1, "a"), ("1", "b")], r"category id 1 occurs more than once"),
        ([(1, "a"), (2, "a")], r"category name 'a' occurs .* give each class its own name"),
        ([], r"train.json: no categories; a detector needs at least one class"),
    ],
)
def test_ambiguous_or_missing_categories_raise(pairs, message):
    with pytest.raises(DatasetError, match=message):
        table(*pairs)


@pytest.mark.parametrize("entry", [{"id": 1}, {"name": "a"}])
def test_category_without_id_or_name_raises(entry):
    with pytest.raises(DatasetError, match=r"train.json: category .* lacks an id or a name"):
        read([entry])


@pytest.mark.parametrize("entry", [None, "cat", 3, ["id", "name"]])
def test_category_that_is_not_an_object_raises(entry):
    with pytest.raises(DatasetError, match=r"train.json: category .* lacks an id or a name"):
        read([{"id": 1, "name": "a"}, entry])


def test_coco_categories_are_recognized_in_any_order():
    entries = [{"id": id_, "name": name} for id_, name in COCO_CATEGORIES.items()]
    random.Random(0).shuffle(entries)
    coco = read(entries)
    assert coco.is_mscoco
    assert coco == CategoryTable.mscoco()
    assert [coco.ids.index(id_) for id_ in (1, 13, 90)] == [0, 11, 79]
    assert coco.label_of["toothbrush"] == 79
    # Unused ids of the format: 12 26 29 30 45 66 68 69 71 83.
    assert sum(range(1, 91)) - sum(coco.evaluation_ids) == 499


def test_other_eighty_categories_are_not_mscoco():
    names = list(COCO_CATEGORIES.values())
    assert not table(*enumerate(names)).is_mscoco
    assert not table(*zip(COCO_CATEGORIES, [*names[:-1], "comb"], strict=True)).is_mscoco
    assert not table(*list(COCO_CATEGORIES.items())[:-1]).is_mscoco


def test_another_file_may_have_other_ids_and_more_classes():
    training = table((1, "cat"), (2, "dog"), (3, "cow"))
    training.check_shared(table((70, "cow"), (5, "owl")), source="val.json")


def test_another_file_without_a_known_class_raises():
    training = table((1, "cat"), (2, "dog"))
    message = (
        r"val.json: none of its classes \['cow'\] occurs in the training split, whose classes are "
        r"\['cat', 'dog'\]; use the same names for both"
    )
    with pytest.raises(DatasetError, match=message):
        training.check_shared(table((2, "cow")), source="val.json")
