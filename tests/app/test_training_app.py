"""Trainings through the real SDK, as a platform starts them: what they leave, and how they end."""

import contextlib
import json
import signal
import threading
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from supervisely_integration.local.emulator.store import InvalidRequestError
from supervisely_integration.paths import DEMO, MODELS
from supervisely_integration.train.run_folder import RunFolder
from tests.app.running import (
    CLASSES,
    MODEL,
    TINY,
    RunningApp,
    files_below,
    make_project,
    read_json,
    state_of,
)
from tests.tiny import CONFIGS, NETWORK

TAGS = {"method": "tags", "train_tag": "train", "val_tag": "val", "untagged_action": "ignore"}
ARTIFACTS = {
    "checkpoints/best.pth",
    "checkpoints/last.pth",
    "app_state.json",
    "data_report.html",
    "data_report.json",
    "experiment_info.json",
    "hyperparameters.yaml",
    "model_config.yml",
    "model_meta.json",
    "open_app.lnk",
    "train_val_split.json",
}


@pytest.fixture(scope="module")
def project_id(instance, tmp_path_factory):
    return make_project(instance.store, tmp_path_factory.mktemp("digits"), name="digits [v1] é")


@pytest.fixture
def launch(instance, tmp_path):
    """Starts the app for a task; a second launch with the same task is a relaunch."""
    started = []

    def start(project_id, app_state=None, *, task_id=None, development=False, **options):
        if task_id is None and not development:
            task_id = instance.store.tasks.create(
                app={"id": 1, "name": "Train RT-DETRv2", "version": "1"}
            )
        app = RunningApp(
            server_address=instance.address,
            token=instance.token,
            project_id=project_id,
            data_dir=tmp_path / f"task_{task_id}",
            task_id=task_id,
            app_state=app_state,
            **options,
        )
        app.task_id = task_id
        app.runs = RunFolder(tmp_path / f"task_{task_id}", task_id or -1)
        started.append(app)
        return app

    yield start
    for app in started:
        app.kill()


def experiment_of(instance, project_id, task_id):
    folder = f"/experiments/{project_id}_digits [v1] é/{task_id}_RT-DETRv2"
    files = files_below(instance.store, folder)
    assert "experiment_info.json" in files, sorted(files)
    return folder, files, read_json(instance.store, files["experiment_info.json"])


def epochs_in(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["epoch"] for line in lines if line["event"] == "epoch"]


def dataset_ids(instance, project_id):
    rows = instance.store.database.rows(
        "SELECT id, name FROM datasets WHERE project_id = ?", (project_id,)
    )
    return {row["name"]: row["id"] for row in rows}


def test_production_from_gui_state_with_tags_leaves_a_whole_experiment(
    instance, launch, project_id
):
    app = launch(project_id, state_of(TAGS, experiment_name="my digits"))
    assert app.wait(240) == 0, app.log_tail(60)
    folder, files, info = experiment_of(instance, project_id, app.task_id)
    logs = {name for name in files if name.startswith("logs/")}
    report = {name for name in files if name.startswith("visualization/")}  # of the SDK
    demo = {name for name in files if name.startswith("demo/")}
    assert set(files) - logs - report - demo == ARTIFACTS
    assert {name: instance.store.files.contents(files[name]).read_text() for name in demo} == {
        f"demo/{path.name}": path.read_text() for path in DEMO.iterdir() if path.is_file()
    }
    assert {"demo/README.md", "demo/demo_common.py"} < demo
    assert all(".tfevents." in name for name in logs)
    assert logs
    assert report
    assert info["experiment_name"] == "my digits"
    assert info["framework_name"] == "RT-DETRv2"
    assert info["model_name"] == MODEL
    assert info["task_type"] == "object detection"
    assert (info["project_id"], info["task_id"]) == (project_id, app.task_id)
    assert info["model_files"] == {"config": "model_config.yml"}
    assert sorted(info["checkpoints"]) == ["checkpoints/best.pth", "checkpoints/last.pth"]
    assert info["best_checkpoint"] == "best.pth"
    assert (info["train_size"], info["val_size"]) == (6, 4)
    assert info["artifacts_dir"].rstrip("/") == folder
    assert info["logs"]["type"] == "tensorboard"
    for key in ("app_state", "model_meta", "train_val_split", "hyperparameters", "export"):
        assert key in info
    for key in ("datetime", "evaluation_report_id", "evaluation_report_link", "evaluation_metrics"):
        assert key in info
    config = yaml.safe_load(instance.store.files.contents(files["model_config.yml"]).read_text())
    assert str(app.log_file.parent) not in json.dumps(config)
    assert config["num_classes"] == 10
    meta = read_json(instance.store, files["model_meta.json"])
    assert [c["title"] for c in meta["classes"]] == CLASSES
    assert {c["shape"] for c in meta["classes"]} == {"rectangle"}
    assert not app.runs.path.exists()
    task = instance.store.tasks.info(app.task_id)
    assert task["meta"]["output"]["experiment"]["data"]["experiment_name"] == "my digits"


