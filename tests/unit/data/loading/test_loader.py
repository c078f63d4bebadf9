"""Batches follow from seed, epoch and step, whoever loads them."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.augment import Compose, RandomHorizontalFlip, RandomZoomOut, Resize
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.loading.collate import BatchImageCollateFunction
from rtdetrv2_pytorch.src.data.loading.loader import DataLoader
from rtdetrv2_pytorch.src.data.loading.sampler import EpochSampler
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import DatasetError

ROOT = Path(__file__).parents[4]


# --- the loader ---------------------------------------------------------------------------------


@pytest.fixture
def data(digits):
    return small(digits)


def small(digits):
    """Six images of the digits, augmented by geometry and made small."""
    ops = [RandomZoomOut(), RandomHorizontalFlip(), Resize(size=[32, 48])]
    return CocoDetection(
        img_folder=str(digits / "train"),
        ann_file=str(digits / "annotations/instances_train.json"),
        transforms=Compose(ops=ops),
    )


def contents(loader, epoch=None, start_step=0):
    """[(ids, pixels, boxes)] of the batches of an epoch."""
    if epoch is not None:
        loader.set_epoch(epoch, start_step)
    return [
        ([int(t["idx"]) for t in targets], images, torch.cat([t["boxes"] for t in targets]))
        for images, targets in loader
    ]


def same(one, other):
    return len(one) == len(other) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_the_items_of_the_drawn_order(data):
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, seed=3)
    order = EpochSampler(6, 2, shuffle=True, drop_last=True, seed=3)
    order.set_epoch(1)
    result = contents(loader, 1)
    assert [ids for ids, _, _ in result] == list(order)
    for ids, images, _ in result:
        assert torch.equal(images, torch.stack([data[i][0] for i in ids]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_is_the_same_however_one_gets_there(data, num_workers):
    expected = {}
    for epoch in (0, 1):
        fresh = DataLoader(dataset=data, batch_size=2, shuffle=True)
        expected[epoch] = contents(fresh, epoch)
    assert not same(expected[0], expected[1])

    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=num_workers)
    assert same(contents(loader, 0), expected[0])
    workers = getattr(loader._iterator, "_workers", None)
    assert same(contents(loader, 1), expected[1])
    assert getattr(loader._iterator, "_workers", None) is workers  # they were kept
    assert same(contents(loader, 1, start_step=2), expected[1][2:])
    # An epoch that is left early does not reach into the next.
    loader.set_epoch(0)
    next(iter(loader))
    assert same(contents(loader, 1), expected[1])


def test_the_augmentation_of_persistent_workers_changes_with_the_epoch(data):
    loader = DataLoader(dataset=data, batch_size=3, num_workers=2)
    first, second = contents(loader, 0), contents(loader, 1)
    assert [b[0] for b in first] == [b[0] for b in second] == [[0, 1, 2], [3, 4, 5]]
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one[1], other[1])
    alone = DataLoader(dataset=data, batch_size=3)
    assert same(contents(alone, 1), second)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_global_randomness_alone(data, num_workers):
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=num_workers)

    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()

    def seed():
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)

    seed()
    expected = draw()
    seed()
    contents(loader, 0)
    contents(loader, 1)
    assert draw() == expected


def test_workers_do_not_end_when_the_main_process_is_asked_to(data):
    loader = DataLoader(dataset=data, batch_size=1, num_workers=2, prefetch_factor=1)
    iterator = iter(loader)
    next(iterator)
    for worker in loader._iterator._workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(iterator)) == 5


class ShortOfSharedMemory:
    """Limits the files, and with them the shared memory, of a worker: a real error, no fake."""

    def __init__(self, num_bytes):
        self.num_bytes = num_bytes

    def __call__(self, worker):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.num_bytes, self.num_bytes))


_START = """
import gc, sys
from pathlib import Path
from tests.unit.data.loading.test_loader import DataLoader, small
loader = DataLoader(dataset=small(Path(sys.argv[1])), num_workers=2)
batches = iter(loader)
next(batches)
"""
_COLLECTED = """
workers = loader._iterator._workers
loader.itself = loader
del loader, batches
gc.collect()
for worker in workers:
    worker.join(10)
