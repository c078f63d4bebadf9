"""What the store promises beyond its API: transactions, crashes, cleaning."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervisely_integration.local.emulator.storage import blobs as blobs_module
from supervisely_integration.local.emulator.storage.database import timestamp
from supervisely_integration.local.emulator.storage.listing import Listing
from supervisely_integration.local.emulator.store import ConflictError, NotFoundError, Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "root")
    yield store
    store.close()


def files_in(store):
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


def test_a_second_store_finds_everything(store, png):
    project = store.create_project("p", {"classes": [{"title": "c", "shape": "rectangle"}]})
    dataset = store.create_dataset(project, "ds")
    image = store.add_image(dataset, "a.png", png(1), meta={"k": 1})
    again = Store(store.root)
    assert again.images.info(image)["meta"] == {"k": 1}
    assert again.projects.meta(project)["classes"][0]["title"] == "c"
    assert [each["id"] for each in again.teams.page(Listing())["entities"]] == [1]
    again.close()


def test_a_transaction_is_all_or_nothing(store, png):
    with pytest.raises(ConflictError), store.transaction():
        project = store.create_project("p")
        dataset = store.create_dataset(project, "ds")
        store.add_image(dataset, "a.png", png(1))
        store.create_project("p")
    assert store.projects.page(Listing())["total"] == 0
    assert len(files_in(store)) == 1
    store.clean()
    assert files_in(store) == []


def test_an_inner_failure_undoes_only_itself(store):
    with store.transaction():
        store.create_project("outer")
        with pytest.raises(RuntimeError), store.transaction():
            store.create_project("inner")
            raise RuntimeError
        store.create_project("after")
    names = [each["name"] for each in store.projects.page(Listing())["entities"]]
    assert names == ["outer", "after"]


def test_free_names(store):
    assert store.free_project_name("p") == "p"
    store.create_project("p")
    store.create_project("p_001")
    assert store.free_project_name("p") == "p_002"


def test_cleaning_keeps_what_is_used_or_reserved(store, png):
    project = store.create_project("p")
    dataset = store.create_dataset(project, "ds")
    image = store.add_image(dataset, "a.png", png(1))
    reserved = store.images.store_contents(png(2), "b.png")
    record = store.files.put_path(1, "/f", b"file")
    store.clean()
    kept = {store.images.contents(image)[0], store.files.contents(record)}
    assert set(files_in(store)) == kept | {store.blobs.path(reserved)}


def test_unfinished_uploads_of_long_ago_go(store):
    incoming = store.root / "blobs" / "incoming"
    for name, age_s in (("old", blobs_module._UNFINISHED_AFTER_S + 60), ("young", 60)):
        (incoming / name).write_bytes(b"x")
        then = time.time() - age_s
        os.utime(incoming / name, (then, then))
    store.clean()
    assert [path.name for path in incoming.iterdir()] == ["young"]


def test_a_blob_whose_file_is_gone_is_not_known(store, png):
    hash_ = store.images.store_contents(png(1), "a.png")
    assert store.blobs.reserve_known_images([hash_]) == [hash_]
    store.blobs.path(hash_).unlink()
    assert store.blobs.reserve_known_images([hash_]) == []
    store.images.store_contents(png(1), "a.png")
    assert store.blobs.reserve_known_images([hash_]) == [hash_]


def test_any_number_of_hashes_can_be_asked_for(store, png):
    hash_ = store.images.store_contents(png(1), "a.png")
    others = [f"{number}" for number in range(300_000)]  # more than SQLite takes parameters
    assert store.blobs.reserve_known_images([*others, hash_]) == [hash_]


def test_times_grow():
    now = timestamp()
    assert now < timestamp(now) < timestamp("2999-01-01T00:00:00.999Z")
    assert timestamp("2999-01-01T00:00:00.999Z") == "2999-01-01T00:00:01.000Z"


def test_a_root_of_a_newer_program_is_refused(store):
    with sqlite3.connect(store.root / "instance.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RuntimeError, match="has version 99.*use the newer program"):
        Store(store.root)


def test_what_does_not_exist(store):
    for call in (
        lambda: store.create_dataset(7, "x"),
        lambda: store.set_annotation(7, {}),
        lambda: store.set_task_status(7, "started"),
        lambda: store.statistics(7),
    ):
        with pytest.raises(NotFoundError, match="7 does not exist"):
            call()


WRITER = """
import sys
from pathlib import Path
from supervisely_integration.local.emulator.store import Store
root, number = Path(sys.argv[1]), sys.argv[2]
store = Store(root)
for index in range(20):
    project = store.create_project(f"{number}-{index}")
    store.files.put_path(1, f"/{number}/{index}", f"text {index}".encode())
    store.files.put_path(1, "/contested", f"{number} {index}".encode())
    store.files.remove(1, [f"/{number}/{index}"] if index % 2 else [])
"""


def test_several_processes_write_at_once(store):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.root), str(number)], cwd=ROOT)
        for number in range(4)
    ]
    assert [process.wait(240) for process in processes] == [0] * 4
    assert store.projects.page(Listing())["total"] == 80
    entries = store.files.entries(1, "/")
    assert len(entries) == 4 * 10 + 1
    for entry in entries:
        text = store.files.contents(entry).read_text()
        if entry["name"] == "contested":
            assert text in [f"{number} 19" for number in range(4)]
        else:
            assert text == f"text {entry['name']}"
