"""The store without HTTP: transactions, crashes, cleaning."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisely_integration.local.emulator.storage.blobs import Incoming
from supervisely_integration.local.emulator.storage.sql.database import timestamp
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from supervisely_integration.local.emulator.store import ConflictError, NotFoundError, Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "root")
    yield store
    store.close()


def files_in(store):
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


def test_reopen(store, png):
    project = store.projects.create("p", {"classes": [{"title": "c", "shape": "rectangle"}]})
    dataset = store.datasets.create(project, "ds")
    image = store.images.create(dataset, "a.png", png(1), meta={"k": 1})
    again = Store(store.root)
    assert again.images.info(image)["meta"] == {"k": 1}
    assert again.projects.meta(project)["classes"][0]["title"] == "c"
    assert [each["id"] for each in again.teams.page(Listing())["entities"]] == [1]
    again.close()


def test_failed_transaction_is_rolled_back(store, png):
    with pytest.raises(ConflictError), store.transaction():
        project = store.projects.create("p")
        dataset = store.datasets.create(project, "ds")
        store.images.create(dataset, "a.png", png(1))
        store.projects.create("p")
    assert store.projects.page(Listing())["total"] == 0
    assert len(files_in(store)) == 1
    store.clean()
    assert files_in(store) == []


def test_failed_nested_transaction_is_rolled_back_alone(store):
    with store.transaction():
        store.projects.create("outer")
        with pytest.raises(RuntimeError), store.transaction():
            store.projects.create("inner")
            raise RuntimeError
        store.projects.create("after")
    names = [each["name"] for each in store.projects.page(Listing())["entities"]]
    assert names == ["outer", "after"]


def test_free_names(store):
    assert store.projects.free_name("p") == "p"
    store.projects.create("p")
    store.projects.create("p_001")
    assert store.projects.free_name("p") == "p_002"


def test_contents_are_synced_before_the_rename_and_the_folder_after_it(store, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace

    def recorded_sync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        calls.append("sync folder" if path.is_dir() else f"sync {path.stat().st_size} bytes")
        sync(handle)

    def recorded_replace(path, target):
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    store.files.put_path(1, "/f", b"file")
    assert calls == ["sync 4 bytes", "sync folder", "rename", "sync folder"]  # a new sub-folder


def test_clean_keeps_used_and_reserved_blobs(store, png):
    project = store.projects.create("p")
    dataset = store.datasets.create(project, "ds")
    image = store.images.create(dataset, "a.png", png(1))
    reserved = store.images.store_contents(png(2), "b.png")
    record = store.files.put_path(1, "/f", b"file")
    store.clean()
    kept = {store.images.contents(image)[0], store.files.contents(record)}
    assert set(files_in(store)) == kept | {store.blobs.path(reserved)}


def test_start_removes_partial_uploads_of_killed_processes_only(store, tmp_path):
    incoming = store.root / "blobs" / "incoming"
    script = (
        "import os, pathlib, signal, sys\n"
        "from supervisely_integration.local.emulator.storage.blobs import Incoming\n"
        "Incoming(pathlib.Path(sys.argv[1])).write(b'x' * 10)\n"
        "left = Incoming(pathlib.Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(incoming)], cwd=ROOT, check=False)
    assert len(list(incoming.iterdir())) == 2
    with Incoming(incoming) as upload:  # of this process, and still running
        upload.write(b"whole")
        store.clean()
        assert list(incoming.iterdir()) == [upload.path]
        hash_ = store.blobs.keep(upload, reserve=True)
    assert store.blobs.path(hash_).read_bytes() == b"whole"
    assert list(incoming.iterdir()) == []


def test_only_the_owner_can_read_the_data(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    (root / "instance.sqlite").touch(mode=0o644)  # of an earlier version
    store = Store(root)
    store.files.put_path(1, "/f", b"file")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in root.iterdir()}
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert {modes[name] for name in modes if name.startswith("instance.sqlite")} == {0o600}
    assert len(modes) > 2  # also the files of SQLite's log


def test_blob_without_file_is_unknown(store, png):
    hash_ = store.images.store_contents(png(1), "a.png")
    assert store.blobs.reserve_known_images([hash_]) == [hash_]
    store.blobs.path(hash_).unlink()
    assert store.blobs.reserve_known_images([hash_]) == []
    store.images.store_contents(png(1), "a.png")
    assert store.blobs.reserve_known_images([hash_]) == [hash_]


def test_more_hashes_than_sqlite_parameters(store, png):
    hash_ = store.images.store_contents(png(1), "a.png")
    others = [f"{number}" for number in range(40_000)]  # above SQLite's limit of parameters
    assert store.blobs.reserve_known_images([*others, hash_]) == [hash_]


def test_timestamps_increase():
    now = timestamp()
    assert now < timestamp(now) < timestamp("2999-01-01T00:00:00.999Z")
    assert timestamp("2999-01-01T00:00:00.999Z") == "2999-01-01T00:00:01.000Z"


def test_root_of_a_newer_version_is_rejected(store):
    with sqlite3.connect(store.root / "instance.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RuntimeError, match="has version 99.*Use the newer program"):
        Store(store.root)


def test_missing_records(store):
    for call in (
        lambda: store.datasets.create(7, "x"),
        lambda: store.annotations.set(7, {}),
        lambda: store.tasks.set_status(7, "started"),
        lambda: store.projects.statistics(7),
    ):
        with pytest.raises(NotFoundError, match="7 does not exist"):
            call()


WRITER = """
import sys
from pathlib import Path
from supervisely_integration.local.emulator.store import Store
root, number = Path(sys.argv[1]), sys.argv[2]
store = Store(root)
for index in range(10):
    project = store.projects.create(f"{number}-{index}")
    store.files.put_path(1, f"/{number}/{index}", f"text {index}".encode())
    store.files.put_path(1, "/contested", f"{number} {index}".encode())
    store.files.remove(1, [f"/{number}/{index}"] if index % 2 else [])
"""


def test_concurrent_processes(store):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.root), str(number)], cwd=ROOT)
        for number in range(4)
    ]
    assert [process.wait(240) for process in processes] == [0] * 4
    assert store.projects.page(Listing())["total"] == 40
    entries = store.files.entries(1, "/")
    assert len(entries) == 4 * 5 + 1
    for entry in entries:
        text = store.files.contents(entry).read_text()
        if entry["name"] == "contested":
            assert text in [f"{number} 9" for number in range(4)]
        else:
            assert text == f"text {entry['name']}"
