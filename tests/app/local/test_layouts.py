"""Every layout is read by import and by `--data`, with the same images, boxes and splits."""

import json
import os

import pytest

from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.importers.into_store import import_folder
from supervisely_integration.local.importers.items import read_items
from supervisely_integration.local.launcher.selection import choose_split, read_project, split_note
from tests.app.local.import_folders import picture, write
from tests.app.local.layouts import (
    CAT,
    DOG,
    LAYOUTS,
    coco,
    coco_2017,
    coco_roboflow,
    labelme,
    labelme_file,
    pictures,
    supervisely,
    voc_beside_images,
    voc_cvat,
    voc_flat,
    voc_xml,
    yolo_list_files,
)


def imported(folder):
    """{part: {image: boxes}} of an import, the names of its classes, and the source."""
    source = read_items(folder)
    found = {}
    for item in source.items:
        boxes = []
        for each in item.annotation["objects"]:
            xs, ys = zip(*each["points"]["exterior"], strict=True)
            boxes.append((each["classTitle"], min(xs), min(ys), max(xs), max(ys)))
        found.setdefault(item.part, {})[item.name] = boxes
    num_images = sum(map(len, found.values()))
    assert num_images + source.findings.lost_images == source.findings.given_images
    return found, [entry["title"] for entry in source.meta["classes"]], source


def trained_on(folder, work_dir):
    """{part: {image: boxes}} as the trainer reads it, the names of the classes, and the splits."""
    splits = find_splits(folder, work_dir)
    found, categories = {}, None
    for part in ("train", "val"):
        split = getattr(splits, part)
        data = CocoDetection(
            img_folder=str(split.img_folder),
            ann_file=str(split.ann_file),
            transforms=None,
            categories=categories,
        )
        categories = data.categories
        names = categories.names
        found[part] = {
            record.file_name.split("/")[-1]: [
                (names[label], *(round(side, 3) for side in box))
                for label, box in zip(record.labels, record.boxes_xyxy.tolist(), strict=True)
            ]
            for record in (data.annotations[i] for i in range(len(data)))
        }
    return found, list(names), splits


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layout_is_read_by_both(tmp_path, layout):
    expected = layout(tmp_path / "data")
    found, classes, source = imported(tmp_path / "data")
    assert found == expected
    assert classes == ["cat", "dog"]
    assert source.findings.lost_images == 0
    expected = {part: expected[part] for part in ("train", "val")}
    found, names, splits = trained_on(tmp_path / "data", tmp_path / "out")
    assert found == expected
    assert names == classes
    assert splits.note == source.decision.note


# What is ambiguous or not read


