"""Checkpoint files: atomic writes, content and disk space."""

import re
import resource
from types import SimpleNamespace

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, model_state
from rtdetrv2_pytorch.src.solver import checkpointing
from rtdetrv2_pytorch.src.solver.checkpointing import CheckpointWriter, write_atomically


def writer(folder, **options):
    defaults = {"checkpoint_freq": 0, "keep_last": 0, "save_optimizer": False, "save_ema": False}
    return CheckpointWriter(folder, **(defaults | options))


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def state():
    return {
        "model": {"w": torch.tensor([1.0])},
        "ema": {"module": {"w": torch.tensor([2.0])}, "updates": 5},
        "optimizer": {"state": {}},
        "lr_scheduler": {},
        "lr_warmup_scheduler": {},
        "scaler": {},
        "progress": {"epoch": 3},
        "class_names": ["a"],
    }


def test_failed_write_keeps_the_old_file_and_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    write_atomically({"x": 1}, path)

    def full_disk(content, file):
        file.write(b"partial")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing.torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left.*free space or choose another output"):
        write_atomically({"x": 2}, path)
    monkeypatch.undo()
    assert load_checkpoint(path) == {"x": 1}
    assert listing(tmp_path) == ["last.pth"]


def test_file_is_renamed_only_when_complete(tmp_path, monkeypatch):
    path, seen, save = tmp_path / "last.pth", [], torch.save

    def watching(content, file):
        save(content, file)
        seen.append(listing(tmp_path))

    monkeypatch.setattr(checkpointing.torch, "save", watching)
    write_atomically({"x": 1}, path)
    ((name,),) = seen
    assert re.fullmatch(r"\.last\.pth\.\d+-[0-9a-f]{8}\.partial", name)
    assert listing(tmp_path) == ["last.pth"]


def test_last_holds_the_complete_state_and_best_the_evaluated_weights(tmp_path):
    files = writer(tmp_path)
    files.save_last(state())
    files.save_best(state())
    assert set(load_checkpoint(tmp_path / "last.pth")) == set(state())
    best = load_checkpoint(tmp_path / "best.pth")
    assert set(best) == {"model", "class_names"}
    assert model_state(best)["w"].item() == 2.0  # the EMA weights


def test_save_ema_adds_the_raw_weights(tmp_path):
    writer(tmp_path, save_ema=True).save_best(state())
    best = load_checkpoint(tmp_path / "best.pth")
    assert best["model"]["w"].item() == 1.0
    assert model_state(best)["w"].item() == 2.0


def test_save_optimizer_makes_best_resumable(tmp_path):
    writer(tmp_path, save_optimizer=True, save_ema=True).save_best(state())
    assert set(load_checkpoint(tmp_path / "best.pth")) == set(state())


def test_without_ema_best_holds_the_raw_weights(tmp_path):
    writer(tmp_path).save_best(state() | {"ema": None})
    assert model_state(load_checkpoint(tmp_path / "best.pth"))["w"].item() == 1.0


@pytest.mark.parametrize(
    ("freq", "keep", "expected"),
    [
        (0, 0, []),
        (2, 0, ["checkpoint0001", "checkpoint0003", "checkpoint0005"]),
        (1, 2, ["checkpoint0004", "checkpoint0005"]),
        (3, 5, ["checkpoint0002", "checkpoint0005"]),
    ],
)
def test_numbered_files_follow_checkpoint_freq_and_keep_last(tmp_path, freq, keep, expected):
    files = writer(tmp_path, checkpoint_freq=freq, keep_last=keep)
    for epoch in range(6):
        files.save_numbered(state(), epoch)
    assert [p.stem for p in files.numbered()] == expected
    assert list(files.files()) == expected


def test_insufficient_disk_space_names_remedies(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10 * 2**20)
    monkeypatch.setattr(checkpointing.shutil, "disk_usage", lambda folder: usage)
    model = torch.nn.Linear(1000, 1000)  # 4 MB, so 2 * 16 MB for last.pth
    with pytest.raises(CheckpointError, match=r"0.0 GiB are free.*keep fewer files \(checkpoint_"):
        writer(tmp_path, checkpoint_freq=1).check_space(model, epochs=100)
    usage.free = 2**30
    writer(tmp_path, checkpoint_freq=1).check_space(model, epochs=100)
    assert listing(tmp_path) == []


def test_required_disk_space_counts_all_files(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(checkpointing.shutil, "disk_usage", lambda folder: usage)
    model = torch.nn.Linear(1024, 1024, bias=False)  # 4 MiB
    needed = {  # last twice (model, EMA, two moments), best twice, numbered
        (0, 0): 2 * 16 + 2 * 4,
        (1, 0): 2 * 16 + 2 * 4 + 50 * 4,
        (1, 3): 2 * 16 + 2 * 4 + 4 * 4,
    }
    for (freq, keep), mib in needed.items():
        files = writer(tmp_path, checkpoint_freq=freq, keep_last=keep)
        usage.free = mib * 2**20
        files.check_space(model, epochs=50)
        usage.free -= 1
        with pytest.raises(CheckpointError):
            files.check_space(model, epochs=50)


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/out: cannot be written .*choose another"):
        writer(tmp_path / "file" / "out").check_space(torch.nn.Linear(1, 1), epochs=1)


def test_partial_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".best.pth.7-ab.partial").write_bytes(b"partial")
    (tmp_path / "last.pth").write_bytes(b"complete")
    writer(tmp_path).check_space(torch.nn.Linear(1, 1), epochs=1)
    assert listing(tmp_path) == ["last.pth"]


def test_file_size_limit_keeps_the_old_file(tmp_path):
    """A real write error in the middle of the file."""
    path = tmp_path / "last.pth"
    write_atomically({"x": torch.zeros(10)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written.*Existing checkpoints are"):
            write_atomically({"x": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert listing(tmp_path) == ["last.pth"]