assert [worker.exitcode for worker in workers] == [-9, -9]
"""


@pytest.mark.parametrize("then", ["", _COLLECTED], ids=["held", "collected"])
def test_a_process_ends_although_its_workers_ignore_that_they_are_asked_to(digits, then):
    """The loader is there until the interpreter ends, or part of a cycle that is collected."""
    script = _START + then
    ended = subprocess.run([sys.executable, "-c", script, digits], cwd=ROOT, timeout=60)
    assert ended.returncode == 0


def test_a_worker_that_is_killed_is_replaced_and_no_batch_is_lost(data, caplog):
    expected = contents(DataLoader(dataset=data, batch_size=1, shuffle=True), 2, 1)
    loader = DataLoader(dataset=data, batch_size=1, shuffle=True, num_workers=2, prefetch_factor=1)
    loader.set_epoch(2, 1)
    found = []
    for images, targets in loader:
        if len(found) == 1:
            for worker in loader._iterator._workers:
                os.kill(worker.pid, signal.SIGKILL)
        boxes = torch.cat([t["boxes"] for t in targets])
        found.append(([int(t["idx"]) for t in targets], images.clone(), boxes.clone()))
    assert same(found, expected)
    assert "SIGKILL, often for lack of memory); new workers load its batch again" in caplog.text
    assert loader.num_workers == 2
    assert same(contents(loader, 2, 1), expected)  # between epochs nothing is left of it


def test_a_worker_that_is_killed_between_epochs_is_replaced(data):
    expected = contents(DataLoader(dataset=data, batch_size=2, shuffle=True), 1)
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=1)
    contents(loader, 0)
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
    assert same(contents(loader, 1), expected)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset"), EOFError()])
def test_a_worker_that_dies_while_it_hands_over_a_batch_is_replaced(data, caplog, error):
    """Its connection ends before it counts as dead; torch has no RuntimeError for that."""
    expected = contents(DataLoader(dataset=data, batch_size=1, shuffle=True), 1)
    loader = DataLoader(dataset=data, batch_size=1, shuffle=True, num_workers=1)
    loader.set_epoch(1)
    found = []

    def lose_connection(timeout):
        worker = loader._iterator._workers[0]
        threading.Timer(0.3, worker.kill).start()
        raise error

    for images, targets in loader:
        found.append(([int(t["idx"]) for t in targets], images.clone(), targets[0]["boxes"]))
        if len(found) == 2:
            loader._iterator._data_queue.get = lose_connection
    assert same(found, expected)
    assert "ended (SIGKILL, often for lack of memory); new workers" in caplog.text
    assert loader.num_workers == 1


def test_the_death_of_a_worker_is_told_where_batches_are_awaited_and_nowhere_else(data):
    before = signal.getsignal(signal.SIGCHLD)
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1)
    iterator = iter(loader)
    next(iterator)
    assert signal.getsignal(signal.SIGCHLD) is before
    worker = loader._iterator._workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    sum(range(1000))  # with torch's handler: RuntimeError here
    assert len(list(iterator)) == 5


def test_workers_that_keep_dying_are_given_up(data, caplog):
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1)
    loader.worker_init_fn = os._exit  # worker 0 ends at once, with code 0
    expected = contents(DataLoader(dataset=data, batch_size=1))
    assert same(contents(loader), expected)
    assert caplog.text.count("new workers load its batch again") == 3
    assert "again. The main process loads images now" in caplog.text
    assert loader.num_workers == 0


def test_without_shared_memory_the_main_process_loads(data, caplog):
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=2, timeout=60)
    loader.worker_init_fn = ShortOfSharedMemory(4096)  # a batch has 9216 bytes
    expected = contents(DataLoader(dataset=data, batch_size=2, shuffle=True), 1)
    assert same(contents(loader, 1), expected)
    assert "workers cannot hand over images: " in caplog.text
    assert "more shared memory (docker: --shm-size)" in caplog.text
    assert loader.num_workers == 0


@pytest.mark.parametrize("kind", [RuntimeError, OSError, EOFError])
def test_errors_of_the_data_are_not_taken_for_dying_workers(data, monkeypatch, kind):
    def broken(self, index):
        raise kind("no such thing")

    monkeypatch.setattr(CocoDetection, "__getitem__", broken)
    loader = DataLoader(dataset=data, batch_size=2, num_workers=1)
    with pytest.raises(kind, match="no such thing"):
        list(loader)
    assert loader.num_workers == 1


def test_workers_that_take_longer_than_they_may_are_an_error_that_says_so(data, monkeypatch):
    monkeypatch.setattr(CocoDetection, "__getitem__", lambda self, index: time.sleep(2))
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1, timeout=1)
    with pytest.raises(DatasetError, match="no batch in timeout = 1 seconds.* 0 to wait for ever"):
        list(loader)


def test_the_collate_function_is_used_and_known(data):
    collate = BatchImageCollateFunction(scales=[32])
    loader = DataLoader(dataset=data, batch_size=2, collate_fn=collate)
    assert loader.collate is collate
    assert len(loader) == 3
    assert isinstance(DataLoader(dataset=data).collate, BatchImageCollateFunction)


def test_a_loader_without_arguments_reads_one_image_after_the_other(data):
    assert [ids for ids, _, _ in contents(DataLoader(dataset=data))] == [[i] for i in range(6)]


def test_settings_of_workers_do_not_matter_without_workers(data):
    loader = DataLoader(
        dataset=data,
        batch_size=6,
        num_workers=0,
        prefetch_factor=4,
        persistent_workers=True,
        multiprocessing_context="spawn",
        timeout=60,
    )
    assert [ids for ids, _, _ in contents(loader)] == [list(range(6))]


def test_no_more_workers_than_processors(data):
    loader = DataLoader(dataset=data, num_workers=10**6)
    assert loader.num_workers == os.cpu_count()


def test_too_few_images_are_refused(data, monkeypatch):
    message = r"6 images give no batch of 7 for 1 ranks; use a smaller batch_size or add"
    with pytest.raises(DatasetError, match=message):
        DataLoader(dataset=data, batch_size=7, drop_last=True)
    assert len(DataLoader(dataset=data, batch_size=7)) == 1
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(DatasetError, match=r"no batch of 8 for 4 ranks"):
        DataLoader(dataset=data, batch_size=2, drop_last=True)