@pytest.mark.parametrize("read", [read_items, lambda folder: find_splits(folder, folder / "out")])
class TestRefusals:
    """Both doors raise the same errors."""

    def refused(self, read, folder):
        with pytest.raises(DatasetError) as caught:
            list(getattr(read(folder), "items", ()))
        return str(caught.value)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ([], "data: no data set recognized (files: none)"),
            (["a.jpg", "b.jpg"], "images without annotations that are read (files: 2 .jpg)"),
            (["export.zip"], "data: holds export.zip, an archive; unpack it first"),
            (["a.jpg", "package.json"], "annotations that are read (files: 1 .jpg, 1 .json)"),
            (["classes.txt", "labels/a.txt"], "it has YOLO files, but no image; add the images"),
            (["data.yaml"], "data: it has YOLO files, but no image; add the images"),
        ],
    )
    def test_wrong_folder_is_described_as_it_is(self, tmp_path, read, names, message):
        folder = tmp_path / "data"
        folder.mkdir()
        text = {"data.yaml": "names: [cat]\ntrain: images", "labels/a.txt": "0 .5 .5 .1 .1"}
        for name in names:
            if name.endswith(".jpg"):
                picture(folder / name)
            else:
                write(folder / name, text.get(name, "{}"))
        assert message in self.refused(read, folder)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("a.zip", "a.zip: is an archive; unpack it and give the folder"),
            ("a.json", "a.json: is a file; give the folder that contains it"),
            ("gone", "gone: no such folder; give the folder of a data set"),
        ],
    )
    def test_path_that_is_no_folder(self, tmp_path, read, name, message):
        if name != "gone":
            write(tmp_path / name, "{}")
        assert message in self.refused(read, tmp_path / name)

    def test_image_in_two_folders(self, tmp_path, read):
        pictures(tmp_path, "one/a.jpg", "two/a.jpg", "b.jpg")
        coco(tmp_path / "val.json", {"b.jpg": [DOG]})
        coco(tmp_path / "train.json", {"a.jpg": [CAT], "b.jpg": [DOG]})
        if read is read_items:
            source = read(tmp_path)
            assert [item.name for item in source.items] == ["b.jpg", "b.jpg"]
            findings = list(source.findings)
        else:
            splits = read(tmp_path)
            assert (splits.train.num_images, splits.val.num_images) == (1, 1)
            findings = list(splits.train.findings)
        (ambiguous,) = [f for f in findings if f.kind_name == "image_ambiguous"]
        assert ambiguous.detail == "a.jpg: one/a.jpg or two/a.jpg"

    def test_two_files_with_the_same_images(self, tmp_path, read):
        pictures(tmp_path, "images/a.jpg")
        coco(tmp_path / "train.json", {"a.jpg": [CAT]})
        coco(tmp_path / "train_v2.json", {"a.jpg": [DOG]})
        message = self.refused(read, tmp_path)
        assert "train.json and train_v2.json: both files of the train split list" in message
        assert "images/a.jpg and 0 other images; remove one of the files" in message

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "train.tfrecord-00000-of-00002",
                "x",
                "TFRecord (TensorFlow) (train.tfrecord-00000-of-00002) is not read",
            ),
            ("a.tfrecord", "x", "TFRecord (TensorFlow) (a.tfrecord) is not read; convert it"),
            ("boxes.csv", "ImageID,Source,LabelName,XMin,XMax", "Open Images CSV (boxes.csv)"),
            (
                "a.json",
                [{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}],
                "CreateML (a.json) is not read; export it again as COCO or YOLO",
            ),
            ("annotations.xml", "<annotations></annotations>", "CVAT for images (XML)"),
            ("labels/a.txt", "0 0.5 0.5 0.1 0.1\n", "YOLO without class names (labels/a.txt)"),
            ("boxes.csv", "filename,width,height,class,xmin,ymin,xmax,ymax", "CSV with boxes"),
            ("boxes.csv", "image_id,width,height,bbox,source\n", "CSV with boxes (boxes.csv)"),
            ("labels.csv", "cat,10,20,30,20,a.jpg,100,50\n", "CSV with boxes (labels.csv)"),
            (
                "via.csv",
                "filename,file_size,file_attributes,region_count,region_id,"
                "region_shape_attributes,region_attributes\n",
                "VGG Image Annotator (VIA) (via.csv) is not read; convert it",
            ),
            (
                "via_project.json",
                {"_via_settings": {}, "_via_img_metadata": {"a.jpg1": {"filename": "a.jpg"}}},
                "VGG Image Annotator (VIA) (via_project.json)",
            ),
            (
                "via_region_data.json",
                {"a.jpg9": {"filename": "a.jpg", "regions": [{"shape_attributes": {"x": 1}}]}},
                "VGG Image Annotator (VIA) (via_region_data.json)",
            ),
            (
                "label_2/a.txt",
                "Car 0.00 0 -1.57 10.0 20.0 40.0 40.0 1.5 1.6 3.7 -2.7 1.7 46.7 -1.59\n",
                "KITTI (label_2/a.txt) is not read; convert it to COCO",
            ),
            (
                "project-1.json",
                [{"id": 1, "annotations": [{"result": []}], "data": {"image": "/data/a.jpg"}}],
                "Label Studio JSON (project-1.json) is not read; export it again as COCO",
            ),
            (
                "annotations/default.json",
                {"info": {}, "categories": {"label": {"labels": []}}, "items": [{"id": "a"}]},
                "Datumaro (annotations/default.json) is not read; convert it to COCO",
            ),
            (
                "a.json",
                {"asset": {"name": "a.jpg"}, "regions": [{"boundingBox": {}}]},
                "VoTT (a.json) is not read; export it again",
            ),
            (
                "export.ndjson",
                '{"data_row": {"id": "x"}, "media_attributes": {}, "projects": {}}\n',
                "Labelbox (export.ndjson) is not read; export it again",
            ),
            ("a.parquet", "PAR1", "Parquet (a.parquet) is not read; convert it to COCO"),
        ],
    )
    def test_format_that_is_not_read_is_named(self, tmp_path, read, name, content, message):
        pictures(tmp_path, "a.jpg", "b.jpg")
        write(tmp_path / name, content)
        assert message in self.refused(read, tmp_path)


