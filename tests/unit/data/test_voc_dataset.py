"""Pascal VOC lists and XML files."""

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.voc_dataset import VOCDetection, read_labels
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def thing(name, corners, **other):
    box = "".join(
        f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    )
    extra = "".join(f"<{k}>{v}</{k}>" for k, v in other.items())
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{extra}</object>"


@pytest.fixture
def write_voc(tmp_path):
    """Writes a VOC data set of images 40 wide and 30 high, with the XML of each."""

    def write(
        contents, lines=None, labels="cat\ndog\n", size="<width>40</width><height>30</height>"
    ):
        (tmp_path / "JPEGImages").mkdir()
        (tmp_path / "Annotations").mkdir()
        names = []
        for number, content in enumerate(contents):
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            image, annotation = f"JPEGImages/{number}.png", f"Annotations/{number}.xml"
            Image.fromarray(pixels).save(tmp_path / image)
            (tmp_path / annotation).write_text(
                f"<annotation><size>{size}</size>{content}</annotation>"
            )
            names.append(f"{image} {annotation}")
        (tmp_path / "trainval.txt").write_text("\n".join(lines or names))
        (tmp_path / "label_list.txt").write_text(labels)
        return {"root": str(tmp_path)}

    return write


def test_boxes_and_labels(write_voc):
    data = VOCDetection(
        **write_voc(
            [
                thing("dog", (4, 3, 14, 11)) + thing(" cat ", ("1.5", 2, 9, 8), difficult=1),
                "",
                thing("cat", (30, 20, 60, 50)),
            ]
        )
    )
    assert data.categories == CategoryTable((0, 1), ("cat", "dog"))
    _, target = data[0]
    assert target["boxes"].tolist() == [[4, 3, 14, 11], [1.5, 2, 9, 8]]
    assert target["labels"].tolist() == [1, 0]
    assert target["area"].tolist() == [80, 45]
    assert target["iscrowd"].tolist() == [0, 0]
    assert target["orig_size"].tolist() == [40, 30]
    assert data[1][1]["boxes"].shape == (0, 4)
    assert data[2][1]["boxes"].tolist() == [[30, 20, 40, 30]]
    assert [int(data[i][1]["image_id"]) for i in range(3)] == [0, 1, 2]


def test_pixels_equal_the_file(write_voc, tmp_path):
    data = VOCDetection(**write_voc(["", ""]))
    stored = np.array(Image.open(tmp_path / "JPEGImages/1.png"))
    np.testing.assert_array_equal(data[1][0].permute(1, 2, 0).numpy(), stored)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (thing("cow", (4, 3, 14, 11)), "unknown_class"),
        ("<object></object>", "box_malformed"),
        (thing("dog", (14, 3, 4, 11)), "box_inverted"),
        (thing("dog", (4, 3, 4, 11)), "box_zero_area"),
        (thing("dog", (4, 3, 14, "nan")), "box_not_finite"),
        (thing("dog", (4, 3, 14, "?")), "box_malformed"),
        (thing("dog", (4, 3, "inf", 11)), "box_not_finite"),
        (thing("dog", (40, 3, 44, 11)), "box_outside"),  # 40 wide
        (thing("dog", (4, -9, 14, 0)), "box_outside"),
        (thing("dog", (4, 3, 14)), "box_malformed"),
        ("<object><name>dog</name></object>", "box_malformed"),
    ],
)
def test_unusable_objects_are_skipped_and_counted(write_voc, content, kind):
    data = VOCDetection(**write_voc([content + thing("cat", (1, 2, 9, 8))]))
    assert data.annotations.boxes_xyxy.tolist() == [[1, 2, 9, 8]]
    assert data.findings.counts() == {kind: 1}


def test_parts_of_an_object_are_ignored(write_voc):
    part = "<part><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin></bndbox></part>"
    content = thing("dog", (4, 3, 14, 11)).replace("</object>", f"{part}</object>")
    data = VOCDetection(**write_voc([content]))
    assert data.annotations.labels.tolist() == [1]
    assert data.findings.counts() == {}


def test_missing_and_damaged_files_are_skipped_and_logged(write_voc, tmp_path, caplog):
    arguments = write_voc([thing("dog", (4, 3, 14, 11))] * 4)
    (tmp_path / "JPEGImages/0.png").unlink()
    (tmp_path / "Annotations/1.xml").unlink()
    (tmp_path / "Annotations/2.xml").write_text("<annotation><object>")
    data = VOCDetection(**arguments)
    assert len(data) == 1
    assert data.annotations[0].file_name == "JPEGImages/3.png"
    assert data.findings.counts() == {
        "missing_image": 1,
        "unlisted_image": 1,
        "annotation_malformed": 1,
    }
    for name in ("JPEGImages/0.png", "1.xml", "2.xml"):
        assert name in caplog.text


