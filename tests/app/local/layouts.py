"""Small data sets in the layouts of well-known programs, with their boxes computed by hand.

Each function writes a folder and returns {part: {name of an image: [(class, x1, y1, x2, y2)]}}.
All images are 100 x 50 pixels.
"""

import json

from tests.app.local.import_folders import picture, write

CAT, DOG = ("cat", 10, 20, 40, 40), ("dog", 50, 10, 70, 30)
# As YOLO writes them.
CAT_LINE, DOG_LINE = "0 0.25 0.6 0.3 0.4", "1 0.6 0.4 0.2 0.4"
CLASSES = "cat\ndog\n"
SPLIT = {"train": {"a.jpg": [CAT]}, "val": {"b.jpg": [DOG]}}
SPLIT_3 = {**SPLIT, "test": {"c.jpg": [CAT, DOG]}}
OBJECTS = {"a.jpg": [CAT], "b.jpg": [DOG], "c.jpg": [CAT, DOG]}
# A random fifth of ten images, stratified by class.
TEN = {f"{n}.jpg": [CAT if n % 2 else DOG] for n in range(10)}
HELD_OUT = ("6.jpg", "7.jpg")


def coco(path, images, *, change=None, **image_keys):
    """Write a COCO file: {written name: boxes}; `change` edits its content."""
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    for number, (name, boxes) in enumerate(images.items(), start=1):
        entry = {"id": number, "file_name": name, "width": 100, "height": 50, **image_keys}
        content["images"].append(entry)
        for class_name, x1, y1, x2, y2 in boxes:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1 if class_name == "cat" else 2,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    if change is not None:
        for each in content["annotations"]:
            change(each)
    write(path, content)


def pictures(folder, *names):
    for name in names:
        picture(folder / name)


# COCO


def coco_2017(folder):
    pictures(folder, "train2017/a.jpg", "val2017/b.jpg")
    coco(folder / "annotations/instances_train2017.json", {"a.jpg": [CAT]})
    coco(folder / "annotations/instances_val2017.json", {"b.jpg": [DOG]})
    coco(folder / "annotations/person_keypoints_train2017.json", {"a.jpg": [DOG]})
    write(folder / "annotations/captions_train2017.json", {"images": [], "annotations": []})
    return SPLIT


def coco_roboflow(folder):
    for split, name in (("train", "a.jpg"), ("valid", "b.jpg"), ("test", "c.jpg")):
        pictures(folder, f"{split}/{name}")
        path = folder / split / "_annotations.coco.json"
        coco(path, {name: OBJECTS[name]})
        content = json.loads(path.read_text())
        content["categories"] = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            *({**each, "supercategory": "pets"} for each in content["categories"]),
        ]
        write(path, content)
    return SPLIT_3


def coco_cvat(folder):
    pictures(folder, "images/Train/a.jpg", "images/Validation/b.jpg")
    coco(folder / "annotations/instances_Train.json", {"a.jpg": [CAT]})
    coco(folder / "annotations/instances_Validation.json", {"b.jpg": [DOG]})
    return SPLIT


def coco_default_and_val(folder):
    pictures(folder, "images/default/a.jpg", "images/val/b.jpg")
    coco(folder / "annotations/instances_default.json", {"a.jpg": [CAT]})
    coco(folder / "annotations/instances_val.json", {"b.jpg": [DOG]})
    return SPLIT


def _one_coco_file(name):
    def layout(folder):
        pictures(folder, *(f"images/{image}" for image in TEN))
        coco(folder / name, TEN)
        return random_split(TEN)

    layout.__name__ = f"coco_one_file_{name}"
    return layout


def random_split(images):
    train = {name: boxes for name, boxes in images.items() if name not in HELD_OUT}
    return {"train": train, "val": {name: images[name] for name in HELD_OUT}}


def coco_label_studio_paths(folder):
    pictures(folder, "media/upload/1/a.jpg", "media/set/b.jpg", "media/c.jpg")
    written = {
        "/data/upload/1/a.jpg": [CAT],
        "/data/local-files/?d=set/b.jpg": [DOG],
        "https://example.com/x/c.jpg?token=1": [CAT, DOG],
    }
    coco(folder / "train/result.json", written)
    pictures(folder, "val/d.jpg")
    coco(folder / "val/result.json", {"..\\..\\media\\d.jpg": [DOG]})
    return {"train": OBJECTS, "val": {"d.jpg": [DOG]}}


