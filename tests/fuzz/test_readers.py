"""Randomly damaged files are read or raise one of our errors.

The damage is seeded and the same in each run.
"""

import io
import json
import random

import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.coco_dataset import read_coco
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.findings import Findings
from rtdetrv2_pytorch.src.data.voc_dataset import VOCDetection
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, model_state
from supervisely_integration.local.importers.items import read_items
from tests.properties.test_importers import WRITERS
from tests.tiny import CONFIGS, NETWORK

ODD = [
    *(None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "x", "\0", "../..", "é"),
    *([], {}, [[]], {"a": 1}, [1, 2, 3], {"type": "eval"}, [None], "9" * 5000),
]


def damage_bytes(data: bytes, numbers: random.Random) -> bytes:
    """Change, remove or duplicate bytes, or truncate the data."""
    out = bytearray(data)
    for _ in range(numbers.randint(1, 6)):
        at, length = numbers.randrange(len(out) + 1), numbers.choice((1, 1, 2, 8, 64))
        kind = numbers.randrange(5)
        if kind == 0:
            out[at : at + length] = numbers.randbytes(length)
        elif kind == 1:
            del out[at : at + length]
        elif kind == 2:
            out[at:at] = out[at : at + length]
        elif kind == 3:
            out[at : at + 1] = numbers.choice((b"{", b"[", b'"', b":", b"-", b"\0", b"&a ", b"*a"))
        elif numbers.random() < 0.3:
            del out[at:]
    return bytes(out)


def damage_value(value, numbers: random.Random):
    """Replace, remove or duplicate one value of a nested structure."""
    is_branch = isinstance(value, dict | list) and value
    if not is_branch or numbers.random() < 0.1:
        return numbers.choice(ODD)
    if isinstance(value, dict):
        key = numbers.choice(list(value))
        kind = numbers.random()
        if kind < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.25:
            return {**value, numbers.choice(("", "x", "type", "id", "__include__")): value[key]}
        return {**value, key: damage_value(value[key], numbers)}
    at = numbers.randrange(len(value))
    if numbers.random() < 0.2:
        return [*value, value[at]]
    return [*value[:at], damage_value(value[at], numbers), *value[at + 1 :]]


def run_cases(action, cases: int, seed: int) -> tuple[int, int]:
    """Run `cases` cases; return the numbers of accepted and rejected ones."""
    accepted, rejected = 0, 0
    for number in range(cases):
        numbers = random.Random(f"{seed} {number}")
        try:
            action(numbers)
            accepted += 1
        except RTDETRError as error:
            assert str(error).strip()
            rejected += 1
        except Exception as error:
            raise AssertionError(f"case {number} of {seed}") from error
    return accepted, rejected


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_digits_dataset(tmp_path_factory.mktemp("digits"), num_train=3, num_val=2)


@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_json_annotations(coco, tmp_path, kind):
    data = (coco / "annotations" / "instances_train.json").read_bytes()
    content, path = json.loads(data), tmp_path / "a.json"

    def action(numbers):
        if kind == "bytes":
            path.write_bytes(damage_bytes(data, numbers))
        else:
            damaged = content
            for _ in range(numbers.randint(1, 4)):
                damaged = damage_value(damaged, numbers)
            path.write_text(json.dumps(damaged))
        read_coco(path, coco / "train", Findings(), None)

    accepted, rejected = run_cases(action, 300, 1)
    assert rejected > 20
    assert accepted > (0 if kind == "bytes" else 20)


@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_yaml_configurations(tmp_path, kind):
    plain = YAMLConfig(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml").yaml_cfg
    data, path = yaml.safe_dump(plain).encode(), tmp_path / "a.yml"

    def action(numbers):
        if kind == "bytes":
            path.write_bytes(damage_bytes(data, numbers))
            YAMLConfig(path)
        else:
            damaged = plain
            for _ in range(numbers.randint(1, 3)):
                damaged = damage_value(damaged, numbers)
            if not isinstance(damaged, dict):
                damaged = {"x": damaged}
            YAMLConfig.from_values(damaged, name="a.yml")

    accepted, rejected = run_cases(action, 60 if kind == "bytes" else 300, 2)
    assert rejected > 20
    assert accepted >= 0


@pytest.fixture(scope="module")
def content():
    values = merge(NETWORK, {"num_classes": 3, "eval_spatial_size": [64, 64], "device": "cpu"})
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", **values)
    return {
        "model": {k: v for k, v in cfg.model.state_dict().items() if v.numel() < 2000},
        "config": cfg.yaml_cfg,
        "class_names": ["cat", "dog", "owl"],
        "eval_spatial_size": [64, 64],
        "thresholds": {"overall": 0.4, "per_class": {"cat": 0.5}},
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_with_damaged_bytes(content, tmp_path, zipped):
    small = {**content, "model": {"a": torch.arange(6.0), "b": torch.ones(2, 3)}}
    buffer, path = io.BytesIO(), tmp_path / "a.pth"
    torch.save(small, buffer, _use_new_zipfile_serialization=zipped)

    def action(numbers):
        path.write_bytes(damage_bytes(buffer.getvalue(), numbers))
        model_state(load_checkpoint(path))

    _, rejected = run_cases(action, 300, 3)
    assert rejected > 100


def test_checkpoints_with_damaged_values(content, tmp_path):
    path = tmp_path / "a.pth"
    described = {key: value for key, value in content.items() if key != "model"}

    def action(numbers):
        damaged = described
        for _ in range(numbers.randint(1, 3)):
            damaged = damage_value(damaged, numbers)
        damaged = damaged if isinstance(damaged, dict) else {"config": damaged}
        torch.save({**damaged, "model": content["model"]}, path)
        load_detector(path)  # incomplete weights: each case is rejected

    assert run_cases(action, 60, 4) == (0, 60)


PROJECT = {
    "0.png": ((20, 10), [("cat", 1, 1, 9, 9), ("big dog", 3, 2, 30, 9)]),
    "1.png": ((12, 30), [("köter", 0, 0, 12, 30)]),
}


@pytest.mark.parametrize("format", WRITERS)
def test_import_directories(tmp_path, format):
    folder = tmp_path / "data"
    WRITERS[format](folder, PROJECT)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def action(numbers):
        damaged_files = numbers.sample(sorted(files), numbers.randint(1, 2))
        for path in damaged_files:
            path.write_bytes(damage_bytes(files[path], numbers))
        try:
            source = read_items(folder, format)
            items = list(source.items)
        finally:
            for path in damaged_files:
                path.write_bytes(files[path])
        findings = source.findings
        assert len(items) + findings.lost_images == findings.given_images
        objects = sum(item.num_objects for item in items)
        assert objects + findings.lost_objects == findings.given_objects

    accepted, _ = run_cases(action, 150, 5)
    assert accepted > 50


def test_voc_dataset(tmp_path):
    folder = tmp_path / "data"
    WRITERS["voc"](folder, PROJECT)
    lines = [f"JPEGImages/{i}.png Annotations/{i}.xml" for i in (0, 1)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "label_list.txt").write_text("cat\nbig dog\nköter\n")
    texts = [p for p in folder.rglob("*") if p.suffix in (".txt", ".xml")]
    files = {path: path.read_bytes() for path in texts}

    def action(numbers):
        path = numbers.choice(sorted(files))
        path.write_bytes(damage_bytes(files[path], numbers))
        try:
            VOCDetection(root=str(folder), ann_file="train.txt", label_file="label_list.txt")
        finally:
            path.write_bytes(files[path])

    accepted, rejected = run_cases(action, 150, 6)
    assert accepted + rejected == 150
