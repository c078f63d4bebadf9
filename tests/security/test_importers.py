"""Untrusted directories: imports stay inside and use bounded memory."""

import os
import struct
import zlib

import pytest
from PIL import Image

from rtdetrv2_pytorch.src.misc.errors import DatasetError
from supervisely_integration.local.emulator.store import Store, StoreError
from supervisely_integration.local.importers.into_store import import_folder
from supervisely_integration.local.importers.items import read_items
from tests.security.peak_memory import at_most

MB = 1 << 20


def picture(path, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (1, 2, 3)).save(path)


def bomb(path, side):
    """Write a small PNG that declares side x side pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * min(side, 1000)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture
def yolo(tmp_path):
    folder = tmp_path / "data"
    picture(folder / "images" / "train" / "a.png")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("names: [cat]\ntrain: images/train\n")
    return folder


@pytest.fixture
def outside(tmp_path):
    picture(tmp_path / "private" / "images" / "secret.png")
    (tmp_path / "private" / "secret.txt").write_text("a secret")
    return tmp_path / "private"


def test_valid_directory_is_read(yolo):
    assert [item.name for item in read_items(yolo).items] == ["a.png"]


def test_link_inside_directory_is_followed(yolo):
    (yolo / "images" / "train" / "b.png").symlink_to("a.png")
    assert [item.name for item in read_items(yolo).items] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("link", "target", "kind"),
    [
        ("images/train/b.png", "images/secret.png", "outside_folder"),
        ("labels/train/b.txt", "secret.txt", "link_outside"),
        ("classes.txt", "secret.txt", "link_outside"),
        ("images/train/more", "images", "outside_folder"),
    ],
)
def test_links_to_outside_give_images_only_and_are_named(yolo, outside, link, target, kind):
    (yolo / link).symlink_to(outside / target)
    source = read_items(yolo)
    names = [item.name for item in source.items]
    images = {"images/train/b.png": ["b.png"], "images/train/more": ["secret.png"]}
    assert names == ["a.png", *images.get(link, [])]
    (finding,) = source.findings
    assert (finding.kind_name, finding.where) == (kind, link)
    assert str(outside / target) in finding.detail


def test_linked_annotations_outside_are_not_read(yolo, outside):
    """Their image is skipped, as it would be trained as background."""
    (yolo / "labels/train/a.txt").unlink()
    (yolo / "labels/train/a.txt").symlink_to(outside / "secret.txt")
    source = read_items(yolo)
    assert list(source.items) == []
    kinds = [f.kind_name for f in source.findings]
    assert kinds == ["link_outside", "annotation_malformed"]


def test_cyclic_and_broken_links_are_skipped(yolo):
    (yolo / "images" / "again").symlink_to(yolo)
    (yolo / "images" / "above").symlink_to(yolo.parent)
    (yolo / "images" / "train" / "b.png").symlink_to("nowhere.png")
    source = read_items(yolo)
    assert [item.name for item in source.items] == ["a.png"]
    (finding,) = source.findings
    assert (finding.kind_name, finding.detail) == ("dead_link", "links to nowhere.png")


def test_pipe_does_not_block(yolo):
    os.mkfifo(yolo / "images" / "train" / "b.png")
    source = read_items(yolo)
    assert [item.name for item in source.items] == ["a.png"]
    assert [f.kind_name for f in source.findings] == ["not_a_file"]


@pytest.mark.parametrize("line", ["../../private/images/secret.png", "{outside}/images/secret.png"])
def test_image_list_cannot_reference_outside(yolo, outside, line):
    (yolo / "train.txt").write_text(f"images/train/a.png\n{line.format(outside=outside)}\n")
    (yolo / "data.yaml").write_text("names: [cat]\ntrain: train.txt\n")
    source = read_items(yolo)
    assert [item.name for item in source.items] == ["a.png"]
    assert [f.kind.name for f in source.findings] == ["path_outside_folder"]


def test_voc_list_cannot_reference_outside(tmp_path, outside):
    folder = tmp_path / "data"
    picture(folder / "a.png")
    (folder / "a.xml").write_text("<annotation/>")
    lines = ["a.png a.xml", "../private/images/secret.png a.xml", "a.png ../private/secret.xml"]
    (folder / "train.txt").write_text("\n".join(lines))
    source = read_items(folder, "voc")
    assert [item.name for item in source.items] == ["a.png"]
    assert {f.kind.name for f in source.findings} == {"path_outside_folder"}


def test_xml_entities_are_not_expanded(tmp_path, outside):
    folder = tmp_path / "data"
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    laughs = f'<!DOCTYPE x [<!ENTITY a0 "ha">{entities}]><annotation><o>&a11;</o></annotation>'
    secret = outside / "secret.txt"
    reads = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{secret}">]><annotation><object><name>&s;</name></object></annotation>'
    deep = "<a>" * 100_000
    for name, text in {"laughs": laughs, "reads": reads, "deep": deep}.items():
        picture(folder / f"{name}.png")
        (folder / f"{name}.xml").write_text(text)
    (folder / "train.txt").write_text(
        "\n".join(f"{n}.png {n}.xml" for n in ("laughs", "reads", "deep"))
    )
    with at_most(200 * MB):  # the parser stops at 8 MB of text; the full expansion has 200 GB
        source = read_items(folder, "voc")
        assert list(source.items) == []
    assert [f.kind.name for f in source.findings] == ["annotation_malformed"] * 3


def test_decompression_bomb_is_skipped(yolo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as importing the SDK does
    bomb(yolo / "images" / "train" / "bomb.png", 60_000)
    with at_most(64 * MB):
        source = read_items(yolo)
        assert [item.name for item in source.items] == ["a.png"]
    assert [f.kind.name for f in source.findings] == ["bomb"]


def test_yaml_aliases_are_not_expanded(yolo):
    laughs = "a0: &a0 [ha]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
    )
    (yolo / "data.yaml").write_text(f"{laughs}names: [*a29]\n")
    with at_most(64 * MB), pytest.raises(DatasetError):
        read_items(yolo, "yolo")


def test_names_with_markup_and_paths_are_stored_as_text(tmp_path, yolo):
    evil = "../../<img src=x onerror=hack()>"
    (yolo / "data.yaml").write_text(f"names: ['{evil}']\ntrain: images/train\n")
    store = Store(tmp_path / "root")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    report = import_folder(store, yolo, name=evil)
    assert store.projects.info(report.project_id)["name"] == evil
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(store.root) for path in new)


# Team Files; the instance creates tar archives and extracts none


def test_team_files_paths_stay_inside(tmp_path):
    store = Store(tmp_path / "root")
    for path in ("/../a", "a/../../b", "/a\0b", "", "/"):
        try:
            store.files.put_path(1, path, b"x")
        except StoreError:
            continue
    names = [entry["path"] for entry in store.files.entries(1, "/")]
    assert all(".." not in name.split("/") for name in names)