def test_images_that_no_list_names_are_counted(tmp_path):
    voc_cvat(tmp_path / "data")
    pictures(tmp_path / "data", "JPEGImages/extra.jpg", "more/extra.jpg")
    names = ["JPEGImages/extra.jpg", "more/extra.jpg"]
    found, _, source = imported(tmp_path / "data")
    assert source.findings.given_images == 4
    assert [f.where for f in source.findings if f.kind_name == "unlisted_image"] == names
    _, _, splits = trained_on(tmp_path / "data", tmp_path / "out")
    assert [f.where for f in splits.findings if f.kind_name == "unlisted_image"] == names


def test_unused_classes_are_left_out(tmp_path):
    """Of both doors: LabelMe's background, and classes without objects."""
    coco_2017(tmp_path / "data")
    for split in ("train2017", "val2017"):
        path = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        content["categories"] += [{"id": 0, "name": "_background_"}, {"id": 9, "name": "bird"}]
        write(path, content)
    _, classes, source = imported(tmp_path / "data")
    assert classes == ["cat", "dog"]
    _, names, splits = trained_on(tmp_path / "data", tmp_path / "out")
    assert names == classes
    for findings in (source.findings, splits.findings):
        left_out = {f.where: f.detail for f in findings if f.kind_name == "class_left_out"}
        assert left_out == {"_background_": "no object uses it", "bird": "no object uses it"}


@pytest.mark.parametrize("unused", [[], ["cow"]])
def test_class_of_only_one_split(tmp_path, unused):
    """Its objects are skipped, and their images are background, as the class is not learned."""
    coco_2017(tmp_path)
    for split, names in (("train", ["cat"]), ("val", ["cat", "dog", *unused])):
        path = tmp_path / f"annotations/instances_{split}2017.json"
        content = json.loads(path.read_text())
        content["categories"] = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
        write(path, content)
    expected = {"train": {"a.jpg": [CAT]}, "val": {"b.jpg": []}}
    found, classes, source = imported(tmp_path)
    assert (found, classes) == (expected, ["cat"])
    found, names, splits = trained_on(tmp_path, tmp_path / "out")
    assert (found, names) == (expected, ["cat"])
    left_out = {"dog": "not in the class list of the training split"}
    left_out |= dict.fromkeys(unused, "no object uses it")
    report = examine("data", splits.train, splits.val, Options(), others=splits.findings)
    for findings in (source.findings, report.findings):
        assert left_out == {f.where: f.detail for f in findings if f.kind_name == "class_left_out"}
        (skipped,) = [f for f in findings if f.kind_name == "unknown_class"]
        assert (skipped.where, skipped.lost_objects) == ("b.jpg", 1)


