"""Folders in four formats become projects; every box is compared with values computed by hand.

Boxes of a project are edges, as the platform stores them: 10..20 covers the pixels 10..19.
"""

import json
import os

import pytest
from PIL import Image, ImageOps

from rtdetrv2_pytorch.src.data.images.orientation import read_oriented
from rtdetrv2_pytorch.src.data.readers.formats import detect_format
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from supervisely_integration.local.emulator.store import ConflictError, Store
from supervisely_integration.local.importers.into_store import import_folder
from supervisely_integration.local.importers.items import read_items
from tests.app.local.import_folders import messages, picture, shapes, taken, write

CAT, DOG = "cat", 'dog "big" <b>'


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "instance")
    yield store
    store.close()


# COCO


def coco(images, annotations, categories=({"id": 7, "name": DOG}, {"id": 3, "name": CAT})):
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def coco_folder(folder):
    picture(folder / "train2017" / "a.png")
    picture(folder / "val2017" / "a.png", (60, 40))
    write(
        folder / "annotations" / "instances_train2017.json",
        coco(
            [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}],
            [
                {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 20.5]},
                {"id": 2, "image_id": 1, "category_id": 7, "bbox": [90, -5, 30, 15]},
                {
                    "id": 3,
                    "image_id": 1,
                    "category_id": 7,
                    "segmentation": [[1, 2, 5, 2, 5, 9], [3, 1, 4, 1, 4, 3]],
                },
            ],
        ),
    )
    write(
        folder / "annotations" / "instances_val2017.json",
        coco([{"id": 1, "file_name": "a.png"}], []),
    )
    write(folder / "annotations" / "captions_train2017.json", {"images": [], "annotations": []})
    return folder


def test_coco_boxes(tmp_path):
    found, source = taken(coco_folder(tmp_path))
    assert source.format == "coco"
    assert found == {
        "train/a.png": [
            (CAT, "rectangle", [[10, 20], [40, 40.5]]),
            (DOG, "rectangle", [[90, 0], [100, 10]]),  # clipped to the image
            (DOG, "rectangle", [[1, 1], [5, 9]]),  # around its polygons
        ],
        "val/a.png": [],
    }
    assert shapes(source) == {CAT: "rectangle", DOG: "rectangle"}
    assert messages(source) == {}


