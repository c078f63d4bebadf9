"""Training while the platform fails: temporary failures are retried, other runs can be resumed."""

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import requests
import torch

from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from supervisely_integration.sdk.api_calls import (
    create_collection,
    refetch_damaged_images,
    retry_multipart_uploads,
)
from supervisely_integration.task_status import TaskStatus
from tests.app.process_listing import command_lines, listening_addresses
from tests.app.real_app import TAGS, files_below, make_project, read_json, state_of
from tests.faulty_instance import Fault, FaultyInstance

WHOLE = {
    *("checkpoints/best.pth", "checkpoints/last.pth", "app_state.json", "experiment_info.json"),
    *("hyperparameters.yaml", "model_config.yml", "model_meta.json", "train_val_split.json"),
}
# In preparation: rejected, cut, slow, damaged and unreachable.
PREPARATION = (
    Fault("error", "projects.info"),
    Fault("error", "tasks.info", status=500),
    Fault("lost", "file-storage.bulk.upload"),
    Fault("slow", "datasets.list", 2, seconds=0.5),
    Fault("error", "images.list", status=502),
    Fault("cut", "annotations.bulk.info"),
    Fault("error", "annotations.bulk.info", status=504),
    Fault("damage", "images.bulk.download"),
    Fault("cut", "images.bulk.download"),
    Fault("error", "entities-collections.add"),
    Fault("lost", "entities-collections.add"),
    Fault("gone", "entities-collections.items.bulk.add", seconds=3),
)
# In the upload.
UPLOAD = (
    Fault("lost", "file-storage.bulk.upload", 2),
    Fault("cut", "file-storage.upload"),
    Fault("error", "file-storage.upload"),
    Fault("lost", "file-storage.upload"),
    Fault("slow", "file-storage.list", seconds=0.5),
    Fault("gone", "file-storage.bulk.upload", seconds=3),
    Fault("error", "tasks.output.set"),
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """An instance with a project."""
    with FaultyInstance(tmp_path_factory.mktemp("instance")) as instance:
        folder = tmp_path_factory.mktemp("digits")
        # The unmodified SDK would skip both datasets because of their names.
        project_id = make_project(
            instance.store, folder, name="digits", datasets=("my_img", "my_meta")
        )
        yield SimpleNamespace(instance=instance, store=instance.store, project_id=project_id)


@pytest.fixture(autouse=True)
def no_faults(platform):
    """Remove the faults of a test at its end."""
    yield
    platform.instance.faults.replace([])
    platform.instance.faults.injected.clear()


def start(launch, platform, task_id=None, *, preloaded=True, **hyperparameters):
    state = state_of(TAGS, hyperparameters=hyperparameters)
    return launch(
        platform.instance, platform.project_id, state, task_id=task_id, preloaded=preloaded
    )


def experiment_of(platform, task_id):
    folder = f"/experiments/{platform.project_id}_digits/{task_id}_RT-DETRv2"
    return files_below(platform.store, folder)


def check_whole(platform, task_id):
    files = experiment_of(platform, task_id)
    assert set(files) >= WHOLE
    info = read_json(platform.store, files["experiment_info.json"])
    assert sorted(info["checkpoints"]) == ["checkpoints/best.pth", "checkpoints/last.pth"]
    for name in info["checkpoints"]:
        content = load_checkpoint(platform.store.files.contents(files[name]))
        assert all(torch.isfinite(v).all() for v in content["model"].values())
    return files


def content_of(path):
    """Content of a file; empty if the app, which is running, has removed or renamed it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def check_hidden(platform, app):
    """The token is in the environment of the app, as on the platform, and nowhere else."""
    token = platform.instance.token
    session = app.process.pid
    lines = command_lines(session)
    assert any("uvicorn" in line for line in lines)
    assert not [line for line in lines if token in line]
    assert listening_addresses(session) <= {"127.0.0.1", "::1"}
    assert listening_addresses(session)
    folders = (app.log_file.parent, platform.store.root)
    files = [
        Path(root, name)
        for folder in folders
        for root, _, names in os.walk(folder)  # ignores folders that are removed meanwhile
        for name in names
    ]
    assert app.log_file in files
    holding = [path for path in files if path.is_file() and token.encode() in content_of(path)]
    assert holding == [platform.store.root / "token"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


def test_training_survives_temporary_failures(platform, launch):
    faults = platform.instance.faults
    faults.replace(PREPARATION)
    app = start(launch, platform, epoches=3)
    app.wait_for(lambda: "Epoch 1/3" in app.log(), "first epoch")
    happened = dict(faults.injected)
    faults.injected.clear()
    assert sum(happened.values()) == sum(fault.times for fault in PREPARATION), happened
    faults.replace(UPLOAD)
    assert app.wait(240) == 0, app.log_tail(60)
    assert sum(faults.injected.values()) == sum(fault.times for fault in UPLOAD), faults.injected
    # All images were trained on, with the contents that they have on the platform.
    assert "Training on 6 images, validating on 4" in app.log()
    check_whole(platform, app.task_id)
    assert not app.runs.path.exists()


def test_failed_upload_is_completed_by_the_resume_button(platform, launch):
    faults = platform.instance.faults
    app = start(launch, platform, preloaded=False)  # its command lines are examined
    app.wait_for(lambda: "Epoch 1/2" in app.log(), "first epoch")
    check_hidden(platform, app)
    faults.replace([Fault("error", "file-storage.*upload", 10_000, status=507)])
    assert app.wait(240) == 1, app.log_tail(60)
    status = TaskStatus.load(app.data_dir)
    assert status.state == "failed"
    assert "507" in status.error
    trained = {n: load_checkpoint(app.runs.output / n)["model"] for n in ("best.pth", "last.pth")}
    assert "experiment_info.json" not in experiment_of(platform, app.task_id)

    faults.replace([])
    again = start(launch, platform, task_id=app.task_id)
    again.wait_until_ready()
    assert "Resume upload mode is enabled" in again.log()
    with contextlib.suppress(httpx.HTTPError):
        again.click(again.widgets("Button", "Resume Upload")[0])
    assert again.wait(240) == 0, again.log_tail(60)
    assert "epoch=" not in again.log().split("Resume upload mode is enabled")[1]  # not trained
    files = check_whole(platform, app.task_id)
    for name, weights in trained.items():  # the same training, not repeated
        arrived = load_checkpoint(platform.store.files.contents(files[f"checkpoints/{name}"]))
        assert all(torch.equal(arrived["model"][key], value) for key, value in weights.items())
    assert not again.runs.path.exists()


# Transfers, without an app


@pytest.fixture
def api(platform, monkeypatch):
    monkeypatch.setenv("SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK", "1")
    api = platform.instance.api()
    api.retry_sleep_sec = 0
    return api


def test_sdk_consumes_a_multipart_body_in_the_first_attempt(tmp_path):
    """See `retry_multipart_uploads`."""
    from requests_toolbelt import MultipartEncoder

    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    with (tmp_path / "a.bin").open("rb") as file:
        body = MultipartEncoder([("file", ("a.bin", file, "text/plain"))])
        assert len(body.read()) == body.len
        assert body.read() == b""


@pytest.mark.parametrize("kind", ["error", "lost", "cut", "gone"])
def test_multipart_uploads_are_retried_with_the_whole_body(platform, api, tmp_path, kind):
    import supervisely as sly

    bare = sly.Api.post
    retry_multipart_uploads()
    try:
        contents = {f"{kind}_{i}.bin": bytes([i]) * (1000 + i) for i in range(3)}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        faults = [Fault(kind, "file-storage.bulk.upload", 2, seconds=0.5)]
        platform.instance.faults.replace(faults)
        api.retry_sleep_sec = 1 if kind == "gone" else 0
        done = threading.Event()

        def upload():
            api.file.upload_bulk(
                1, [str(tmp_path / n) for n in contents], [f"/sent/{n}" for n in contents]
            )
            done.set()

        thread = threading.Thread(target=upload, daemon=True)  # the unmodified SDK hangs
        thread.start()
        assert done.wait(60)
    finally:
        sly.Api.post = bare
    assert sum(platform.instance.faults.injected.values()) == 2
    sent = files_below(platform.store, "/sent")
    for name, content in contents.items():
        assert platform.store.files.contents(sent[name]).read_bytes() == content


def test_damaged_images_are_downloaded_again(platform, api, tmp_path):
    dataset = api.dataset.get_list(platform.project_id)[0]
    images = api.image.get_list(dataset.id)
    for image in images:
        api.image.download_path(image.id, str(tmp_path / image.name))
    good = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()}
    assert refetch_damaged_images(api, tmp_path, images) == 0

    victim = tmp_path / images[0].name
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    assert refetch_damaged_images(api, tmp_path, images) == 1
    assert good == {p.name: hashlib.sha256(p.read_bytes()).digest() for p in tmp_path.iterdir()}

    victim.write_bytes(data)
    platform.instance.faults.replace([Fault("damage", "images.download", 1)])
    victim.write_bytes(b"something else")
    with pytest.raises(DatasetError, match="arrives damaged every time; check the network"):
        refetch_damaged_images(api, tmp_path, images)

    # The stored bytes do not match the stored hash: two equal downloads are kept.
    api.image.download_path(images[0].id, str(victim))
    claimed = [images[0]._replace(hash=images[1].hash)]
    assert refetch_damaged_images(api, tmp_path, claimed) == 1
    assert hashlib.sha256(victim.read_bytes()).digest() == good[victim.name]


def test_collection_is_created_although_the_answer_is_lost(platform, api):
    collections, project_id = api.entities_collection, platform.project_id

    def create(name):
        return collections.create(
            project_id=project_id, name=name, description="", change_name_if_conflict=True
        ).id

    platform.instance.faults.replace([Fault("lost", "entities-collections.add")])
    with pytest.raises(requests.HTTPError):  # else `create_collection` is not needed
        create("bare_001")
    platform.instance.faults.replace([Fault("lost", "entities-collections.add")])
    created = create_collection(api, project_id, "lost_001", lambda: create("lost_001"))
    found = [each for each in collections.get_list(project_id) if each.name == "lost_001"]
    assert [each.id for each in found] == [created]