def test_development_mode_through_train_from_api(instance, launch, project_id):
    app = launch(project_id, development=True)
    app.wait_until_ready()
    split = {"method": "random", "split": "train", "percent": 60}
    looked_at = {"report": True, "pictures": True}
    app.post(
        "/train_from_api",
        state={"app_state": state_of(split, hyperparameters=looked_at)},
        context={"outside_request": True},
    )
    assert app.wait(240) == 0, app.log_tail(60)
    _, files, info = experiment_of(instance, project_id, -1)
    assert set(files) >= {*ARTIFACTS, "report.html"}
    page = instance.store.files.contents(files["report.html"]).read_text()
    assert "Finished: 2 of 2 epochs" in page
    assert "10 images: 10 used" in page  # what the data doctor said
    assert str(app.runs.path) not in page
    assert (info["train_size"], info["val_size"]) == (6, 4)


def test_two_of_ten_classes_split_by_datasets(instance, launch, project_id):
    ids = dataset_ids(instance, project_id)
    split = {"method": "datasets", "train_datasets": [ids["train"]], "val_datasets": [ids["val"]]}
    app = launch(project_id, state_of(split, classes=["7", "3"]))
    assert app.wait(240) == 0, app.log_tail(60)
    _, files, info = experiment_of(instance, project_id, app.task_id)
    meta = read_json(instance.store, files["model_meta.json"])
    assert [c["title"] for c in meta["classes"]] == ["3", "7"]  # in the order of the project
    config = yaml.safe_load(instance.store.files.contents(files["model_config.yml"]).read_text())
    assert config["num_classes"] == 2
    assert info["train_size"] == 6  # images without objects of the classes stay
    split = read_json(instance.store, files["train_val_split.json"])
    rows = instance.store.database.rows("SELECT id, dataset_id FROM images ORDER BY id")
    for name in ("train", "val"):
        assert split[name] == [row["id"] for row in rows if row["dataset_id"] == ids[name]]


def test_a_custom_model_is_trained_on_by_collections(instance, launch, project_id):
    first = launch(project_id, state_of(TAGS))
    assert first.wait(240) == 0, first.log_tail(60)
    # The split of the first training is there as two collections.
    rows = instance.store.database.rows(
        "SELECT id, name FROM collections WHERE project_id = ? ORDER BY id", (project_id,)
    )
    ids = {row["name"][:3]: row["id"] for row in rows}
    split = {
        "method": "collections",
        "train_collections": [ids["tra"]],
        "val_collections": [ids["val"]],
    }
    model = {"source": "Custom models", "task_id": first.task_id, "checkpoint": "best.pth"}
    second = launch(project_id, state_of(split, model=model))
    assert second.wait(240) == 0, second.log_tail(60)
    assert "new=0 dropped=0" in second.log()
    _, files, info = experiment_of(instance, project_id, second.task_id)
    assert set(files) >= ARTIFACTS
    assert (info["train_size"], info["val_size"]) == (6, 4)


