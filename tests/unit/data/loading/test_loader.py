"""Batches depend only on seed, epoch and step, not on the process that loads them."""

import gc
import multiprocessing
import os
import random
import resource
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.geometric import RandomHorizontalFlip, RandomZoomOut, Resize
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.loading import worker_pool
from rtdetrv2_pytorch.src.data.loading.collate import BatchImageCollateFunction
from rtdetrv2_pytorch.src.data.loading.loader import DataLoader
from rtdetrv2_pytorch.src.data.loading.sampler import EpochSampler
from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import DatasetError


class Digits(CocoDetection):
    """Six small images of digits; `in_worker` is called with each index in worker processes."""

    def __init__(self, folder, in_worker=None):
        ops = [RandomZoomOut(), RandomHorizontalFlip(), Resize(size=[32, 48])]
        super().__init__(
            img_folder=str(folder / "train"),
            ann_file=str(folder / "annotations/instances_train.json"),
            transforms=Compose(ops=ops),
        )
        self.in_worker = in_worker
        self.main_process = os.getpid()

    def __getitem__(self, index):
        if self.in_worker is not None and os.getpid() != self.main_process:
            self.in_worker(index)
        return super().__getitem__(index)


@pytest.fixture
def data(digits):
    return Digits(digits)


def contents(loader, epoch=None, start_step=0):
    """[(ids, pixels, boxes)] of the batches of an epoch."""
    if epoch is not None:
        loader.set_epoch(epoch, start_step)
    return [content(batch) for batch in loader]


def content(batch):
    images, targets = batch
    return [int(t["idx"]) for t in targets], images, torch.cat([t["boxes"] for t in targets])


def same(one, other):
    return len(one) == len(other) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )


def workers_of(loader):
    return [worker.process for worker in loader._workers._workers]


def kill_all(processes):
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)


