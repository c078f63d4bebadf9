"""Caches of decoded images return the same pixels and decode less often."""

import os
import pickle
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data import dataset as dataset_module
from rtdetrv2_pytorch.src.data.augment.geometric import Resize
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.images import image_cache
from rtdetrv2_pytorch.src.data.images.image_cache import DiskCache, RamCache
from rtdetrv2_pytorch.src.data.loading.collate import BatchImageCollateFunction
from rtdetrv2_pytorch.src.data.loading.loader import DataLoader
from rtdetrv2_pytorch.src.misc import resources

IMAGE_BYTES = 30 * 40 * 3  # bytes of an image of `write_coco`


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Provides an empty cache directory and enough memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(image_cache, "available_memory", lambda: 100 * IMAGE_BYTES)
    monkeypatch.setattr(RamCache, "_alive", set())


@pytest.fixture
def decoded(monkeypatch):
    """Lists the names of decoded files."""
    names = []
    read = dataset_module.read_rgb

    def counting(path, size_wh, **options):
        names.append(path.name)
        return read(path, size_wh, **options)

    monkeypatch.setattr(dataset_module, "read_rgb", counting)
    return names


def images(*names, size=(40, 30)):
    sized = {"width": size[0], "height": size[1]} if size else {}
    return [{"id": i, "file_name": name, **sized} for i, name in enumerate(names, start=1)]


def items_of(loader, epochs=2):
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        yield from loader


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_augmented_batches_are_equal(digits, training_pipeline, cache, workers):
    training_pipeline.ops[5] = Resize(size=[64, 64])

    def loader(kind, num_workers):
        data = CocoDetection(
            img_folder=str(digits / "train"),
            ann_file=str(digits / "annotations/instances_train.json"),
            transforms=training_pipeline,
            unreadable="replace",
            cache=kind,
        )
        return DataLoader(
            dataset=data, batch_size=2, shuffle=True, num_workers=num_workers,
            collate_fn=BatchImageCollateFunction(), seed=3,
        )  # fmt: skip

    plain, cached = loader("none", 0), loader(cache, workers)
    for (image, targets), (other, others) in zip(
        items_of(plain, 3), items_of(cached, 3), strict=True
    ):
        assert torch.equal(image, other)
        for target, other_target in zip(targets, others, strict=True):
            assert all(torch.equal(target[k], other_target[k]) for k in target)
    if cache == "ram":  # workers and main process share it
        assert cached.dataset.cache.unfilled_bytes() == 0


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_files_are_decoded_once_and_results_are_copies(write_coco, decoded, cache):
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png"), cache=cache))
    first = data[0][0].clone()
    data[0][0].zero_()
    assert torch.equal(data[0][0], first)
    data[1]
    assert decoded == ["a.png", "b.png"]


def test_ram_cache_stores_images_that_fit_and_warns(write_coco, decoded, caplog, monkeypatch):
    monkeypatch.setattr(
        image_cache, "available_memory", lambda: int(2.6 * IMAGE_BYTES)
    )  # 80 % are 2.08 images
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png", "c.png"), cache="ram"))
    for _ in range(2):
        [data[i] for i in range(3)]
    assert decoded == ["a.png", "b.png", "c.png", "c.png"]
    assert "2 of 3 images are cached" in caplog.text


def test_images_without_size_are_not_cached_in_ram(write_coco, decoded, caplog):
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png", size=None), cache="ram"))
    data[0], data[0]
    assert decoded == ["a.png", "a.png"]
    assert "0 of 2 images are cached" in caplog.text
    assert "2 have no valid size in the annotations" in caplog.text


@pytest.mark.parametrize("side", [10**9, 2**31 - 1])  # the square of the second overflows in bytes
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_implausible_size_reserves_no_memory(write_coco, decoded, cache, side):
    content = images("a.png", "b.png")
    content[0] |= {"width": side, "height": side}
    data = CocoDetection(**write_coco([{}], content, cache=cache))
    assert [data[0], data[0]] == [None, None]  # skipped
    data[1], data[1]
    assert decoded == ["a.png", "a.png", "b.png"]