def coco_several_files(folder):
    pictures(folder, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    coco(folder / "train_part1.json", {"a.jpg": [CAT]})
    coco(folder / "train_part2.json", {"c.jpg": [CAT, DOG]})
    coco(folder / "my_val.json", {"b.jpg": [DOG]})
    return {"train": {"a.jpg": [CAT], "c.jpg": [CAT, DOG]}, "val": {"b.jpg": [DOG]}}


def _changed(name, change):
    def layout(folder):
        pictures(folder, "train/a.jpg", "val/b.jpg")
        coco(folder / "train.json", {"a.jpg": [CAT]}, change=change)
        coco(folder / "val.json", {"b.jpg": [DOG]}, change=change)
        return SPLIT

    layout.__name__ = f"coco_{name}"
    return layout


def _corners(each):
    x, y, width, height = each["bbox"]
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def polygons_without_boxes(each):
    each["segmentation"] = [_corners(each)]
    del each["bbox"], each["area"], each["iscrowd"]


def run_lengths_without_boxes(each):
    x, y, width, height = each.pop("bbox")
    counts = [x * 50 + y, height]
    counts += [50 - height, height] * (width - 1)
    counts.append(100 * 50 - sum(counts))
    each["segmentation"] = {"size": [50, 100], "counts": counts}


def compressed_run_lengths(each):
    from faster_coco_eval.core import mask

    run_lengths_without_boxes(each)
    runs = mask.frPyObjects(each["segmentation"], 50, 100)
    each["segmentation"] = {"size": [50, 100], "counts": runs["counts"].decode()}


def unusable_boxes_with_masks(each):
    each["segmentation"] = [_corners(each)]
    each["bbox"] = [0, 0, 0, 0]


def numbers_as_text(each):
    each["bbox"] = [str(side) for side in each["bbox"]]
    for key in ("image_id", "category_id", "iscrowd", "area"):
        each[key] = str(each[key])


def without_optional_keys(each):
    del each["id"], each["area"], each["iscrowd"]


def keypoints(each):
    each["keypoints"], each["num_keypoints"] = [1, 2, 2] * 17, 17


def coco_lvis(folder):
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        pictures(folder, f"{split}2017/{name}")
        path = folder / f"lvis_v1_{split}.json"
        coco(path, {name: OBJECTS[name]}, neg_category_ids=[2], not_exhaustive_category_ids=[])
        content = json.loads(path.read_text())
        del content["images"][0]["file_name"]
        content["images"][0]["coco_url"] = f"http://images.cocodataset.org/{split}2017/{name}"
        write(path, content)
    return SPLIT


# YOLO


def yolo_boxes(folder, split, name, images="images/{}", labels="labels/{}"):
    picture(folder / images.format(split) / name)
    lines = [CAT_LINE] * (name != "b.jpg") + [DOG_LINE] * (name != "a.jpg")
    write((folder / labels.format(split) / name).with_suffix(".txt"), "\n".join(lines))


def _ultralytics(name, yaml_text, images="images/{}", labels="labels/{}", expected=SPLIT):
    def layout(folder):
        yolo_boxes(folder, "train", "a.jpg", images, labels)
        yolo_boxes(folder, "val", "b.jpg", images, labels)
        write(folder / "data.yaml", f"names: [cat, dog]\n{yaml_text.format(folder=folder)}")
        return expected

    layout.__name__ = f"yolo_{name}"
    return layout


def yolo_list_files(folder):
    yolo_boxes(folder, "train", "a.jpg")
    yolo_boxes(folder, "val", "b.jpg")
    write(folder / "train.txt", "data/images/train/a.jpg")
    write(folder / "val.txt", "/home/me/coco/images/val/b.jpg")
    write(
        folder / "dataset.yaml", "path: .\nnames: {0: cat, 1: dog}\ntrain: train.txt\nval: val.txt"
    )
    return SPLIT


def yolo_without_val(folder):
    for name in TEN:
        yolo_boxes(folder, "train", name)
        line = CAT_LINE if TEN[name] == [CAT] else DOG_LINE
        write((folder / "labels/train" / name).with_suffix(".txt"), line)
    write(folder / "data.yaml", "train: images/train\nnames: [cat, dog]\nnc: 2")
    return random_split(TEN)


def yolo_cvat_1_1(folder):
    yolo_boxes(folder, "", "a.jpg", "obj_train_data", "obj_train_data")
    yolo_boxes(folder, "", "b.jpg", "obj_valid_data", "obj_valid_data")
    write(folder / "obj.names", CLASSES)
    write(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    write(folder / "train.txt", "data/obj_train_data/a.jpg\n")
    write(folder / "valid.txt", "data/obj_valid_data/b.jpg\n")
    return SPLIT


def yolo_roboflow_darknet(folder):
    for split, name in (("train", "a.jpg"), ("valid", "b.jpg")):
        yolo_boxes(folder, split, name, "{}", "{}")
        write(folder / split / "_darknet.labels", CLASSES)
    return SPLIT


def yolo_flat_labelimg(folder):
    for name, boxes in TEN.items():
        picture(folder / name)
        write((folder / name).with_suffix(".txt"), CAT_LINE if boxes == [CAT] else DOG_LINE)
    write(folder / "classes.txt", CLASSES)
    return random_split(TEN)


def _lines(name, cat, dog, more=""):
    def layout(folder):
        _ultralytics("", f"train: images/train\nval: images/val\n{more}")(folder)
        write(folder / "labels/train/a.txt", cat)
        write(folder / "labels/val/b.txt", dog)
        return SPLIT

    layout.__name__ = f"yolo_{name}"
    return layout


CAT_CORNERS, DOG_CORNERS = "0.1 0.4 0.4 0.4 0.4 0.8 0.1 0.8", "0.5 0.2 0.7 0.2 0.7 0.6 0.5 0.6"
CAT_TRIANGLE, DOG_HEXAGON = "0.1 0.4 0.4 0.4 0.2 0.8", f"{DOG_CORNERS} 0.5 0.5 0.5 0.3"
POINTS = " 0.2 0.5 2" * 17


# VOC


def voc_xml(boxes, filename="", size="<size><width>100</width><height>50</height></size>"):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    named = f"<filename>{filename}</filename>" if filename else ""
    return f'<?xml version="1.0"?>\n<annotation>{named}{size}{objects}</annotation>'


def voc_images(folder, images="JPEGImages", annotations="Annotations", names=("a.jpg", "b.jpg")):
    for name in names:
        picture(folder / images / name)
        write((folder / annotations / name).with_suffix(".xml"), voc_xml(OBJECTS[name]))


def voc_several_years(folder):
    root = folder / "VOCdevkit"
    voc_images(root / "VOC2007", names=["a.jpg"])
    write(root / "VOC2007/ImageSets/Main/train.txt", "a\n")
    write(root / "VOC2007/ImageSets/Main/cat_train.txt", "a 1\n")
    voc_images(root / "VOC2012", names=["b.jpg", "c.jpg"])
    write(root / "VOC2012/ImageSets/Main/val.txt", "b\n")
    write(root / "VOC2012/ImageSets/Main/test.txt", "c\n")
    return SPLIT_3


def voc_list_lines_with_endings(folder):
    voc_images(folder)
    write(folder / "ImageSets/Main/Train.txt", "a.jpg\n")
    write(folder / "ImageSets/Main/Validation.txt", "JPEGImages/b.jpg\n")
    return SPLIT


def voc_images_and_annotations(folder):
    voc_images(folder, "images", "annotations")
    write(folder / "train.txt", "a\n")
    write(folder / "val.txt", "b\n")
    return SPLIT


def voc_beside_images(folder):
    voc_images(folder, "train", "train", ["a.jpg"])
    voc_images(folder, "my_val", "my_val", ["b.jpg"])
    return SPLIT


def voc_flat(folder):
    for name, boxes in TEN.items():
        picture(folder / name)
        write((folder / name).with_suffix(".xml"), voc_xml(boxes, name))
    return random_split(TEN)


def voc_cvat(folder):
    voc_images(folder)
    write(folder / "ImageSets/Main/train.txt", "a\n")
    write(folder / "ImageSets/Main/val.txt", "b\n")
    write(
        folder / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:4,5,6::\n",
    )
    picture(folder / "SegmentationClass/a.png")
    return SPLIT


def voc_labelme(folder):
    def pt(x, y):
        return f"<pt><x>{x}</x><y>{y}</y></pt>"

    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        picture(folder / split / name)
        ((class_name, x1, y1, x2, y2),) = OBJECTS[name]
        shape = f"<polygon>{pt(x1, y1)}{pt(x2, y1)}{pt(x2, y2)}{pt(x1, y2)}</polygon>"
        gone = f"<object><name>dog</name><deleted>1</deleted>{shape}</object>"
        kept = f"<object><name>{class_name}</name><deleted>0</deleted>{shape}</object>"
        size = "<imagesize><nrows>50</nrows><ncols>100</ncols></imagesize>"
        text = f"<annotation><filename>{name}</filename>{size}{gone}{kept}</annotation>"
        write((folder / split / name).with_suffix(".xml"), text)
    return SPLIT


# LabelMe


def labelme_file(path, image, shapes):
    write(
        path,
        {
            "version": "5.0.1",
            "shapes": [
                {"label": label, "shape_type": kind, "points": points, "flags": {}}
                for label, kind, points in shapes
            ],
            "imagePath": image,
            "imageData": None,
            "imageHeight": 50,
            "imageWidth": 100,
        },
    )


def labelme(folder):
    pictures(folder, "train/a.jpg", "val/b.jpg")
    labelme_file(folder / "train/a.json", "a.jpg", [("cat", "rectangle", [[40, 40], [10, 20]])])
    corners = [[50, 10], [70, 10], [70, 30], [60, 25], [50, 30]]
    labelme_file(folder / "val/b.json", "b.jpg", [("dog", "polygon", corners)])
    return SPLIT


def labelme_in_another_folder(folder):
    for name, boxes in TEN.items():
        picture(folder / "images" / name)
        ((label, x1, y1, x2, y2),) = boxes
        circle = [[(x1 + x2) / 2, (y1 + y2) / 2], [x2, (y1 + y2) / 2]]
        shape = ("rectangle", [[x1, y1], [x2, y2]]) if label == "cat" else ("circle", circle)
        path = (folder / "labels" / name).with_suffix(".json")
        labelme_file(path, f"..\\images\\{name}", [(label, *shape)])
    return random_split(TEN)


# Supervisely


def supervisely(folder):
    classes = [{"title": title, "shape": "rectangle"} for title in ("cat", "dog")]
    write(folder / "meta.json", {"classes": classes, "tags": []})
    for dataset, name in (("training", "a.jpg"), ("validate", "b.jpg"), ("test", "c.jpg")):
        picture(folder / dataset / "img" / name)
        objects = [
            {
                "classTitle": title,
                "geometryType": "rectangle",
                "points": {"exterior": [[x1, y1], [x2 - 1, y2 - 1]], "interior": []},
            }
            for title, x1, y1, x2, y2 in OBJECTS[name]
        ]
        content = {"size": {"width": 100, "height": 50}, "objects": objects}
        write(folder / dataset / "ann" / f"{name}.json", content)
    return SPLIT_3


# Several programs


def darknet(folder):
    yolo_boxes(folder, "", "a.jpg", "data/obj", "data/obj")
    yolo_boxes(folder, "", "b.jpg", "data/obj", "data/obj")
    write(folder / "data/obj.names", CLASSES)
    write(folder / "data/train.txt", "data/obj/a.jpg\n")
    write(folder / "data/valid.txt", "data/obj/b.jpg\n")
    return SPLIT


def voc_trainval_and_test(folder):
    """The test split is used for validation."""
    voc_images(folder / "VOCdevkit/VOC2007")
    write(folder / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "a\n")
    write(folder / "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "b\n")
    return SPLIT


def label_studio_yolo(folder):
    for name, boxes in TEN.items():
        picture(folder / "images" / name)
        line = CAT_LINE if boxes == [CAT] else DOG_LINE
        write((folder / "labels" / name).with_suffix(".txt"), line)
    write(folder / "classes.txt", CLASSES)
    write(folder / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {}})
    return random_split(TEN)


def label_studio_coco(folder):
    pictures(folder, *(f"images/{name}" for name in TEN))
    coco(folder / "result.json", {f"images\\{name}": boxes for name, boxes in TEN.items()})
    return random_split(TEN)


def coco_two_files_without_splits(folder):
    pictures(folder, *(f"imgs/{name}" for name in TEN))
    coco(folder / "day.json", dict(list(TEN.items())[:5]))
    coco(folder / "night.json", dict(list(TEN.items())[5:]))
    return random_split(TEN)


def yolo_lists_of_folders(folder):
    yolo_boxes(folder, "a", "a.jpg")
    yolo_boxes(folder, "b", "b.jpg")
    write(folder / "pets.yaml", "names: [cat, dog]\ntrain: [images/a]\nval:\n - images/b\n")
    return SPLIT


def yolo_val_is_train(folder):
    """As in small examples of Ultralytics: nothing is left for validation."""
    yolo_without_val(folder)
    write(
        folder / "data.yaml",
        "path: ../datasets/coco8\ntrain: images/train\nval: images/train\nnames: [cat, dog]",
    )
    return random_split(TEN)


def coco_via(folder):
    """Ids are texts."""

    def change(each):
        each.update(id=str(each["id"]), image_id=str(each["image_id"]))

    pictures(folder, *TEN)
    coco(folder / "via_export_coco.json", TEN, change=change)
    return random_split(TEN)


def coco_fiftyone_splits(folder):
    for split, name in (("train", "a.jpg"), ("validation", "b.jpg")):
        pictures(folder, f"{split}/data/{name}")
        coco(folder / split / "labels.json", {name: OBJECTS[name]})
    return SPLIT


def voc_labelimg(folder):
    """With labelImg's list of suggested classes, and paths of another machine."""
    for name, boxes in TEN.items():
        picture(folder / name)
        path = f"<path>C:\\Users\\me\\{name}</path><size>"
        text = voc_xml(boxes, name).replace("<size>", path)
        write((folder / name).with_suffix(".xml"), text)
    write(folder / "predefined_classes.txt", "car\nperson\n")
    return random_split(TEN)


def darknet_of_another_machine(folder):
    for name in ("a.jpg", "b.jpg"):
        yolo_boxes(folder, "", name, "obj", "obj")
    write(folder / "obj.names", CLASSES)
    write(folder / "obj.data", "classes=2\ntrain=data/train.txt\nvalid=data/test.txt\n")
    write(folder / "train.txt", "/content/darknet/data/obj/a.jpg\n")
    write(folder / "test.txt", "/content/darknet/data/obj/b.jpg\n")
    return SPLIT


LAYOUTS = [
    coco_via,
    coco_fiftyone_splits,
    voc_labelimg,
    darknet_of_another_machine,
    coco_2017,
    coco_roboflow,
    coco_cvat,
    coco_default_and_val,
    *map(
        _one_coco_file,
        ("annotations.json", "result.json", "labels.json", "annotations/instances_default.json"),
    ),
    coco_label_studio_paths,
    coco_several_files,
    *(
        _changed(change.__name__, change)
        for change in (
            polygons_without_boxes,
            run_lengths_without_boxes,
            compressed_run_lengths,
            unusable_boxes_with_masks,
            numbers_as_text,
            without_optional_keys,
            keypoints,
        )
    ),
    coco_lvis,
    _ultralytics("relative", "path: .\ntrain: images/train\nval: images/val"),
    _ultralytics("absolute", "path: {folder}\ntrain: images/train\nval: images/val"),
    _ultralytics("absolute_splits", "train: {folder}/images/train\nval: {folder}/images/val"),
    _ultralytics("other_machine", "path: /home/me/pets\ntrain: images/train\nval: images/val"),
    _ultralytics(
        "other_machine_splits", "train: C:\\pets\\images\\train\nval: C:\\pets\\images\\val"
    ),
    _ultralytics("without_path", "train: images/train\nval: images/val\nnc: 2"),
    _ultralytics(
        "roboflow", "train: ../train/images\nval: ../val/images", "{}/images", "{}/labels"
    ),
    yolo_list_files,
    yolo_without_val,
    yolo_cvat_1_1,
    yolo_roboflow_darknet,
    yolo_flat_labelimg,
    _lines("segments", f"0 {CAT_CORNERS} 0.2 0.7", f"1 {DOG_CORNERS} 0.6 0.5"),
    _lines("segments_with_confidences", f"0 {CAT_TRIANGLE} 0.93", f"1 {DOG_HEXAGON} 0.5"),
    _lines("oriented_boxes", f"0 {CAT_CORNERS}", f"1 {DOG_CORNERS}"),
    _lines("keypoints", CAT_LINE + POINTS, DOG_LINE + POINTS, "kpt_shape: [17, 3]"),
    _lines("keypoints_without_shape", CAT_LINE + POINTS, DOG_LINE + POINTS),
    _lines("confidences", f"{CAT_LINE} 0.93", f"{DOG_LINE} 0.5"),
    voc_several_years,
    voc_list_lines_with_endings,
    voc_images_and_annotations,
    voc_beside_images,
    voc_flat,
    voc_cvat,
    voc_labelme,
    labelme,
    labelme_in_another_folder,
    supervisely,
    darknet,
    voc_trainval_and_test,
    label_studio_yolo,
    label_studio_coco,
    coco_two_files_without_splits,
    yolo_lists_of_folders,
    yolo_val_is_train,
]