def in_fork(function):
    """Run a function in a forked process; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(30)
    return process.exitcode


def wait_until_gone(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


# --- the same batches in any process --------------------------------------------------------------


def test_batches_are_the_items_of_the_sampled_order(data):
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, seed=3)
    order = EpochSampler(6, 2, shuffle=True, drop_last=True, seed=3)
    order.set_epoch(1)
    result = contents(loader, 1)
    assert [ids for ids, _, _ in result] == list(order)
    for ids, images, _ in result:
        assert torch.equal(images, torch.stack([data[i][0] for i in ids]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_is_the_same_after_any_other(data, num_workers):
    expected = {}
    for epoch in (0, 1):
        fresh = DataLoader(dataset=data, batch_size=2, shuffle=True)
        expected[epoch] = contents(fresh, epoch)
    assert not same(expected[0], expected[1])

    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=num_workers)
    assert same(contents(loader, 0), expected[0])
    workers = num_workers and workers_of(loader)
    assert same(contents(loader, 1), expected[1])
    assert same(contents(loader, 1, start_step=2), expected[1][2:])
    # An epoch that ended early does not affect the next one.
    loader.set_epoch(0)
    next(iter(loader))
    assert same(contents(loader, 1), expected[1])
    assert (num_workers and workers_of(loader)) == workers


def test_augmentations_in_persistent_workers_change_with_the_epoch(data):
    loader = DataLoader(dataset=data, batch_size=3, num_workers=2)
    first, second = contents(loader, 0), contents(loader, 1)
    assert [b[0] for b in first] == [b[0] for b in second] == [[0, 1, 2], [3, 4, 5]]
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one[1], other[1])
    assert same(contents(DataLoader(dataset=data, batch_size=3), 1), second)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_global_random_state_unchanged(data, num_workers):
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=num_workers)

    def sample():
        return torch.rand(1).item(), random.random(), np.random.rand()

    def seed():
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)

    seed()
    expected = sample()
    seed()
    contents(loader, 0)
    contents(loader, 1)
    assert sample() == expected


def test_slow_batches_keep_their_place_unless_order_is_not_required(digits):
    data = Digits(digits, in_worker=lambda index: time.sleep(0.5 * (index == 0)))
    arguments = {"dataset": data, "batch_size": 2, "num_workers": 2}
    assert [ids for ids, _, _ in contents(DataLoader(**arguments))] == [[0, 1], [2, 3], [4, 5]]
    found = [ids for ids, _, _ in contents(DataLoader(**arguments, in_order=False))]
    assert found[0] == [2, 3]  # not behind the slow batch
    assert sorted(found) == [[0, 1], [2, 3], [4, 5]]


def test_spawned_workers_load_the_same(digits):
    arguments = {"dataset": Digits(digits), "batch_size": 3, "shuffle": True}
    spawned = DataLoader(**arguments, num_workers=1, multiprocessing_context="spawn")
    assert same(contents(spawned, 1), contents(DataLoader(**arguments), 1))


def test_workers_end_with_the_epoch_unless_persistent(data):
    loader = DataLoader(dataset=data, num_workers=1, persistent_workers=False)
    batches = iter(loader)
    next(batches)
    (worker,) = workers_of(loader)
    assert len(list(batches)) == 5
    assert worker.exitcode == -signal.SIGKILL
    assert len(contents(loader)) == 6


def test_a_second_iteration_ends_the_first_with_an_error(data):
    loader = DataLoader(dataset=data, num_workers=1)
    first = iter(loader)
    next(first)
    assert [ids for ids, _, _ in contents(loader)] == [[i] for i in range(6)]
    with pytest.raises(RuntimeError, match="allows one iteration at a time"):
        next(first)


# --- exit of processes ----------------------------------------------------------------------------


def test_workers_ignore_stop_signals(data):
    loader = DataLoader(dataset=data, batch_size=1, num_workers=2, prefetch_factor=1)
    iterator = iter(loader)
    next(iterator)
    for worker in workers_of(loader):
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(iterator)) == 5


def test_a_process_exits_while_a_loader_has_workers(data):
    """A forked process runs the exit handler of multiprocessing that a main process runs, too."""

    def use():
        data.loader = DataLoader(dataset=data, num_workers=2)
        next(iter(data.loader))

    assert in_fork(use) == 0


def test_workers_end_when_their_loader_is_garbage_collected(data):
    loader = DataLoader(dataset=data, num_workers=2)
    batches = iter(loader)
    next(batches)
    workers = workers_of(loader)
    loader.itself = loader
    del loader, batches
    gc.collect()
    assert [worker.exitcode for worker in workers] == [-9, -9]


def test_workers_end_when_the_main_process_is_killed(data, tmp_path):
    def use():
        loader = DataLoader(dataset=data, num_workers=2)
        next(iter(loader))
        (tmp_path / "pids").write_text(" ".join(str(w.pid) for w in workers_of(loader)))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(use) == -signal.SIGKILL
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert wait_until_gone(pids)


# --- crashes --------------------------------------------------------------------------------------


def test_workers_killed_between_batches_are_replaced(data, caplog):
    expected = contents(DataLoader(dataset=data, batch_size=1, shuffle=True), 2, 1)
    loader = DataLoader(dataset=data, batch_size=1, shuffle=True, num_workers=2, prefetch_factor=1)
    loader.set_epoch(2, 1)
    found = []
    for batch in loader:
        if len(found) == 1:
            kill_all(workers_of(loader))
        found.append(content(batch))
    assert same(found, expected)
    message = "(SIGKILL, often caused by insufficient memory); a new worker loads its batches again"
    assert caplog.text.count(message) == 1  # both were killed together
    assert loader.num_workers == 2
    assert same(contents(loader, 2, 1), expected)


def test_a_worker_killed_between_epochs_is_replaced(data):
    expected = contents(DataLoader(dataset=data, batch_size=2, shuffle=True), 1)
    loader = DataLoader(dataset=data, batch_size=2, shuffle=True, num_workers=1)
    contents(loader, 0)
    kill_all(workers_of(loader))
    assert same(contents(loader, 1), expected)


def once(path):
    """Return True in the first process that calls it."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def test_a_worker_killed_while_loading_is_replaced(digits, tmp_path, caplog):
    def crash(index):
        if index == 3 and once(tmp_path / "crashed"):
            os.kill(os.getpid(), signal.SIGKILL)

    loader = DataLoader(dataset=Digits(digits, crash), batch_size=2, num_workers=2)
    assert same(contents(loader, 1), contents(DataLoader(dataset=Digits(digits), batch_size=2), 1))
    assert caplog.text.count("a new worker loads its batches again") == 1


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_worker_killed_while_sending_is_replaced(data, tmp_path, caplog, monkeypatch, is_sent):
    send_fds = socket.send_fds

    def crash(channel, buffers, fds):
        if b"[1, " in buffers[0] and once(tmp_path / "crashed"):
            if is_sent:
                send_fds(channel, buffers, fds)
            os.kill(os.getpid(), signal.SIGKILL)
        return send_fds(channel, buffers, fds)

    monkeypatch.setattr(socket, "send_fds", crash)
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1)
    expected = contents(DataLoader(dataset=data, batch_size=1), 1)
    assert same(contents(loader, 1), expected)
    assert caplog.text.count("a new worker loads its batches again") == 1
    assert loader.num_workers == 1


