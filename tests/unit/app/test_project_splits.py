"""Supervisely projects on disk -> COCO files: boxes, skipped data and errors."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.coco_dataset import read_coco
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from supervisely_integration.local.importers.items import read_items
from supervisely_integration.train.project_splits import check_complete, images_on_disk, write_coco

WIDTH, HEIGHT = 60, 40


def points(title, *exterior, shape="rectangle", id_=1):
    return {
        "id": id_,
        "classTitle": title,
        "geometryType": shape,
        "points": {"exterior": [list(p) for p in exterior], "interior": []},
    }


def mask(title, origin, pixels):
    """A bitmap as the SDK stores it: a compressed PNG whose last channel is the mask."""
    rgba = np.zeros((*np.shape(pixels), 4), np.uint8)
    rgba[..., 3] = np.array(pixels, np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {
        "id": 9,
        "classTitle": title,
        "geometryType": "bitmap",
        "bitmap": {"origin": list(origin), "data": data},
    }


def add_image(dataset, name, *figures, image=True, annotation=True):
    for folder in ("img", "ann"):
        (dataset / folder).mkdir(parents=True, exist_ok=True)
    if image:
        Image.new("RGB", (WIDTH, HEIGHT)).save(dataset / "img" / name)
    if annotation:
        content = {
            "size": {"width": WIDTH, "height": HEIGHT},
            "tags": [],
            "objects": list(figures),
        }
        (dataset / "ann" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def project(tmp_path):
    """One image a split, each with a cat."""
    for split in ("train", "val"):
        add_image(tmp_path / split, f"{split}.png", points("cat", (10, 5), (19, 24)))
    return tmp_path


def convert(project, classes=("cat",), convert_shapes=True):
    return write_coco(
        project / "train",
        project / "val",
        project / "coco",
        classes,
        convert_shapes=convert_shapes,
    )


def content(report):
    return json.loads(report.ann_file.read_text(encoding="utf-8"))


def boxes(report):
    return [annotation["bbox"] for annotation in content(report)["annotations"]]


def skipped(split):
    return [(f.kind.name, f.where, f.detail, f.count) for f in split.findings]


# Boxes


def test_rectangle_includes_its_last_pixel(project):
    data = convert(project)
    coco = content(data.train)
    assert coco["categories"] == [{"id": 1, "name": "cat"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "img/train.png", "width": WIDTH, "height": HEIGHT}
    ]
    assert coco["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 5, 10, 20],
            "area": 200,
            "iscrowd": 0,
        }
    ]
    assert len(data.train.findings) == 0


@pytest.mark.parametrize(
    ("figure", "box"),
    [
        (points("cat", (19, 24), (10, 5)), [10, 5, 10, 20]),  # corners the other way round
        (points("cat", (3, 3), (3, 3)), [3, 3, 1, 1]),
        (points("cat", (0, 0), (59, 39)), [0, 0, 60, 40]),
        (points("cat", (-5, -5), (4, 4)), [0, 0, 5, 5]),  # only the part in the image
        (points("cat", (50, 30), (99, 99)), [50, 30, 10, 10]),
        (points("cat", (2.5, 3.5), (6.5, 7.5)), [2.5, 3.5, 5, 5]),
        (points("cat", (1, 2), (9, 4), (5, 11), shape="polygon"), [1, 2, 9, 10]),
        (points("cat", (7, 2), (7, 9), shape="line"), [7, 2, 1, 8]),
        (mask("cat", (20, 10), [[0, 1, 1], [0, 0, 1], [0, 0, 0]]), [21, 10, 2, 2]),
        (
            {
                "classTitle": "cat",
                "geometryType": "graph",
                "nodes": {"a": {"loc": [4, 6]}, "b": {"loc": [14, 9]}},
            },
            [4, 6, 11, 4],
        ),
    ],
)
def test_shapes_are_converted_to_boxes(project, figure, box):
    add_image(project / "train", "train.png", figure)
    assert boxes(convert(project).train) == [box]


def test_mask_written_by_the_sdk(project):
    """Masks are encoded by the SDK, not by the test."""
    import supervisely as sly

    pixels = np.zeros((5, 4), bool)
    pixels[1:3, 2:4] = True
    bitmap = sly.Bitmap(pixels, origin=sly.PointLocation(row=8, col=30))
    figure = {"classTitle": "cat", "geometryType": "bitmap", **bitmap.to_json()}
    add_image(project / "train", "train.png", figure)
    assert boxes(convert(project).train) == [[32, 9, 2, 2]]


def test_conversion_uses_the_shape_of_each_object(project):
    """A class of shape "any" has objects of different shapes."""
    add_image(
        project / "train",
        "train.png",
        points("cat", (1, 1), (2, 2)),
        points("cat", (1, 1), (4, 1), (4, 4), shape="polygon"),
    )
    report = convert(project, convert_shapes=False).train
    assert boxes(report) == [[1, 1, 2, 2]]
    assert skipped(report) == [("unknown_geometry", "cat", "polygon", 1)]


# Classes


def test_categories_follow_the_order_of_the_classes(project):
    add_image(
        project / "train",
        "train.png",
        points("cat", (1, 1), (2, 2)),
        points("ant", (3, 3), (4, 4)),
        points("not selected", (5, 5), (6, 6)),
    )
    add_image(project / "val", "val.png", points("ant", (3, 3), (4, 4)))
    data = convert(project, classes=("zebra", "cat", "ant"))
    assert content(data.train)["categories"] == [
        {"id": 1, "name": "zebra"},
        {"id": 2, "name": "cat"},
        {"id": 3, "name": "ant"},
    ]
    assert [a["category_id"] for a in content(data.train)["annotations"]] == [2, 3]
    assert data.train.boxes == {"zebra": 0, "cat": 1, "ant": 1}
    assert data.val.boxes == {"zebra": 0, "cat": 0, "ant": 1}
    assert skipped(data.train) == [("class_not_selected", "not selected", "", 1)]


def test_no_class_raises(project):
    with pytest.raises(DatasetError, match="select at least one"):
        convert(project, classes=())


# Images


def test_images_without_objects_are_kept(project):
    add_image(project / "train", "empty.png")
    report = convert(project).train
    assert report.num_images == 2
    assert [i["file_name"] for i in content(report)["images"]] == [
        "img/empty.png",
        "img/train.png",
    ]


def test_equal_names_in_nested_datasets(project):
    nested = project / "train" / "parent"
    for folder in (nested, nested / "datasets" / "child", project / "train" / "other"):
        add_image(folder, "same.png", points("cat", (1, 1), (2, 2)))
    for folder in ("img", "ann"):  # a folder of data sets, not a data set
        for file in (project / "train" / folder).iterdir():
            file.unlink()
        (project / "train" / folder).rmdir()
    report = convert(project).train
    names = [i["file_name"] for i in content(report)["images"]]
    assert names == [
        "other/img/same.png",
        "parent/img/same.png",
        "parent/datasets/child/img/same.png",
    ]
    assert all((report.img_folder / name).is_file() for name in names)
    assert [a["image_id"] for a in content(report)["annotations"]] == [1, 2, 3]


def test_old_style_annotation_names(project):
    ann = project / "train" / "ann"
    (ann / "train.png.json").rename(ann / "train.json")
    assert boxes(convert(project).train) == [[10, 5, 10, 20]]


def test_other_files_of_the_sdk_are_ignored(project):
    info = project / "train" / "img_info"
    info.mkdir()
    (info / "train.png.json").write_text("{}")
    (project / "train" / "img" / ".DS_Store").write_text("")
    assert convert(project).train.num_images == 1


def test_engine_reads_the_written_file(project):
    add_image(project / "train", "zwei Äpfel.png", points("cat", (0, 0), (9, 9)))
    report = convert(project).train
    findings = Findings()
    annotations = read_coco(report.ann_file, report.img_folder, findings, None)
    assert len(findings) == 0
    names = [annotations[i].file_name for i in range(len(annotations))]
    assert names == ["img/train.png", "img/zwei Äpfel.png"]
    assert annotations[1].boxes_xyxy.tolist() == [[0, 0, 10, 10]]
    assert annotations.categories.names == ("cat",)


# Skipped data


def test_shapes_are_skipped_and_counted_without_conversion(project):
    add_image(
        project / "train",
        "more.png",
        points("cat", (1, 1), (9, 9), (1, 9), shape="polygon"),
        points("cat", (1, 1), (9, 9), shape="line"),
        points("cat", (1, 1), (9, 9), shape="line"),
    )
    assert skipped(convert(project, convert_shapes=False).train) == [
        ("objects_unusable", "img/more.png", "3 objects of unsupported shape", 1),
        ("unknown_geometry", "cat", "polygon", 1),
        ("unknown_geometry", "cat", "line", 2),
    ]


def test_points_are_always_skipped(project):
    add_image(
        project / "train",
        "train.png",
        points("cat", (1, 1), shape="point"),
        points("cat", (1, 1), (2, 2)),
    )
    assert skipped(convert(project).train) == [("unknown_geometry", "cat", "point", 1)]


@pytest.mark.parametrize(
    "damaged",
    [
        points("cat", (70, 5), (80, 9)),  # outside the image
        points("cat"),
        {"id": 1, "classTitle": "cat", "geometryType": "rectangle"},
        {"id": 1, "classTitle": "cat", "geometryType": "bitmap", "bitmap": {}},
        {
            "id": 1,
            "classTitle": "cat",
            "geometryType": "bitmap",
            "bitmap": {"origin": [0, 0], "data": "bm90IGEgbWFzaw=="},
        },
        points("cat", ("a", 1), (2, 2)),
        mask("cat", (0, 0), np.ones((500, 500))),  # larger than the image
    ],
)
def test_damaged_objects_are_skipped(project, damaged):
    """The image is skipped with them: as background it would train the model to ignore them."""
    add_image(project / "train", "bad.png", damaged)
    data = convert(project)
    assert (data.train.num_images, data.train.boxes) == (1, {"cat": 1})
    (kind, where, detail, _), *rest = skipped(data.train)
    assert rest == [("objects_unusable", "img/bad.png", "1 object", 1)]
    shape = damaged["geometryType"]
    is_outside = damaged["points"]["exterior"][:1] == [[70, 5]] if "points" in damaged else False
    assert kind == ("box_outside" if is_outside else "annotation_malformed")
    assert (where, detail) == ("img/bad.png", f"{shape} {damaged['id']} of 'cat'")


# Errors


def test_empty_split_raises(project):
    for file in (project / "val").rglob("*.*"):
        file.unlink()
    with pytest.raises(DatasetError, match=r"the val split has no images; choose another split"):
        convert(project)


def test_missing_folder_raises(project):
    with pytest.raises(DatasetError, match="the train split has no images"):
        write_coco(
            project / "nowhere", project / "val", project / "coco", ["cat"], convert_shapes=True
        )


def test_split_without_boxes_raises(project):
    add_image(project / "val", "val.png")
    with pytest.raises(DatasetError, match=r"the val split has 1 image but no box.*label the"):
        convert(project)


def test_split_of_other_shapes_suggests_conversion(project):
    triangle = points("cat", (1, 1), (9, 9), (1, 9), shape="polygon")
    add_image(project / "train", "train.png", triangle)
    with pytest.raises(DatasetError, match=r"there are 1 of shape polygon; enable the conv"):
        convert(project, convert_shapes=False)


def test_split_of_points_does_not_suggest_conversion(project):
    add_image(project / "train", "train.png", points("cat", (1, 1), shape="point"))
    with pytest.raises(DatasetError, match=r"1 of shape point, without boxes; choose other"):
        convert(project, convert_shapes=False)


@pytest.mark.parametrize(
    ("what", "kind", "reason"),
    [
        ("image", "annotation_without_image", "only gone00.png.json exists"),
        ("annotation", "unlisted_image", "gone00.png.json is missing"),
    ],
)
def test_missing_image_or_annotation_skips_one_image(project, what, kind, reason):
    for i in range(12):
        add_image(project / "train", f"gone{i:02}.png", **{what: False})
    data = convert(project)
    assert data.train.num_images == 1
    assert data.train.findings.lost_images == 12
    assert boxes(data.train) == [[10, 5, 10, 20]]
    assert {f.kind.name for f in data.train.findings} == {kind}
    assert str(data.train.findings.items[0]) == f"train: img/gone00.png ({reason})"


def test_dataset_without_annotations_is_reported(project):
    lonely = project / "train" / "datasets" / "lonely" / "img"
    lonely.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(lonely / "a.png")
    data = convert(project)
    assert skipped(data.train) == [
        ("unlisted_image", "datasets/lonely/img/a.png", "a.png.json is missing", 1)
    ]


BROKEN = [
    (b"{", "cannot be read"),
    (b"[]", "has no list 'objects'"),
    (b"{}", "has no list 'objects'"),
    (b'{"objects": []}', "has no width and height"),
    (b"[" * 100_000, "cannot be read"),
    ("{'\u00e4': 1}".encode("latin-1"), "is not in UTF-8"),
    ("{}".encode("utf-16"), "is not in UTF-8"),
    (b'{"size": {"width": 4, "height": 4}, "objects": [7]}', "object 1: 7"),
]


@pytest.mark.parametrize(("content", "complaint"), BROKEN)
def test_damaged_annotation_skips_one_image(project, content, complaint):
    add_image(project / "train", "bad.png")
    (project / "train" / "ann" / "bad.png.json").write_bytes(content)
    data = convert(project)
    assert boxes(data.train) == [[10, 5, 10, 20]]
    found = next(iter(data.train.findings))
    assert (found.kind.name, found.where) == ("annotation_malformed", "img/bad.png")
    assert data.train.findings.lost_images == 1
    assert complaint in found.detail


def test_split_with_only_damaged_annotations_raises(project):
    (project / "train" / "ann" / "train.png.json").write_text("{")
    message = r"train split has 1 image and none can be used.*img/train.png.*repair the annotations"
    with pytest.raises(DatasetError, match=message):
        convert(project)


def test_byte_order_mark_is_reported(project):
    path = project / "train" / "ann" / "train.png.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    report = convert(project).train
    assert boxes(report) == [[10, 5, 10, 20]]
    assert [f.kind.name for f in report.findings] == ["byte_order_mark"]


def test_clipped_boxes_are_reported(project):
    add_image(project / "train", "out.png", points("cat", (-5, 5), (9, 9)))
    report = convert(project).train
    assert boxes(report)[0] == [0, 5, 10, 5]
    (found,) = report.findings
    assert (found.kind.name, found.boxes) == ("box_out_of_bounds", [(-5, 5, 10, 10)])


# Complete and incomplete downloads


@pytest.fixture
def download(tmp_path):
    add_image(tmp_path / "a", "1.png")
    add_image(tmp_path / "a", "2.png")
    add_image(tmp_path / "a" / "datasets" / "b" / "datasets" / "c", "1.png")
    (tmp_path / "meta.json").write_text("{}")
    return tmp_path


def test_images_on_disk_by_dataset_path(download):
    assert images_on_disk(download) == {"a": {"1.png", "2.png"}, "a/b/c": {"1.png"}}


def test_dataset_named_datasets(tmp_path):
    add_image(tmp_path / "datasets" / "datasets" / "datasets", "1.png")
    assert images_on_disk(tmp_path) == {"datasets/datasets": {"1.png"}}


def test_image_whose_name_starts_with_a_dot_is_an_image(project):
    add_image(project / "train", ".hidden.jpg", points("cat", (10, 5), (19, 24)))
    (project / "train" / "img" / ".DS_Store").write_bytes(b"")
    check_complete(project, {"train": ["train.png", ".hidden.jpg"]})
    data = convert(project)
    assert [image["file_name"] for image in content(data.train)["images"]] == [
        "img/.hidden.jpg",
        "img/train.png",
    ]
    assert len(boxes(data.train)) == 2
    assert skipped(data.train) == []
    (project / "meta.json").write_text('{"classes": [{"title": "cat", "shape": "rectangle"}]}')
    imported = [item.name for item in read_items(project).items]
    assert imported == [".hidden.jpg", "train.png", "val.png"]


def test_check_complete_accepts_a_complete_download(download):
    check_complete(download, {"a": ["1.png", "2.png"], "a/b/c": ["1.png"]})
    check_complete(download, {})


def test_check_complete_lists_missing_images(download):
    with pytest.raises(DatasetError) as caught:
        check_complete(download, {"a": ["1.png", "2.png", "3.png"], "gone": ["x.png"]})
    assert str(caught.value).startswith(
        "2 of 4 images were not downloaded: a/3.png, gone/x.png; start"
    )