def test_failed_reservation_disables_ram_cache(caplog, monkeypatch):
    monkeypatch.setattr(image_cache, "available_memory", lambda: 2**40)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    try:
        cache = RamCache(Sized([(10_000, 10_000)] * 10), Path("images"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "cache: ram: cannot reserve 2.79 GiB" in caplog.text
    assert "images are not cached. Raise the limit, or set cache: disk" in caplog.text
    pixels = np.zeros((3, 4, 3), np.uint8)
    assert cache.get(0, Path("a.png"), lambda: pixels) is pixels
    assert cache.unfilled_bytes() == 0


def test_reservations_of_other_caches_are_subtracted(write_coco, monkeypatch):
    monkeypatch.setattr(image_cache, "available_memory", lambda: 4 * IMAGE_BYTES)
    data = [CocoDetection(**write_coco([{}], images("a.png", "b.png"), cache="ram")) for _ in "12"]
    # 80 % of the memory of 4 images hold 2 images; of the remaining 2, 1.
    assert [list(d.cache._is_cached) for d in data] == [[True, True], [True, False]]
    data[0][0]
    assert data[0].cache.unfilled_bytes() == IMAGE_BYTES


def test_ranks_divide_memory(write_coco, monkeypatch):
    monkeypatch.setattr(image_cache, "available_memory", lambda: 4 * IMAGE_BYTES)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png"), cache="ram"))
    assert list(data.cache._is_cached) == [True, False]


def test_spawned_workers_decode_and_warn(write_coco, decoded, caplog):
    data = CocoDetection(**write_coco([{}], images("a.png"), cache="ram"))
    data[0]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[0][0], data[0][0])
    assert decoded == ["a.png", "a.png"]
    assert "shared with forked workers only" in caplog.text


def test_disk_cache_is_reused_by_next_run(write_coco, decoded):
    arguments = write_coco([{}], images("a.png", "b.png"), cache="disk")
    expected = CocoDetection(**arguments)[0][0]
    decoded.clear()
    assert torch.equal(CocoDetection(**arguments)[0][0], expected)
    assert decoded == []


def change_pixels(path):
    shutil.copy(path.with_name("b.png"), path)


def touch(path):
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [change_pixels, touch])
def test_changed_file_replaces_cache_file(write_coco, decoded, tmp_path, change):
    arguments = write_coco([{}], images("a.png", "b.png"), cache="disk")
    data = CocoDetection(**arguments)
    data[0]
    change(tmp_path / "images" / "a.png")
    expected = CocoDetection(**{**arguments, "cache": "none"})[0][0]
    decoded.clear()
    assert torch.equal(data[0][0], expected)
    data[0]
    assert decoded == ["a.png"]
    assert len(list((tmp_path / "caches").rglob("*.pixels"))) == 1


@pytest.mark.parametrize("length", [0, 10, 24, 25, IMAGE_BYTES])
def test_damaged_cache_file_is_decoded_again(write_coco, decoded, tmp_path, length):
    data = CocoDetection(**write_coco([{}], images("a.png"), cache="disk"))
    expected = data[0][0]
    [file] = (tmp_path / "caches").rglob("*.pixels")
    file.write_bytes(file.read_bytes()[:length])
    assert torch.equal(data[0][0], expected)
    assert decoded == ["a.png", "a.png"]
    assert file.stat().st_size == 24 + IMAGE_BYTES


def test_disk_cache_stores_images_that_fit(write_coco, decoded, caplog, monkeypatch, tmp_path):
    arguments = write_coco([{}], images("a.png", "b.png", "c.png"), cache="disk")
    monkeypatch.setattr(
        image_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(1.3 * IMAGE_BYTES))
    )
    first = CocoDetection(**arguments)
    [first[i] for i in range(3)]
    assert "1 of 3 images are cached" in caplog.text
    assert f"caches of all data sets: rm -r {tmp_path}/caches/rtdetrv2/images" in caplog.text
    decoded.clear()
    # The existing file needs no more space, so one more fits.
    second = CocoDetection(**arguments)
    for _ in range(2):
        [second[i] for i in range(3)]
    assert decoded == ["b.png", "c.png", "c.png"]


def test_full_disk_disables_disk_cache(write_coco, decoded, caplog, monkeypatch, tmp_path):
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png"), cache="disk"))

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_cache.Path, "replace", full)
    for _ in range(2):
        data[0], data[1]
    assert decoded == ["a.png", "b.png"] * 2
    assert caplog.text.count("no more images are cached") == 1
    assert not list((tmp_path / "caches").rglob("*.p*l*"))


def test_cache_folder_that_cannot_be_created_is_logged(write_coco, decoded, caplog, tmp_path):
    (tmp_path / "caches").write_text("a file")
    data = CocoDetection(**write_coco([{}], images("a.png"), cache="disk"))
    data[0], data[0]
    assert decoded == ["a.png", "a.png"]
    assert "images are not cached" in caplog.text


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_unreadable_images_stay_unreadable(write_coco, caplog, tmp_path, cache):
    data = CocoDetection(**write_coco([{}], images("a.png", "b.png"), cache=cache))
    (tmp_path / "images" / "a.png").write_bytes(b"not an image")
    assert (data[0], data[0]) == (None, None)
    assert data.new_unreadable() == ["a.png"]


def test_file_name_depends_on_declared_size(tmp_path):
    path = tmp_path / "a.png"
    one, other = (_disk_cache(size, tmp_path) for size in ((40, 30), (30, 40)))
    assert one._file(0, path) != other._file(0, path)
    assert one._file(0, path) == _disk_cache((40, 30), tmp_path)._file(0, path)


class Sized:
    """Annotations with sizes only."""

    def __init__(self, sizes_wh):
        self.sizes_wh = np.array(sizes_wh)

    def __len__(self):
        return len(self.sizes_wh)


def _disk_cache(size_wh, folder):
    return DiskCache(Sized([size_wh]), folder, folder)


def test_available_memory_is_minimum_of_machine_and_container(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "meminfo")
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(resources, "_CGROUPS", ((tmp_path, "max", "current", "inactive_file"),))
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert resources.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert resources.available_memory() == 4000 * 1024
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert resources.available_memory() == 4000 * 1024
    limit.write_text("3000\n")
    assert resources.available_memory() == 2000
    used.write_text("5000\n")
    assert resources.available_memory() == 0


def test_page_cache_counts_as_available_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_CGROUPS", ((tmp_path, "max", "current", "inactive_file"),))
    (tmp_path / "max").write_text("3000\n")
    (tmp_path / "current").write_text("2900\n")
    statistics = "anon 400\nfile 2500\ninactive_file 2300\nactive_file 200\n"
    (tmp_path / "memory.stat").write_text(statistics)
    assert resources.available_memory() == 2400