def test_a_crash_is_noticed_while_another_process_holds_the_channel(data, monkeypatch, caplog):
    """A process that is forked at the same moment inherits the worker's end of the channel."""
    monkeypatch.setattr(worker_pool, "_POLL_SECONDS", 0.2)
    socketpair, copies = socket.socketpair, []

    def keep_copy(*args):
        pair = socketpair(*args)
        copies.append(pair[1].dup())
        return pair

    monkeypatch.setattr(socket, "socketpair", keep_copy)
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1, prefetch_factor=1)
    batches = iter(loader)
    next(batches)
    kill_all(workers_of(loader))
    assert len(list(batches)) == 5
    assert caplog.text.count("a new worker loads its batches again") == 1


def test_a_crash_does_not_interrupt_the_main_process(data):
    before = signal.getsignal(signal.SIGCHLD)
    loader = DataLoader(dataset=data, batch_size=1, num_workers=1)
    iterator = iter(loader)
    next(iterator)
    assert signal.getsignal(signal.SIGCHLD) is before
    (worker,) = workers_of(loader)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert len(list(iterator)) == 5


def test_the_main_process_loads_after_repeated_crashes(digits, caplog):
    loader = DataLoader(dataset=Digits(digits, lambda _: os._exit(7)), batch_size=1, num_workers=1)
    assert same(contents(loader), contents(DataLoader(dataset=Digits(digits), batch_size=1)))
    assert caplog.text.count("a new worker loads its batches again") == 3
    assert "crashed (exit code 7) after 3 restarts; if memory is short, reduce num_w" in caplog.text
    assert "The main process now loads images, which is slower" in caplog.text
    assert loader.num_workers == 0


# --- limits, errors, timeouts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        (resource.RLIMIT_FSIZE, 4096, "File too large"),  # a batch has 9216 bytes
        (resource.RLIMIT_NOFILE, 3, "Too many open files"),
    ],
)
def test_the_main_process_loads_if_workers_lack_memory_or_files(
    digits, caplog, limit, value, reason, monkeypatch
):
    pack = worker_pool.pack

    def limited(batch):
        resource.setrlimit(limit, (value, value))
        return pack(batch)

    monkeypatch.setattr(worker_pool, "pack", limited)
    loader = DataLoader(dataset=Digits(digits), batch_size=2, shuffle=True, num_workers=2)
    expected = contents(DataLoader(dataset=Digits(digits), batch_size=2, shuffle=True), 1)
    assert same(contents(loader, 1), expected)
    assert "workers cannot send batches (OSError: " in caplog.text
    assert reason in caplog.text
    assert "raise the limit of open files (ulimit -n), or set num_workers to 0" in caplog.text
    assert loader.num_workers == 0