def press_all(app, project_id, instance, **editor):
    """Go through the page as a person would, with a split by datasets and two classes."""
    ids = dataset_ids(instance, project_id)
    steps = app.widgets("Button", "Select")
    assert len(steps) == 5
    tabs = app.widgets("RadioTabs")
    table = app.widgets("ClassesTable")[0]
    rows = app.post("/sly/data")[table]["table_data"]
    models = app.widgets("PretrainedModelsSelector")[0]
    names = [row["Model"] for row in json.loads(MODELS.read_text())]
    train, val = app.widgets("TreeSelect")[:2]
    app.click(steps[0])
    app.click(
        steps[1],
        **{
            tabs[0]: {"value": "Pretrained models"},
            models: {"selectedRow": names.index(MODEL)},
        },
    )
    chosen = [row[0]["data"] in ("3", "7") for row in rows]
    app.click(steps[2], **{table: {"checkboxes": chosen}})
    app.click(
        steps[3],
        **{
            tabs[1]: {"value": "Based on datasets"},
            train: {"value": [{"id": ids["train"], "label": "train"}]},
            val: {"value": [{"id": ids["val"], "label": "val"}]},
        },
    )
    app.click(steps[4], **{app.widgets("Editor")[0]: {"text": json.dumps({**TINY, **editor})}})


def start(app):
    """Press Start; the request lasts as long as the training, and may end with the process."""
    with contextlib.suppress(httpx.HTTPError):
        app.click(app.widgets("Button", "Start")[0])


def test_the_buttons_of_the_page(instance, launch, project_id):
    app = launch(project_id)
    app.wait_until_ready()
    press_all(app, project_id, instance)
    start(app)
    assert app.wait(240) == 0, app.log_tail(60)
    _, files, info = experiment_of(instance, project_id, app.task_id)
    assert set(files) >= ARTIFACTS
    assert (info["train_size"], info["val_size"]) == (6, 4)
    meta = read_json(instance.store, files["model_meta.json"])
    assert [c["title"] for c in meta["classes"]] == ["3", "7"]


def test_a_wrong_value_is_one_sentence_in_the_dialog_and_can_be_corrected(
    instance, launch, project_id
):
    app = launch(project_id)
    app.wait_until_ready()
    press_all(app, project_id, instance, clip_max_norm=-1)
    start(app)
    data, state = app.post("/sly/data"), app.post("/sly/state")
    assert state["slyAppShowDialog"] is True
    assert data["slyAppDialogMessage"] == (
        "hyperparameters: clip_max_norm = -1: Input should be greater than or equal to 0"
    )
    assert app.process.poll() is None


def test_an_experiment_is_continued_from_its_page(instance, launch, project_id):
    first = launch(project_id, state_of(TAGS, hyperparameters={"seed": 77}))
    assert first.wait(240) == 0, first.log_tail(60)
    parameters = {
        "modal.state.trainTaskId": str(first.task_id),
        "modal.state.trainMode": "continue",
    }
    app = launch(project_id, environment=parameters)
    app.wait_until_ready()
    data, state = app.post("/sly/data"), app.post("/sly/state")
    assert "Training configuration is loaded from the experiment" in json.dumps(data)
    assert state[app.widgets("RadioTabs")[0]]["value"] == "Custom models"
    assert yaml.safe_load(state[app.widgets("Editor")[0]]["text"])["seed"] == 77


def test_the_attributes_that_training_code_uses(launch, project_id, tmp_path):
    report = tmp_path / "attributes.json"
    app = launch(
        project_id,
        state_of(TAGS),
        environment={"ATTRIBUTES_FILE": str(report)},
        app_dir=Path(__file__).with_name("probe"),
    )
    assert app.wait(240) == 0, app.log_tail(60)
    found = json.loads(report.read_text())
    work_dir = str(app.log_file.parent / "work_dir")
    assert found["work_dir"] == work_dir
    assert found["output_dir"] == f"{work_dir}/output"
    assert found["project_dir"] == f"{work_dir}/sly_project"
    assert found["train_dataset_dir"] == f"{work_dir}/sly_project/train"
    assert found["val_dataset_dir"] == f"{work_dir}/sly_project/val"
    assert (found["project_id"], found["project_name"]) == (project_id, "digits [v1] é")
    assert found["project_info"] == project_id
    assert found["project_meta"] == CLASSES
    assert found["sly_project"] == {"train": 6, "val": 4}
    assert (found["model_name"], found["model_source"]) == (MODEL, "Pretrained models")
    assert list(found["model_files"]) == ["config"]
    assert found["model_info"] == MODEL
    assert found["hyperparameters"]["epoches"] == 2
    assert found["classes"] == CLASSES
    assert found["device"] == "cpu"
    assert found["app_state"]["model"]["model_name"] == MODEL


