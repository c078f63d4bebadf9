"""Untrusted checkpoints execute no code and allocate no more memory than their size."""

import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, RTDETRError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, locate
from rtdetrv2_pytorch.src.nn.presnet import PResNet
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.security.peak_memory import at_most
from tests.tiny import CONFIGS, NETWORK, SMALL_BACKBONE, tiny_config

MB = 1 << 20


class Command:
    """Run a shell command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def evil(folder: Path, kind: str) -> tuple[Path, Path]:
    """Write a checkpoint that runs a command; return it and the file the command creates."""
    ran, path = folder / "ran", folder / "evil.pth"
    content = {
        "model": {"a": torch.ones(1)},
        "config": {"num_classes": 3},
        "class_names": Command(f"touch '{ran}'"),
    }
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path, ran


def train(path: Path, digits: Path, **options: str) -> None:
    DetSolver(tiny_config(path.parent / "out", digits, **options)).fit()


LOADERS = {
    "tuning": lambda path, digits: train(path, digits, tuning=str(path)),
    "resume": lambda path, digits: train(path, digits, resume=str(path)),
    "backbone": lambda path, digits: PResNet(depth=18, pretrained=str(path)),
    "serving": lambda path, digits: open_runtime(path),
    "serving with a configuration": lambda path, digits: load_detector(
        path, config=CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
    ),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "pickle"])
@pytest.mark.parametrize("loader", LOADERS)
def test_code_in_checkpoint_is_not_executed(tmp_path, digits, loader, kind):
    path, ran = evil(tmp_path, kind)
    with pytest.raises(CheckpointError, match="run code from the file"):
        LOADERS[loader](path, digits)
    assert not ran.exists()
    with suppress(RuntimeError):  # a bare pickle is invalid, but its code runs first
        torch.load(path, weights_only=False)
    assert ran.exists()  # confirms that the code runs without protection


def test_code_in_download_is_not_executed_and_leaves_no_file(tmp_path, monkeypatch):
    path, ran = evil(tmp_path, "zip")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("rtdetrv2_pytorch.src.misc.weights.urlopen", lambda *_, **__: Body(path))
    with pytest.raises(CheckpointError, match="run code from the file"):
        locate("https://weights.example/evil.pth")
    assert not ran.exists()
    assert not [f for f in tmp_path.rglob("evil.pth*") if f != path and f.suffix != ".lock"]


class Body:
    """Response of `urlopen`."""

    def __init__(self, path: Path) -> None:
        self.headers = {"Content-Length": str(path.stat().st_size)}
        self._file = path.open("rb")
        self.read = self._file.read

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


# Declared sizes


class Declared:
    """A tensor with a declared shape larger than its storage."""

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (torch.ones(1).untyped_storage(), 0, shape, stride)

    def __reduce__(self):
        storage, *rest = self.arguments
        typed = torch.storage.TypedStorage(
            wrap_storage=storage, dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (typed, *rest, False, {})


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((1 << 28,), (1,)),  # 1 GB
        ((1 << 60,), (1,)),
        ((1 << 40, 2), (0, 0)),  # a few bytes with zero strides
        ((1 << 20,), (1 << 20,)),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_declared_shape_allocates_no_memory(tmp_path, shape, stride, zipped):
    path = tmp_path / "large.pth"
    content = {"model": {"good": torch.ones(3), "bad": Declared(shape, stride)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 4096
    with (
        at_most(64 * MB),
        pytest.raises(CheckpointError, match=r"model\.bad of shape .* not fit|damaged"),
    ):
        load_checkpoint(path)


def test_compressed_archive_is_not_decompressed(tmp_path):
    path, packed = tmp_path / "a.pth", tmp_path / "packed.pth"
    torch.save({"model": {"a": torch.zeros(64 * MB // 4)}}, path)
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < MB
    with (
        at_most(16 * MB),
        pytest.raises(CheckpointError, match="larger when unpacked"),
    ):
        load_checkpoint(packed)


def test_nested_references_are_not_expanded(tmp_path):
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    path = tmp_path / "laughs.pth"
    torch.save({"model": {"a": torch.ones(1)}, "class_names": laughs}, path)
    with at_most(16 * MB), pytest.raises(CheckpointError, match="expanded, it would have"):
        load_checkpoint(path)


def test_recursive_and_deeply_nested_values_are_rejected(tmp_path):
    path = tmp_path / "loop.pth"
    loop: list = []
    loop.append(loop)
    torch.save({"a": torch.ones(1), "b": loop}, path)
    with pytest.raises(CheckpointError, match="contains itself"):
        load_checkpoint(path)
    deep = b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * 100_000 + b"a" * 99_999 + b"s."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", deep)
        archive.writestr("x/version", "3\n")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "tensor", [torch.ones(3).to_sparse(), torch.empty(1 << 40, device="meta")], ids=["sparse", "-"]
)
def test_sparse_and_meta_tensors_are_rejected(tmp_path, tensor):
    path = tmp_path / "odd.pth"
    torch.save({"model": {"a": tensor}}, path)
    with pytest.raises(CheckpointError, match=r"model\.a is not a dense CPU tensor|damaged"):
        load_checkpoint(path)


# Descriptions that do not match the weights


@pytest.fixture(scope="module")
def valid():
    values = merge(
        merge(NETWORK, SMALL_BACKBONE),
        {"num_classes": 3, "eval_spatial_size": [64, 64], "device": "cpu"},
    )
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", **values)
    return {
        "model": cfg.model.state_dict(),
        "config": cfg.yaml_cfg,
        "class_names": ["cat", "dog", "owl"],
        "eval_spatial_size": [64, 64],
    }


def test_valid_checkpoint_loads(tmp_path, valid):
    torch.save(valid, tmp_path / "best.pth")
    _, card = load_detector(tmp_path / "best.pth")
    assert (card.class_names, card.input_size_hw) == (("cat", "dog", "owl"), (64, 64))


NETWORKS = [
    {"HybridEncoder": {"dim_feedforward": 10**9}},
    {"HybridEncoder": {"hidden_dim": 10**6}},
    {"HybridEncoder": {"num_encoder_layers": 10**9}},
    {"RTDETRTransformerv2": {"num_layers": 10**9}},
    {"RTDETRTransformerv2": {"dim_feedforward": 10**12}},
    {"eval_spatial_size": [32 * 10**6, 32 * 10**6]},
    {"PResNet": {"depth": 10**6}},
]


@pytest.mark.parametrize("change", NETWORKS, ids=range(len(NETWORKS)))
def test_network_larger_than_its_weights_is_not_built(tmp_path, valid, change):
    path = tmp_path / "best.pth"
    torch.save({**valid, "config": merge(valid["config"], change)}, path)
    with at_most(300 * MB), pytest.raises(RTDETRError, match=r"best\.pth"):
        load_detector(path)


DESCRIPTIONS = [
    {"class_names": 5},
    {"class_names": "cat"},
    {"class_names": [["cat"], {}, None]},
    {"class_names": {"cat": 1}},
    {"class_names": None, "model_meta": {"classes": [{}]}},
    {"class_names": None, "model_meta": {"classes": 7}},
    {"eval_spatial_size": "64"},
    {"eval_spatial_size": [64]},
    {"eval_spatial_size": [float("inf"), 64]},
    {"eval_spatial_size": [-64, 64]},
    {"eval_spatial_size": [10**9, 10**9]},
    {"thresholds": {"overall": "high"}},
    {"thresholds": {"overall": 0.5, "per_class": [1, 2]}},
    {"thresholds": {"overall": -3.0}},
    {"config": {1: 2}},
    {"config": {"train_dataloader": 3, "model": "os.system"}},
    {"config": {"__include__": ["/etc/hostname"]}},
    {"config": {"val_dataloader": {"dataset": {"transforms": {"ops": [5, "x", {}]}}}}},
    {"config": {"val_dataloader": {"dataset": {"transforms": {"ops": 5}}}}},
    {
        "config": None,
        "model_files": {"config": {"content": "a: !!python/object/apply:os.system []"}},
    },
    {"config": None, "model_files": {"config": {"content": "[" * 9999}}},
    {"model": 5},
    {"model": {1: torch.ones(1)}},
    {"model": {}, "ema": {"module": [1]}},
]


@pytest.mark.parametrize("change", DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_invalid_description_raises_our_error(tmp_path, valid, change):
    path = tmp_path / "best.pth"
    torch.save({**valid, **change}, path)
    with at_most(300 * MB), pytest.raises(RTDETRError):
        load_detector(path)