def test_objects_of_labeling_programs_are_left_out(tmp_path):
    """Their images are background, which is what `_background_` says."""
    labelme(tmp_path / "data")
    pictures(tmp_path / "data", "train/c.jpg")
    shapes = [("_background_", "rectangle", [[1, 1], [9, 9]])]
    labelme_file(tmp_path / "data/train/c.json", "c.jpg", shapes)
    expected = {"train": {"a.jpg": [CAT], "c.jpg": []}, "val": {"b.jpg": [DOG]}}
    found, classes, source = imported(tmp_path / "data")
    assert (found, classes) == (expected, ["cat", "dog"])
    found, names, splits = trained_on(tmp_path / "data", tmp_path / "out")
    assert (found, names) == (expected, ["cat", "dog"])
    for findings in (source.findings, [*splits.findings, *splits.train.findings]):
        assert sorted((f.kind_name, f.where, f.detail) for f in findings) == [
            ("class_left_out", "_background_", "added by the labeling program"),
            ("object_left_out", "train/c.jpg", "shape 1: [(1.0, 1.0), (9.0, 9.0)]"),
        ]


def _without_usable_object(folder, layout):
    """Write a data set and a training image whose only object is damaged; return its name."""
    expected = layout(folder)
    line, reversed_box = ("cat", 10, 20, 10, 40), ("cat", 40, 20, 10, 40)
    if layout is coco_2017:
        pictures(folder, "train2017/x.jpg")
        images = {"a.jpg": [CAT], "x.jpg": [line]}
        coco(folder / "annotations/instances_train2017.json", images)
    elif layout is yolo_list_files:
        pictures(folder, "images/train/x.jpg")
        write(folder / "labels/train/x.txt", "0 0.5 0.5 0 0.1")
        write(folder / "train.txt", "images/train/a.jpg\nimages/train/x.jpg")
    elif layout is voc_beside_images:
        pictures(folder, "train/x.jpg")
        write(folder / "train/x.xml", voc_xml([reversed_box]))
    elif layout is labelme:
        pictures(folder, "train/x.jpg")
        labelme_file(folder / "train/x.json", "x.jpg", [("cat", "rectangle", [[1, 1], [1, 9]])])
    else:
        pictures(folder, "training/img/x.jpg")
        figure = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1]]}}
        content = {"size": {"width": 100, "height": 50}, "objects": [figure]}
        write(folder / "training/ann/x.jpg.json", content)
    return expected


@pytest.mark.parametrize(
    "layout", [coco_2017, yolo_list_files, voc_beside_images, labelme, supervisely]
)
def test_image_without_usable_object_is_left_out(tmp_path, layout):
    """As background, it would train the model to ignore the object that it shows."""
    expected = _without_usable_object(tmp_path / "data", layout)
    found, _, source = imported(tmp_path / "data")
    assert found == expected
    lost = [f for f in source.findings if f.kind_name == "objects_unusable"]
    assert [(f.where.split("/")[-1], f.detail) for f in lost] == [("x.jpg", "1 object")]
    assert (source.findings.lost_images, source.findings.lost_objects) == (1, 1)
    found, _, splits = trained_on(tmp_path / "data", tmp_path / "out")
    assert found == {part: expected[part] for part in ("train", "val")}
    report = examine("data", splits.train, splits.val, Options(), others=splits.findings)
    assert (report.splits[0].images.skipped, report.splits[0].boxes.skipped) == (1, 1)
    (line,) = [g for g in report.lines() if "without any usable object" in g]
    assert line.startswith("skips: images without any usable object of those annotated (1): ")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_counts_add_up_to_the_files_on_disk(tmp_path, layout):
    """With an image that no annotation names, and one that is damaged."""
    folder = tmp_path / "data"
    layout(folder)
    named = next(path for path in sorted(folder.rglob("*.jpg")) if path.name != "c.jpg")
    named.write_bytes(b"no image")
    pictures(folder, "unlisted/x.jpg")
    on_disk = len(list(folder.rglob("*.jpg")))
    found, _, source = imported(folder)
    used = sum(map(len, found.values()))
    assert source.findings.given_images == used + source.findings.lost_images == on_disk
    splits = find_splits(folder, tmp_path / "out")
    report = examine("data", splits.train, splits.val, Options(), others=splits.findings)
    num_test = len(found.get("test", ()))
    assert report.images.given == on_disk - num_test
    assert report.images.used == used - num_test - len(found.get(None, ()))