def test_the_main_process_loads_if_it_cannot_open_more_files(data, caplog):
    loader = DataLoader(dataset=data, batch_size=2, num_workers=1)
    expected = contents(DataLoader(dataset=data, batch_size=2))
    batches = iter(loader)
    found = [content(next(batches))]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir()) + 1
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        while True:  # use all free descriptors except those for images
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        os.close(taken.pop())
    try:
        found.append(content(next(batches)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    found += [content(batch) for batch in batches]
    assert same(found, expected)
    assert "workers cannot send batches (" in caplog.text


def test_the_main_process_loads_if_no_worker_can_be_started(data, caplog, monkeypatch):
    def fail(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", fail)
    assert len(contents(DataLoader(dataset=data, num_workers=2))) == 6
    assert "cannot start a worker ([Errno 24] Too many open files); reduce num_wo" in caplog.text


@pytest.mark.parametrize("kind", [RuntimeError, OSError, EOFError])
def test_errors_of_the_dataset_are_raised_with_their_type(data, monkeypatch, kind):
    def broken(self, index):
        raise kind("no such thing")

    monkeypatch.setattr(CocoDetection, "__getitem__", broken)
    loader = DataLoader(dataset=data, batch_size=2, num_workers=1)
    with pytest.raises(kind, match="no such thing"):
        list(loader)
    assert loader.num_workers == 1


def test_a_batch_that_only_a_worker_cannot_load_is_loaded_by_the_main_process(digits, caplog):
    def fail(index):
        raise MemoryError(f"at image {index}")

    loader = DataLoader(dataset=Digits(digits, fail), batch_size=2, num_workers=1)
    assert same(contents(loader, 1), contents(DataLoader(dataset=Digits(digits), batch_size=2), 1))
    assert "A worker failed: MemoryError: at image 4. The main process loads" in caplog.text
    assert loader.num_workers == 1


def test_a_timeout_names_the_setting(digits):
    data = Digits(digits, in_worker=lambda index: time.sleep(0.3))
    loader = DataLoader(dataset=data, batch_size=6, num_workers=1, timeout=0.5)
    message = r"no batch within timeout = 0\.5 seconds.* set it to 0 for no limit"
    with pytest.raises(DatasetError, match=message):
        list(loader)
    loader.timeout = loader._workers.timeout = 60
    (worker,) = workers_of(loader)
    assert [ids for ids, _, _ in contents(loader)] == [list(range(6))]
    assert workers_of(loader) == [worker]


# --- settings -------------------------------------------------------------------------------------


def test_attributes_that_scripts_read(data):
    collate = BatchImageCollateFunction(scales=[32])
    loader = DataLoader(dataset=data, batch_size=2, collate_fn=collate, drop_last=True)
    assert loader.collate_fn is collate
    assert loader.dataset is data
    assert (len(loader), loader.batch_size, loader.num_workers) == (3, 2, 0)
    assert isinstance(DataLoader(dataset=data).collate_fn, BatchImageCollateFunction)


def test_default_arguments_load_single_images_in_order(data):
    assert [ids for ids, _, _ in contents(DataLoader(dataset=data))] == [[i] for i in range(6)]


def test_worker_settings_are_ignored_without_workers(data):
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


def test_num_workers_is_limited_to_the_processors(data):
    loader = DataLoader(dataset=data, num_workers=10**6)
    assert loader.num_workers == os.cpu_count()


def test_too_few_images_are_rejected(data, monkeypatch):
    message = r"no batch of 7 can be made from 6 images for 1 rank; use a smaller batch_size or add"
    with pytest.raises(DatasetError, match=message):
        DataLoader(dataset=data, batch_size=7, drop_last=True)
    assert len(DataLoader(dataset=data, batch_size=7)) == 1
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(DatasetError, match=r"no batch of 8 .* for 4 ranks"):
        DataLoader(dataset=data, batch_size=2, drop_last=True)