@pytest.mark.parametrize("enable", [True, False])
def test_a_project_with_polygons_only(instance, launch, tmp_path, enable):
    name = f"polygons {enable}"
    project_id = make_project(instance.store, tmp_path / "data", polygons=CLASSES, name=name)
    state = state_of(TAGS)
    state["options"]["convert_class_shapes"] = enable
    app = launch(project_id, state)
    if enable:
        assert app.wait(240) == 0, app.log_tail(60)
        folder = f"/experiments/{project_id}_{name}/{app.task_id}_RT-DETRv2"
        meta = read_json(instance.store, files_below(instance.store, folder)["model_meta.json"])
        assert {c["shape"] for c in meta["classes"]} == {"rectangle"}
    else:
        assert app.wait(240) == 1, app.log_tail(60)
        assert "Enable conversion checkbox or select compatible classes" in app.log_tail(1)


def test_without_conversion_other_shapes_are_left_out_and_counted(instance, launch, tmp_path):
    name, polygons = "mixed shapes", ["3", "7"]
    project_id = make_project(instance.store, tmp_path / "data", polygons=polygons, name=name)
    stats = instance.store.projects.statistics(project_id)["objects"]["items"]
    count = {item["objectClass"]["name"]: item["total"] for item in stats}
    state = state_of(TAGS)
    state["options"]["convert_class_shapes"] = False
    app = launch(project_id, state)
    assert app.wait(240) == 0, app.log_tail(60)
    assert (
        "Objects that are no rectangles are left out: "
        f"3 ({count['3']} objects), 7 ({count['7']} objects)"
    ) in app.log()
    assert "Traceback" not in app.log()


def test_a_wrong_hyperparameter_ends_before_the_download(instance, launch, project_id):
    app = launch(project_id, state_of(TAGS, hyperparameters={"optimizr": {"lr": 1}}))
    assert app.wait(240) == 1
    assert "unknown key 'optimizr'; did you mean 'optimizer'?" in app.log_tail(3)
    assert "Downloading" not in app.log()


# Stop


def wait_for_epoch(app):
    log = app.runs.output / "log.jsonl"
    app.wait_for(lambda: log.is_file() and epochs_in(log), "first epoch")


@pytest.mark.parametrize("way", ["button", "shutdown", "SIGTERM"])
def test_a_stopped_training_is_uploaded(instance, launch, project_id, way):
    state = state_of(TAGS, hyperparameters={"epoches": 5000})
    state["options"]["model_benchmark"]["enable"] = way == "SIGTERM"
    app = launch(project_id, state)
    wait_for_epoch(app)
    if way == "button":
        app.click(app.widgets("Button", "Stop")[0])
    elif way == "shutdown":
        app.post("/sly/shutdown")
    else:
        app.process.send_signal(signal.SIGTERM)
    assert app.wait(240) == 0, app.log_tail(60)
    _, files, info = experiment_of(instance, project_id, app.task_id)
    assert set(files) >= ARTIFACTS
    assert info["best_checkpoint"] == "best.pth"
    assert not app.runs.path.exists()
    no_report = (
        "The experiment is complete, but it has no evaluation report: the training was stopped"
    )
    assert app.app_log.shortcomings() == ([no_report] if way == "SIGTERM" else [])


def test_stopped_in_finalization_the_upload_is_finished(instance, launch, project_id):
    app = launch(project_id, state_of(TAGS))
    app.wait_for(lambda: "Finalizing training" in app.log(), "finalization")
    app.process.send_signal(signal.SIGTERM)
    assert app.wait(240) == 0, app.log_tail(60)
    _, files, _ = experiment_of(instance, project_id, app.task_id)
    assert set(files) >= ARTIFACTS