@pytest.mark.parametrize(
    ("layout", "place"), [(coco_2017, "annotations"), (coco_roboflow, "train")]
)
def test_files_in_place_are_used_without_conversion(tmp_path, layout, place):
    layout(tmp_path)
    splits = find_splits(tmp_path, tmp_path / "out")
    assert splits.train.ann_file.parent == tmp_path / place
    assert not (tmp_path / "out").exists()
    parents = ["pets (parent category of Roboflow)"] * (layout is coco_roboflow)
    assert [str(f) for f in splits.findings if f.kind_name == "class_left_out"] == parents


def test_training_in_the_app_uses_the_random_split_of_the_import(tmp_path):
    expected = voc_flat(tmp_path / "data")
    store = Store(tmp_path / "instance")
    project = read_project(store, import_folder(store, tmp_path / "data").project_id)
    split, num_train, num_val = choose_split(project, None)
    assert (split["method"], num_train, num_val) == ("collections", 8, 2)
    images = store.images.page(Listing(), projectId=project.id)["entities"]
    names = {image["id"]: image["name"] for image in images}
    for part in ("train", "val"):
        (id_,) = split[f"{part}_collections"]
        members, _ = store.collections.remove_items(id_, list(names))
        assert {names[each["entityId"]] for each in members} == expected[part].keys()
    assert split_note(project).startswith("Random split of 10 images (the data names no splits)")
    store.close()


# Links


def test_links_of_dvc_and_of_network_shares(tmp_path):
    """Annotations in the repository's own store are read; elsewhere, only images are."""
    data, store, share = tmp_path / "data", tmp_path / ".dvc/cache", tmp_path.parent / "share"
    pictures(store, "a.jpg")
    pictures(share, "val/b.jpg", "val/unlisted.jpg")
    coco(store / "train", {"a.jpg": [CAT], "gone.jpg": [DOG]})
    coco(data / "val.json", {"b.jpg": [DOG]})
    coco(share / "test.json", {"b.jpg": [DOG]})
    (data / "train.json").symlink_to(store / "train")
    (data / "a.jpg").symlink_to(store / "a.jpg")
    (data / "gone.jpg").symlink_to(store / "gone.jpg")
    (data / "test.json").symlink_to(share / "test.json")
    (data / "images").symlink_to(share)
    (data / "again").symlink_to(data)
    found, _, source = imported(data)
    assert found == {"train": {"a.jpg": [CAT]}, "val": {"b.jpg": [DOG]}}
    assert sorted((f.kind_name, f.where, f.lost_images) for f in source.findings) == [
        ("dead_link", "gone.jpg", 1),
        ("link_outside", "test.json", 0),
        ("outside_folder", "images", 0),
        ("unlisted_image", "images/val/unlisted.jpg", 1),
    ]
    found, _, splits = trained_on(data, tmp_path / "out")
    assert found == {"train": {"a.jpg": [CAT]}, "val": {"b.jpg": [DOG]}}
    assert [f.kind_name for f in splits.train.findings] == ["dead_link"]
    assert {f.kind_name for f in splits.findings} == {
        "unlisted_image",
        "outside_folder",
        "link_outside",
    }


def test_pipes_are_skipped(tmp_path):
    coco_2017(tmp_path)
    os.mkfifo(tmp_path / "train2017" / "b.jpg")
    _, _, source = imported(tmp_path)
    (finding,) = source.findings
    assert (finding.kind_name, finding.where) == ("not_a_file", "train2017/b.jpg")