def test_invalid_coco_entries_are_skipped(tmp_path):
    picture(tmp_path / "images" / "good.png")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    picture(tmp_path / "images" / "cut.jpg", (400, 300))
    data = (tmp_path / "images" / "cut.jpg").read_bytes()
    (tmp_path / "images" / "cut.jpg").write_bytes(data[: len(data) // 2])
    picture(tmp_path / "images" / "other.png", (30, 30))
    picture(tmp_path.parent / "outside.png")
    names = ("good.png", "broken.jpg", "cut.jpg", "gone.png", "../../outside.png")
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    images += [{"id": 0, "file_name": "twice.png"}, {"id": 9}, "text"]
    images += [{"id": 10, "file_name": "other.png", "width": 100, "height": 50}]
    box = {"image_id": 0, "category_id": 3, "bbox": [0, 0, 10, 10]}
    annotations = [
        {**box, "id": 1},
        {**box, "id": 2, "bbox": [1, 2, 0, 4]},
        {**box, "id": 3, "bbox": [1, 2, float("nan"), 4]},
        {**box, "id": 4, "bbox": ["x", 2, 3, 4]},
        {**box, "id": 5, "bbox": [200, 2, 3, 4]},
        {**box, "id": 6, "category_id": 99},
        {**box, "id": 7, "iscrowd": 1},
        {**box, "id": 8, "image_id": 77},
        {**box, "id": 9, "image_id": 3},
        {"id": 10, "image_id": 0, "category_id": 3},
        "text",
    ]
    write(tmp_path / "labels.json", coco(images, annotations))
    found, source = taken(tmp_path)
    assert found == {"labels/good.png": [(CAT, "rectangle", [[0, 0], [10, 10]])] * 2}
    at = "labels: good.png (annotation "
    assert messages(source) == {
        "image_entry_malformed": [
            "labels: twice.png (has id 0, as good.png)",
            "labels: {'id': 9}",
            "labels: text",
        ],
        "annotation_without_image": ["labels: image 77 (annotation 8)"],
        "annotation_malformed": ["labels: text"],
        "box_zero_area": [f"{at}2: [1, 2, 0, 4])"],
        "box_not_finite": [f"{at}3: [1, 2, nan, 4])"],
        "box_malformed": [f"{at}4: ['x', 2, 3, 4])"],
        "box_outside": [f"{at}5)"],
        "unknown_class": [f"{at}6: 99)"],
        "box_crowd": [f"{at}7)"],
        "box_null": [f"{at}10: None)"],
        "unreadable_image": [
            "labels: broken.jpg (the content is none of JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF; "
            "save it as JPEG or PNG)"
        ],
        "truncated_image": ["labels: cut.jpg (image file is truncated (3 bytes not processed))"],
        "missing_image": ["labels: gone.png"],
        "path_outside_folder": ["labels: ../../outside.png"],
        "class_left_out": [f"{DOG} (no object uses it)"],
        "size_disagrees": ["labels: other.png (the image is 30x30, but 100x50 in the annotations)"],
    }


def test_damaged_coco_file_does_not_affect_other_splits(tmp_path):
    coco_folder(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_text('{"images": [')
    found, source = taken(tmp_path)
    assert list(found) == ["train/a.png"]
    (message,) = messages(source)["annotation_malformed"]
    assert message.startswith(
        "annotations/instances_val2017.json (is not valid JSON at line 1, column 13"
    )


def test_invalid_categories_and_too_deep_json(tmp_path):
    coco_folder(tmp_path)
    train = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(train.read_text())
    content["categories"] += [{"id": 9}, "text"]
    write(train, content)
    write(tmp_path / "annotations" / "instances_val2017.json", '{"images": ' + "[" * 100_000)
    found, source = taken(tmp_path)
    assert (list(found), list(shapes(source))) == (["train/a.png"], [CAT, DOG])
    found = messages(source)
    what = "annotations/instances_train2017.json"
    assert found["class_entry_malformed"] == [f"{what} ({{'id': 9}})", f"{what} (text)"]
    (message,) = found["annotation_malformed"]
    assert message.startswith("annotations/instances_val2017.json (cannot be parsed as JSON")


def test_roboflow_folders_with_equal_file_names(tmp_path):
    """A parent category without boxes is ignored; images of the same name stay separate."""
    categories = [{"id": 0, "name": "animals"}, {"id": 1, "name": CAT, "supercategory": "animals"}]
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.jpg")
        content = coco([{"id": 1, "file_name": "a.jpg"}], [], categories)
        write(tmp_path / split / "_annotations.coco.json", content, "utf-8-sig")
    found, source = taken(tmp_path)
    assert list(found) == ["train/a.jpg", "val/a.jpg"]
    assert list(shapes(source)) == [CAT]
    assert messages(source) == {"class_left_out": ["animals (parent category of Roboflow)"]}


def test_coco_file_names_with_folders(tmp_path):
    picture(tmp_path / "x" / "1" / "a.png")
    picture(tmp_path / "x" / "2" / "a.png")
    entries = [{"id": 1, "file_name": "1/a.png"}, {"id": 2, "file_name": "2\\a.png"}]
    write(tmp_path / "train.json", coco(entries, []))
    assert list(taken(tmp_path)[0]) == ["train/a.png", "train/a_2.png"]


# YOLO


def yolo_folder(folder, names, **more):
    picture(folder / "images" / "train" / "a.png")
    picture(folder / "images" / "val" / "b.png")
    write(folder / "labels" / "train" / "a.txt", "0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.5 0.2 0.5 0.8\n")
    lines = {"path": "/nowhere/else", "train": "images/train", "val": "images/val", **more}
    write(folder / "data.yaml", json.dumps({"names": names, **lines}))
    return folder


@pytest.mark.parametrize("names", [[CAT, DOG], {0: CAT, 1: DOG}])
def test_yolo_boxes_and_polygons(tmp_path, names):
    found, source = taken(yolo_folder(tmp_path, names))
    assert source.format == "yolo"
    assert found == {
        "train/a.png": [
            (CAT, "rectangle", [[40, 15], [60, 35]]),
            (DOG, "polygon", [[10, 10], [50, 10], [50, 40]]),
        ],
        "val/b.png": [],  # no text file: nothing on it
    }
    assert shapes(source) == {CAT: "rectangle", DOG: "polygon"}


def test_image_whose_name_starts_with_a_dot_is_imported(tmp_path):
    yolo_folder(tmp_path, [CAT, DOG])
    picture(tmp_path / "images" / "val" / ".hidden.png")
    write(tmp_path / "labels" / "val" / ".hidden.txt", "1 0.5 0.5 1 1")
    picture(tmp_path / "images" / "val" / "._b.png")  # attributes of b.png, by macOS
    found, _ = taken(tmp_path)
    assert found["val/.hidden.png"] == [(DOG, "rectangle", [[0, 0], [100, 50]])]
    assert len(found) == 3


def test_class_with_boxes_and_polygons_has_shape_any(tmp_path):
    yolo_folder(tmp_path, [CAT, DOG])
    write(tmp_path / "labels" / "val" / "b.txt", "1 0.5 0.5 1 1")
    found, source = taken(tmp_path)
    assert found["val/b.png"] == [(DOG, "rectangle", [[0, 0], [100, 50]])]
    assert shapes(source) == {CAT: "rectangle", DOG: "any"}


def test_yolo_with_class_list_and_without_splits(tmp_path):
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.2 0.4")
    write(tmp_path / "classes.txt", f"{CAT}\n{DOG}\n", "utf-8-sig")
    found, source = taken(tmp_path)
    assert found == {"ds0/a.png": [(DOG, "rectangle", [[40, 15], [60, 35]])]}


def test_yolo_roboflow_paths_and_image_lists(tmp_path):
    picture(tmp_path / "train" / "images" / "a.png")
    write(tmp_path / "train" / "labels" / "a.txt", "0 0.5 0.5 0.2 0.4")
    picture(tmp_path / "images" / "b.png")
    write(tmp_path / "labels" / "b.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "val.txt", "./images/b.png\n../../etc/passwd.png\n")
    write(
        tmp_path / "data.yaml",
        f"names: [{CAT}]\ntrain: ../train/images\nval: val.txt\ntest: ../test/images",
    )
    found, source = taken(tmp_path)
    assert found == {
        "train/a.png": [(CAT, "rectangle", [[40, 15], [60, 35]])],
        "val/b.png": [(CAT, "rectangle", [[0, 0], [100, 50]])],
    }
    assert messages(source) == {
        "path_outside_folder": ["val: val.txt: ../../etc/passwd.png"],
        "split_without_images": ["test: ../test/images"],
    }


def test_yolo_keypoints_are_ignored(tmp_path):
    yolo_folder(tmp_path, [CAT, DOG], kpt_shape=[1, 3])
    write(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.2 0.4 0.5 0.5 2")
    assert taken(tmp_path)[0]["train/a.png"] == [(CAT, "rectangle", [[40, 15], [60, 35]])]


def test_invalid_yolo_lines_are_skipped(tmp_path):
    yolo_folder(tmp_path, [CAT, DOG])
    lines = ["0 0.5 0.5 0.2 0.4", "5 0.5 0.5 1 1", "x 1 2", "0 0.5 0.5 0 1", "0 nan 0.5 1 1"]
    lines += ["0 9 9 1 1", "0 0.5 0.5 1", "-1 0.5 0.5 1 1", "inf 0.5 0.5 1 1"]
    write(tmp_path / "labels" / "train" / "a.txt", "\n".join(lines))
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "b.txt").write_bytes(b"\xff\xfe\x00\x01")
    found, source = taken(tmp_path)
    assert found == {"train/a.png": [(CAT, "rectangle", [[40, 15], [60, 35]])]}
    at = "train: images/train/a.png (line "
    assert messages(source) == {
        "unknown_class": [f"{at}2: 5)", f"{at}8: -1)", f"{at}9: inf)"],
        "annotation_malformed": [
            f"{at}3: x 1 2)",
            f"{at}7: 0 0.5 0.5 1)",
            "val: images/val/b.png (b.txt cannot be read)",
        ],
        "class_left_out": [f"{DOG} (no object uses it)"],
        "box_zero_area": [f"{at}4: 0 0.5 0.5 0 1)"],
        "box_not_finite": [f"{at}5: 0 nan 0.5 1 1)"],
        "box_outside": [f"{at}6: 0 9 9 1 1)"],
    }


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (3, "'names' is neither a list"),
        ("cat", "'names' is neither a list"),  # not the classes c, a and t
        ([], "names no class"),
        (["a", ""], "class 1 has no name"),
        (["a", "a"], "class 'a' occurs more than once"),
    ],
)
def test_invalid_yolo_classes_raise(tmp_path, names, problem):
    yolo_folder(tmp_path, names)
    with pytest.raises(DatasetError, match=problem):
        read_items(tmp_path)


# VOC


def voc_xml(*objects, size=(100, 50)):
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"{boxes}</annotation>"
    )


def voc_folder(folder):
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("a", "b", "c", "unlisted"):
        picture(root / "JPEGImages" / f"{name}.jpg")
    write(root / "Annotations" / "a.xml", voc_xml((CAT, 1, 1, 100, 50), ("bird", 11, 21, 20, 40)))
    write(root / "Annotations" / "b.xml", voc_xml())
    write(root / "Annotations" / "c.xml", "<annotation><object>")
    write(root / "ImageSets" / "Main" / "train.txt", "a\nc\n")
    write(root / "ImageSets" / "Main" / "val.txt", "b\ngone\n")
    write(root / "ImageSets" / "Main" / "trainval.txt", "a\nb\nc\ngone\n")
    write(root / "ImageSets" / "Main" / "cat_train.txt", "a 1\nc -1\n")
    return folder


def test_voc_boxes(tmp_path):
    found, source = taken(voc_folder(tmp_path))
    assert source.format == "voc"
    assert found == {
        "train/a.jpg": [
            (CAT, "rectangle", [[0, 0], [100, 50]]),
            ("bird", "rectangle", [[10, 20], [20, 40]]),
        ],
        "val/b.jpg": [],
    }
    assert shapes(source) == {"bird": "rectangle", CAT: "rectangle"}
    assert messages(source) == {
        "annotation_malformed": [
            "train: JPEGImages/c.jpg (c.xml cannot be read: no element found: line 1, column 20)"
        ],
        "unlisted_image": ["JPEGImages/unlisted.jpg", "val: gone (gone.xml is missing)"],
    }


def test_several_voc_years_are_separate_datasets(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        picture(tmp_path / year / "JPEGImages" / "a.jpg")
        write(tmp_path / year / "Annotations" / "a.xml", voc_xml((CAT, 1, 1, 10, 10)))
    write(tmp_path / "VOC2012" / "ImageSets" / "Main" / "trainval.txt", "a\n")
    found, _ = taken(tmp_path)
    box = (CAT, "rectangle", [[0, 0], [10, 10]])
    assert found == {"VOC2007/ds0/a.jpg": [box], "VOC2012/train/a.jpg": [box]}


def test_voc_with_two_column_lists(tmp_path):
    picture(tmp_path / "pictures" / "a.png")
    objects = [(CAT, 1, 1, 10, 10), ("bird", 1, 1, 9, 9), (CAT, 5, 5, 5, 9), (CAT, "x", 1, 2, 3)]
    objects += [(CAT, 500, 5, 600, 9)]
    write(tmp_path / "xml" / "a.xml", voc_xml(*objects))
    write(tmp_path / "xml" / "other.xml", voc_xml(size=(7, 7)))
    lines = ["pictures/a.png xml/a.xml", "pictures/a.png xml/other.xml", "one two three"]
    write(tmp_path / "train.txt", "\n".join([*lines, "../../x.png ../../x.xml"]))
    write(tmp_path / "label_list.txt", CAT)
    found, source = taken(tmp_path)
    assert found == {"train/a.png": [(CAT, "rectangle", [[0, 0], [10, 10]])]}
    at = "train: pictures/a.png (object "
    assert messages(source) == {
        "unknown_class": [f"{at}2 ('bird'): ['1', '1', '9', '9'])"],
        "box_zero_area": [f"{at}3 ('cat'): ['5', '5', '5', '9'])"],
        "box_malformed": [f"{at}4 ('cat'): ['x', '1', '2', '3'])"],
        "box_outside": [f"{at}5 ('cat'): ['500', '5', '600', '9'])"],
        "size_disagrees": [
            "train: pictures/a.png (the image is 100x50, but 7x7 in the annotations)"
        ],
        "image_entry_malformed": [
            "train: one two three (train.txt: expected 'image path annotation path')"
        ],
        "path_outside_folder": ["train: ../../x.png ../../x.xml (listed in train.txt)"],
    }


# Formats and options


def test_unknown_format_raises_with_the_known_ones(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(DatasetError) as caught:
        detect_format(tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path}: no data set recognized (files: 1 .txt, 1 .json); looked for supervisely: meta"
    )
    assert all(word in message for word in ("data.yaml", "<annotation>", "imagePath", "categories"))


def test_missing_folder_raises(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        read_items(tmp_path / "nowhere")
    write(tmp_path / "a.zip", "")
    with pytest.raises(DatasetError, match="unpack it"):
        detect_format(tmp_path / "a.zip")


def test_wrapping_folders_are_skipped(tmp_path):
    yolo_folder(tmp_path / "unpacked" / "archive", [CAT, DOG])
    assert detect_format(tmp_path) == "yolo"
    assert len(taken(tmp_path)[0]) == 2


# Images with an EXIF rotation

# A box at the left top corner of the stored picture of 100x50: (0, 0)-(20, 10).
CORNERS = {
    1: [[0, 0], [20, 10]],
    2: [[80, 0], [100, 10]],
    3: [[80, 40], [100, 50]],
    4: [[0, 40], [20, 50]],
    5: [[0, 0], [10, 20]],
    6: [[40, 0], [50, 20]],
    7: [[40, 80], [50, 100]],
    8: [[0, 80], [10, 100]],
}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_drawn_before_exif_rotation_are_turned(tmp_path, store, orientation):
    """For rotations by 90 degrees, the declared size tells which image the boxes refer to."""
    picture(tmp_path / "d" / "a.jpg", (100, 50), orientation)
    image = {"id": 1, "file_name": "a.jpg"}
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 10]}
    for size, corners in (((100, 50), CORNERS[orientation]), ((50, 100), CORNERS[1])):
        sized = {**image, "width": size[0], "height": size[1]}
        write(tmp_path / "d" / "train.json", coco([sized], [box]))
        found, _ = taken(tmp_path / "d")
        assert found == {"train/a.jpg": [(CAT, "rectangle", corners)]}
    report = import_folder(store, tmp_path / "d")
    (record,) = store.images.page(Listing(), projectId=report.project_id)["entities"]
    assert (record["width"], record["height"]) == (50, 100)
    with Image.open(store.images.contents(record["id"])[0]) as stored:
        assert stored.size == (50, 100)
        assert stored.getexif().get(0x0112, 1) == 1


def test_turning_agrees_with_pillow(tmp_path):
    for orientation, ((x1, y1), (x2, y2)) in CORNERS.items():
        path = tmp_path / f"{orientation}.png"
        image = Image.new("L", (100, 50))
        image.paste(255, (0, 0, 20, 10))
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
        with Image.open(path) as file:
            assert ImageOps.exif_transpose(file).getbbox() == (x1, y1, x2, y2)
        xs, ys = zip(*read_oriented(path).turn([(0, 0), (20, 10)]), strict=True)
        assert (min(xs), min(ys), max(xs), max(ys)) == (x1, y1, x2, y2)


# Into the instance


def test_import_folder(tmp_path, store):
    progress = []
    folder = yolo_folder(tmp_path / "pets", [CAT, DOG])
    report = import_folder(store, folder, on_progress=lambda *step: progress.append(step))
    assert (report.project_name, report.format, report.images, report.objects) == (
        "pets",
        "yolo",
        2,
        2,
    )
    assert progress[-1] == (2, 2)
    assert store.projects.info(report.project_id)["imagesCount"] == 2
    images = store.images.page(Listing(), projectId=report.project_id)["entities"]
    (annotation,) = store.annotations.get([images[0]["id"]])
    assert [o["points"]["exterior"] for o in annotation["annotation"]["objects"]] == [
        [[40, 15], [60, 35]],
        [[10, 10], [50, 10], [50, 40]],
    ]
    again = import_folder(store, folder)
    assert again.project_name == "pets_001"
    with pytest.raises(ConflictError):
        import_folder(store, folder, name="pets")


def test_invalid_unicode_in_names_is_replaced(tmp_path, store):
    """Old archives have names that are not UTF-8; truncated names may end within a character."""
    odd, other = (os.fsdecode(name) for name in (b"caf\xe9.png", b"caf\xe8.png"))
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for name in (odd, other, "plain.png"):
        picture(folder / name)
    (folder / "broken\udcff.png").write_bytes(b"")
    names = [odd, other, "plain.png", "broken\udcff.png", "nul\0.png", "half \ud800.png"]
    write(
        folder / "a.json",
        coco(
            [{"id": number, "file_name": name} for number, name in enumerate(names)],
            [{"id": 1, "image_id": 2, "category_id": 3, "bbox": [1, 2, 3, 4]}],
            [{"id": 3, "name": "cut \ud83d"}],
        ),
    )
    report = import_folder(store, folder)
    lines = report.lines()
    assert report.project_name == "caf\ufffd"
    found = store.images.page(Listing(), projectId=report.project_id)["entities"]
    annotations = store.annotations.get([image["id"] for image in found])
    assert {
        image["name"]: [o["classTitle"] for o in annotation["annotation"]["objects"]]
        for image, annotation in zip(found, annotations, strict=True)
    } == {"caf\ufffd.png": [], "caf\ufffd_2.png": [], "plain.png": ["cut \ufffd"]}
    assert lines[0].endswith("3 of 6 images, 1 of 1 object")
    reason = "(the name has a NUL character or half of a surrogate pair)"
    assert lines[-2].endswith(rf"(2): a: nul\x00.png {reason}; a: half \ud800.png {reason}")
    assert r"a: broken\udcff.png" in lines[-1]


def test_report_lines(tmp_path, store):
    report = import_folder(store, voc_folder(tmp_path / "devkit"), name="voc")
    assert {name: vars(count) for name, count in report.datasets.items()} == {
        "train": {"images": 1, "objects": 2},
        "val": {"images": 1, "objects": 0},
    }
    findings = report.findings
    assert report.images + findings.lost_images == findings.given_images == 5
    assert report.lines() == [
        f"project {report.project_id} 'voc' from voc format: 2 of 5 images, 2 of 2 objects",
        "  train: 1 image, 2 objects",
        "  val: 1 image, 0 objects",
        "  Splits of the data: training train (2 images), validation val (2 images)",
        "  skips: images that no annotation names (2): JPEGImages/unlisted.jpg; val: gone "
        "(gone.xml "
        "is missing)",
        "  skips: malformed annotations (1): train: JPEGImages/c.jpg (c.xml cannot be read: no "
        "element found: line 1, column 20)",
    ]


def test_failed_import_leaves_no_project(tmp_path, store):
    yolo_folder(tmp_path / "y", [CAT, DOG])

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_folder(store, tmp_path / "y", on_progress=interrupt)
    for path in (tmp_path / "y" / "images").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none of its 2 images can be used: skips: images"):
        import_folder(store, tmp_path / "y")
    assert store.projects.page(Listing())["entities"] == []