def test_stopped_in_preparation_there_is_nothing_to_save(instance, launch, project_id):
    app = launch(project_id, state_of(TAGS))
    app.wait_for(lambda: "Preparing for training" in app.log(), "preparation")
    app.process.send_signal(signal.SIGTERM)
    assert app.wait(240) == 0, app.log_tail(60)
    assert "nothing to save" in app.log()
    folder = f"/experiments/{project_id}_digits [v1] é/{app.task_id}_RT-DETRv2"
    assert files_below(instance.store, folder) == {}
    assert not app.runs.path.exists()


# Going on


def test_a_killed_training_goes_on_by_itself(instance, launch, project_id):
    split = {"method": "random", "split": "train", "percent": 60}
    state = state_of(split, hyperparameters={"epoches": 12})
    first = launch(project_id, state)
    wait_for_epoch(first)
    first.kill()
    saved = first.runs.load()
    assert saved is not None
    second = launch(project_id, state, task_id=first.task_id)
    assert second.wait(240) == 0, second.log_tail(60)
    assert "Going on from last.pth" in second.log()
    assert "Going on after epoch" in second.log()
    _, files, info = experiment_of(instance, project_id, first.task_id)
    assert set(files) >= ARTIFACTS
    assert not second.runs.path.exists()


@pytest.mark.parametrize("way", ["refused", "killed"])
def test_an_upload_that_did_not_end_is_resumed_by_its_button(
    instance, launch, project_id, monkeypatch, way
):
    put = instance.store.files.put
    reached, go_on = threading.Event(), threading.Event()

    def interrupted(team_id, path, incoming):
        if path.endswith("last.pth"):
            reached.set()
            if way == "refused":
                raise InvalidRequestError("no space left on device")
            assert go_on.wait(240)
        return put(team_id, path, incoming)

    monkeypatch.setattr(instance.store.files, "put", interrupted)
    first = launch(project_id, state_of(TAGS))
    if way == "refused":
        assert first.wait(240) == 1, first.log_tail(60)
    else:
        first.wait_for(reached.is_set, "upload")
        first.kill()
        monkeypatch.undo()
        go_on.set()
    assert first.runs.path.exists()  # nothing is thrown away before it is safe
    monkeypatch.undo()

    second = launch(project_id, state_of(TAGS), task_id=first.task_id)
    second.wait_until_ready()
    assert "Resume upload mode is enabled" in second.log()
    with contextlib.suppress(httpx.HTTPError):
        second.click(second.widgets("Button", "Resume Upload")[0])
    assert second.wait(240) == 0, second.log_tail(60)
    assert "epoch=" not in second.log().split("Resume upload mode is enabled")[1]  # not trained
    _, files, _ = experiment_of(instance, project_id, first.task_id)
    assert set(files) >= ARTIFACTS
    assert not second.runs.path.exists()


def test_weights_in_the_cache_need_no_network(instance, launch, project_id, tmp_path):
    row = next(r for r in json.loads(MODELS.read_text()) if r["Model"] == "RT-DETRv2-S")
    cache = tmp_path / "home" / ".cache" / "supervisely" / "checkpoints"
    cache.mkdir(parents=True)
    cfg = YAMLConfig(
        CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", **NETWORK, num_classes=10
    )
    file = cache / Path(row["meta"]["model_files"]["checkpoint"]).name
    torch.save({"ema": {"module": cfg.model.state_dict()}}, file)
    model = {"source": "Pretrained models", "model_name": "RT-DETRv2-S"}
    environment = {"HOME": str(tmp_path / "home")}
    app = launch(project_id, state_of(TAGS, model=model), environment=environment)
    assert app.wait(240) == 0, app.log_tail(60)
    assert f"tuning from {file}" in app.log()
    assert "new=0 dropped=0" in app.log()
    _, _, info = experiment_of(instance, project_id, app.task_id)
    assert info["model_name"] == "RT-DETRv2-S"
    assert info["base_checkpoint"] == file.name
