"""The generated digits data set."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rtdetrv2_pytorch.src.data import digits
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.digits import IMAGE_WH, _render, make_digits_dataset


def files_of(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def annotations(folder, split):
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


@pytest.fixture
def small(tmp_path):
    return make_digits_dataset(tmp_path / "small", num_train=3, num_val=2)


def test_same_seed_writes_same_bytes(small, tmp_path):
    again = make_digits_dataset(tmp_path / "again", num_train=3, num_val=2)
    one, other = files_of(small), files_of(again)
    assert sorted(one) == sorted(other)
    assert len(one) == 3 + 2 + 2 + 1
    for name, path in one.items():
        assert path.read_bytes() == other[name].read_bytes(), name


def test_other_seed_writes_other_images(small, tmp_path):
    other = make_digits_dataset(tmp_path / "other", num_train=3, num_val=2, seed=1)
    assert annotations(other, "train") != annotations(small, "train")
    assert (other / "val/00001.jpg").read_bytes() != (small / "val/00001.jpg").read_bytes()


def test_class_weights_change_the_training_split_only(tmp_path):
    weights = [100, *[1] * 8, 0]
    folder = make_digits_dataset(tmp_path, num_train=60, num_val=60, class_weights=weights)
    counts = {}
    for split in ("train", "val"):
        content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        labels = [each["category_id"] for each in content["annotations"]]
        counts[split] = [labels.count(digit) for digit in range(10)]
    assert counts["train"][0] > 5 * sum(counts["train"][1:]) > 0
    assert counts["train"][9] == 0
    assert min(counts["val"]) > 5
    make_digits_dataset(tmp_path, num_train=60, num_val=60, class_weights=weights[::-1])
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert 0 not in [each["category_id"] for each in content["annotations"]]


def test_longer_set_starts_with_shorter_one(small, digits):
    three = [a for a in annotations(digits, "train")["annotations"] if a["image_id"] <= 3]
    assert three == annotations(small, "train")["annotations"]


def test_annotations_describe_files(digits):
    for split, count in (("train", 6), ("val", 4)):
        content = annotations(digits, split)
        assert [c["name"] for c in content["categories"]] == list("0123456789")
        assert len(content["images"]) == count
        for image in content["images"]:
            with Image.open(digits / split / image["file_name"]) as file:
                assert file.size == (image["width"], image["height"]) == IMAGE_WH
        assert [a["id"] for a in content["annotations"]] == list(
            range(1, len(content["annotations"]) + 1)
        )
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            assert entry["area"] == width * height > 0
            assert x >= 0
            assert y >= 0
            assert x + width <= IMAGE_WH[0]
            assert y + height <= IMAGE_WH[1]
            assert 1 <= entry["image_id"] <= count
        data = CocoDetection(
            img_folder=str(digits / split),
            ann_file=str(digits / "annotations" / f"instances_{split}.json"),
            transforms=None,
        )
        assert len(data) == count
        assert data.findings.counts() == {}


@pytest.mark.parametrize(("split", "stream", "count"), [("train", 0, 6), ("val", 1, 4)])
def test_splits_use_different_scans(digits, split, stream, count):
    # Every fifth scan belongs to validation. Rendering with the index of the scan in place of its
    # digit gives the same boxes, so it shows which scans were used.
    scans = load_digits()
    number = np.arange(len(scans.images))
    allowed = number[number % 5 == 0] if split == "val" else number[number % 5 != 0]
    rng = np.random.default_rng([0, stream])
    rendered = []
    for image_id in range(1, count + 1):
        _, boxes = _render(rng, scans.images, number, allowed)
        rendered += [(image_id, box, int(scans.target[scan])) for box, scan in boxes]
    written = annotations(digits, split)["annotations"]
    assert rendered == [(a["image_id"], a["bbox"], a["category_id"]) for a in written]


def test_boxes_fit_the_ink():
    scans = load_digits()
    rng = np.random.default_rng(3)
    number = np.arange(len(scans.images))
    checked = 0
    for _ in range(15):
        pixels, boxes = _render(rng, scans.images, scans.target, number)
        is_free = np.ones(pixels.shape[:2], dtype=bool)
        for (x, y, width, height), _ in boxes:
            is_free[y : y + height, x : x + width] = False
        for (x, y, width, height), _ in boxes:
            around = np.zeros_like(is_free)
            around[max(0, y - 4) : y + height + 4, max(0, x - 4) : x + width + 4] = True
            background = pixels[around & is_free].mean(axis=0)
            inside = pixels[y : y + height, x : x + width] - background
            strength = np.abs(inside).sum(axis=2)
            is_ink = strength > 0.4 * np.percentile(strength, 95)
            assert 0.1 < is_ink.mean() < 0.95
            edge = 4
            for strip in (is_ink[:edge], is_ink[-edge:], is_ink[:, :edge], is_ink[:, -edge:]):
                assert strip.any()
            checked += 1
    assert checked > 30


def test_digits_overlap_at_most_ten_percent():
    scans = load_digits()
    rng = np.random.default_rng(4)
    number = np.arange(len(scans.images))
    counts = set()
    for _ in range(30):
        _, boxes = _render(rng, scans.images, scans.target, number)
        counts.add(len(boxes))
        for i, ((x, y, w, h), _) in enumerate(boxes):
            for (ox, oy, ow, oh), _ in boxes[:i]:
                common = max(0, min(x + w, ox + ow) - max(x, ox)) * max(
                    0, min(y + h, oy + oh) - max(y, oy)
                )
                assert common <= 0.1 * min(w * h, ow * oh)
    assert {1, 2, 3, 4} <= counts <= set(range(7))


def times(folder):
    return {name: path.stat().st_mtime_ns for name, path in files_of(folder).items()}


def test_complete_set_is_reused(small):
    before = times(small)
    assert make_digits_dataset(small, num_train=3, num_val=2) == small
    assert times(small) == before


def test_incomplete_set_is_rewritten(small):
    expected = {name: path.read_bytes() for name, path in files_of(small).items()}
    (small / "complete.json").unlink()
    (small / "annotations/instances_val.json").write_text("{")
    (small / "train/00002.jpg").unlink()
    make_digits_dataset(small, num_train=3, num_val=2)
    assert {name: path.read_bytes() for name, path in files_of(small).items()} == expected


def test_interrupted_rewrite_is_incomplete(small, monkeypatch):
    expected = {name: path.read_bytes() for name, path in files_of(small).items()}
    write = digits._write_split

    def interrupted(folder, split, *settings):
        write(folder, split, *settings)
        if split == "train":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(digits, "_write_split", interrupted)
        make_digits_dataset(small, num_train=5, num_val=2)
    make_digits_dataset(small, num_train=3, num_val=2)
    assert {name: small.joinpath(name).read_bytes() for name in expected} == expected


@pytest.mark.parametrize("marker", ["", "{", "[]"])
def test_truncated_marker_is_invalid(small, marker):
    (small / "complete.json").write_text(marker)
    make_digits_dataset(small, num_train=3, num_val=2)
    assert json.loads((small / "complete.json").read_text())["num_train"] == 3


@pytest.mark.parametrize("wanted", [{"num_train": 4}, {"num_val": 1}, {"seed": 5}])
def test_other_settings_rewrite_the_set(small, wanted):
    settings = {"num_train": 3, "num_val": 2, **wanted}
    make_digits_dataset(small, **settings)
    assert len(annotations(small, "train")["images"]) == settings["num_train"]
    assert len(annotations(small, "val")["images"]) == settings["num_val"]
    before = times(small)
    make_digits_dataset(small, **settings)
    assert times(small) == before


def test_concurrent_callers_write_once(tmp_path, monkeypatch):
    written = []
    write = digits._write_split
    monkeypatch.setattr(
        digits, "_write_split", lambda *args: (written.append(args[1]), write(*args))
    )

    def make(_):
        folder = make_digits_dataset(tmp_path / "set", num_train=2, num_val=1)
        return (folder / "complete.json").is_file()

    with ThreadPoolExecutor(4) as pool:  # each has its own handle of the lock, like processes
        assert list(pool.map(make, range(4))) == [True] * 4
    assert written == ["train", "val"]