def test_invalid_path_and_unknown_encoding_skip_one_image(write_voc, tmp_path, caplog):
    lines = [
        "JPEGImages/0.png Annotations/0.xml",
        "JPEGImages/1.png Annotations/1\0.xml",
        "JPEGImages/2.png Annotations/2.xml",
    ]
    root = write_voc([thing("cat", (4, 3, 14, 11))] * 3, lines)
    odd = tmp_path / "Annotations" / "2.xml"
    odd.write_bytes(b'<?xml version="1.0" encoding="no-such-code"?><annotation/>')
    data = VOCDetection(**root)
    assert [data.annotations[i].file_name for i in range(len(data))] == ["JPEGImages/0.png"]
    assert caplog.text.count("cannot be read") == 2


@pytest.mark.parametrize(
    ("size", "size_wh"),
    [
        ("<width>40</width><height>30</height>", (40, 30)),
        ("", None),
        ("<width></width><height></height>", None),
        ("<width>0</width><height>0</height>", None),
    ],
)
def test_declared_size(write_voc, size, size_wh):
    data = VOCDetection(**write_voc([""], size=size))
    assert data.annotations[0].size_wh == size_wh
    assert data[0] is not None


@pytest.mark.parametrize("width", ["40.0", "unknown"])
def test_invalid_declared_size_is_ignored(write_voc, width):
    size = f"<width>{width}</width><height>30</height>"
    data = VOCDetection(**write_voc([thing("dog", (4, 3, 14, 11))], size=size))
    assert data[0][1]["boxes"].tolist() == [[4, 3, 14, 11]]


def test_impossible_declared_size_skips_the_image(write_voc):
    size = f"<width>{10**30}</width><height>30</height>"
    data = VOCDetection(**write_voc([thing("dog", (4, 3, 14, 11))], size=size))
    assert data.annotations[0].size_wh == (2**31 - 1, 30)
    assert data[0] is None


def test_images_with_wrong_declared_size_are_skipped(write_voc):
    data = VOCDetection(**write_voc([""], size="<width>30</width><height>40</height>"))
    assert data[0] is None


def test_categories_argument_replaces_the_label_list(write_voc):
    training = CategoryTable((8, 9), ("dog", "cat"))
    arguments = write_voc([thing("dog", (4, 3, 14, 11))], labels="")
    data = VOCDetection(**arguments, categories=training)
    assert data.annotations.labels.tolist() == [0]
    assert data.categories is training


def test_blank_lines_and_byte_order_mark_are_ignored(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\n\r\n dining table \r\n")
    table = read_labels(tmp_path / "labels.txt")
    assert table == CategoryTable((0, 1), ("cat", "dining table"))


def test_empty_label_list_raises(write_voc):
    with pytest.raises(DatasetError, match=r"label_list\.txt: is empty; write one class name per"):
        VOCDetection(**write_voc([""], labels="\n \n"))


def test_repeated_label_raises(write_voc):
    with pytest.raises(DatasetError, match=r"label_list\.txt: .*'cat' occurs more than once"):
        VOCDetection(**write_voc([""], labels="cat\ndog\ncat\n"))


@pytest.mark.parametrize("name", ["trainval.txt", "label_list.txt"])
def test_missing_list_raises(write_voc, tmp_path, name):
    arguments = write_voc([""])
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match=rf"{name}: cannot be read"):
        VOCDetection(**arguments)


@pytest.mark.parametrize("line", ["JPEGImages/0.png", "my photo.png Annotations/0.xml"])
def test_line_that_is_not_a_pair_raises(write_voc, line):
    message = rf"trainval\.txt: line '{line}' is not 'image path annotation path'"
    with pytest.raises(DatasetError, match=message):
        VOCDetection(**write_voc([""], lines=[line]))


def test_split_without_images_raises(write_voc):
    lines = ["JPEGImages/7.png Annotations/0.xml", "JPEGImages/0.png Annotations/7.xml"]
    with pytest.raises(DatasetError, match=r"trainval\.txt: none of its 2 images can be used"):
        VOCDetection(**write_voc([""], lines=lines))
