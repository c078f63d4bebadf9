"""Trainings through the real SDK, as a platform starts them."""

import contextlib
import json
import re
import signal
import threading

import httpx
import pytest
import yaml

from rtdetrv2_pytorch.src.misc.text import counted
from supervisely_integration.local.launcher.app_log import AppLog
from supervisely_integration.paths import DEMO, MODELS
from supervisely_integration.task_status import TaskStatus
from tests.app.experiment import QUICK
from tests.app.process_listing import command_lines, listening_addresses
from tests.app.real_app import (
    CLASSES,
    MODEL,
    TAGS,
    TINY,
    files_below,
    make_project,
    read_json,
    state_of,
)

NAME = "digits [v1] é"
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
FOREVER = {"epoches": 5000}


@pytest.fixture(scope="module")
def project_id(instance, tmp_path_factory):
    return make_project(instance.store, tmp_path_factory.mktemp("digits"), name=NAME)


def experiment_of(instance, project_id, task_id, name=NAME):
    folder = f"/experiments/{project_id}_{name}/{task_id}_RT-DETRv2"
    files = files_below(instance.store, folder)
    assert "experiment_info.json" in files, sorted(files)
    return files, read_json(instance.store, files["experiment_info.json"])


def epochs_in(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["epoch"] for line in lines if line["event"] == "epoch"]


def wait_for_epoch(app):
    log = app.runs.output / "log.jsonl"
    app.wait_for(lambda: log.is_file() and epochs_in(log), "first epoch")


def dataset_ids(instance, project_id):
    rows = instance.store.database.rows(
        "SELECT id, name FROM datasets WHERE project_id = ?", (project_id,)
    )
    return {row["name"]: row["id"] for row in rows}


# A complete experiment


def test_experiment_has_all_files_and_no_local_paths(experiment):
    files = experiment.files
    other = ("logs/", "visualization/", "demo/", "export/")
    groups = {prefix: {n for n in files if n.startswith(prefix)} for prefix in other}
    expected = ARTIFACTS | {"report.html", "Model Evaluation Report.lnk"}
    assert set(files) - set().union(*groups.values()) == expected
    assert {name: experiment.text(name) for name in groups["demo/"]} == {
        f"demo/{path.name}": path.read_text() for path in DEMO.iterdir() if path.is_file()
    }
    assert {"demo/README.md", "demo/demo_common.py"} < groups["demo/"]
    assert groups["logs/"]
    assert all(".tfevents." in name for name in groups["logs/"])
    assert groups["visualization/"]
    assert str(experiment.folder) not in experiment.text("model_config.yml")
    classes = experiment.json("model_meta.json")["classes"]
    assert [each["title"] for each in classes] == CLASSES
    assert {each["shape"] for each in classes} == {"rectangle"}
    assert not (experiment.folder / "runs" / str(experiment.task_id)).exists()
    assert not files_below(experiment.store, "/offline-sessions")  # copies of the page


def test_experiment_info_describes_the_training(experiment):
    info = experiment.info
    name = f"on {experiment.name}"
    assert info["experiment_name"] == name
    assert info["framework_name"] == "RT-DETRv2"
    assert info["model_name"] == MODEL
    assert info["task_type"] == "object detection"
    assert (info["project_id"], info["task_id"]) == (experiment.project_id, experiment.task_id)
    assert info["model_files"] == {"config": "model_config.yml"}
    assert sorted(info["checkpoints"]) == ["checkpoints/best.pth", "checkpoints/last.pth"]
    assert info["best_checkpoint"] == "best.pth"
    assert (info["train_size"], info["val_size"]) == (100, 4)
    assert info["artifacts_dir"].rstrip("/") == experiment.path
    assert info["logs"]["type"] == "tensorboard"
    for key in ("app_state", "model_meta", "train_val_split", "hyperparameters", "datetime"):
        assert key in info
    assert yaml.safe_load(experiment.text("model_config.yml"))["num_classes"] == 10
    task = experiment.store.tasks.info(experiment.task_id)
    assert task["meta"]["output"]["experiment"]["data"]["experiment_name"] == name


def test_split_file_names_every_image_of_nested_datasets(experiment):
    split = experiment.json("train_val_split.json")
    ids = dataset_ids(experiment.instance, experiment.project_id)
    rows = experiment.store.database.rows("SELECT id, dataset_id FROM images ORDER BY id")
    for name in ("train", "val"):
        assert split[name] == [row["id"] for row in rows if row["dataset_id"] == ids[name]]


def test_training_report_covers_run_and_data(experiment):
    page = experiment.text("report.html")
    assert "Finished: 3 of 3 epochs" in page
    assert "104 images: 104 used" in page  # by the data doctor
    assert str(experiment.folder) not in page


def test_status_file_reports_the_end_and_what_is_missing(experiment):
    status = TaskStatus.load(experiment.folder)
    assert (status.state, status.error) == ("finished", None)
    assert list(status.missing) == ["TensorRT"]
    assert status.missing["TensorRT"].startswith("TensorRT is not available")


def test_attributes_that_training_code_uses(experiment):
    found = experiment.attributes
    work_dir = str(experiment.folder / "work_dir")
    assert found["work_dir"] == work_dir
    assert found["output_dir"] == f"{work_dir}/output"
    assert found["project_dir"] == f"{work_dir}/sly_project"
    assert found["train_dataset_dir"] == f"{work_dir}/sly_project/train"
    assert found["val_dataset_dir"] == f"{work_dir}/sly_project/val"
    assert (found["project_id"], found["project_name"]) == (experiment.project_id, experiment.name)
    assert found["project_info"] == experiment.project_id
    assert found["project_meta"] == CLASSES
    assert found["sly_project"] == {"train": 100, "val": 4}
    assert (found["model_name"], found["model_source"]) == (MODEL, "Pretrained models")
    assert list(found["model_files"]) == ["config"]
    assert found["model_info"] == MODEL
    assert found["hyperparameters"]["epoches"] == 3
    assert found["classes"] == CLASSES
    assert found["device"] == "cpu"
    assert found["app_state"]["model"]["model_name"] == MODEL


# Continuing from the experiment


def test_experiment_page_continues_training(experiment, launch):
    parameters = {
        "modal.state.trainTaskId": str(experiment.task_id),
        "modal.state.trainMode": "continue",
    }
    app = launch(experiment.instance, experiment.project_id, environment=parameters)
    app.wait_until_ready()
    data, state = app.post("/sly/data"), app.post("/sly/state")
    assert "Training configuration is loaded from the experiment" in json.dumps(data)
    assert state[app.widgets("RadioTabs")[0]]["value"] == "Custom models"
    assert yaml.safe_load(state[app.widgets("Editor")[0]]["text"])["seed"] == 77


def test_experiment_continues_on_another_project_without_its_classes_and_datasets(
    experiment, launch, tmp_path
):
    store = experiment.instance.store
    other = make_project(store, tmp_path / "other", name="site A/B")
    meta = store.projects.meta(other)
    kept = [each for each in meta["classes"] if each["title"] != "7"]
    store.projects.set_meta(other, {**meta, "classes": kept})
    parameters = {
        "modal.state.trainTaskId": str(experiment.task_id),
        "modal.state.trainMode": "continue",
        "HOME": str(tmp_path),  # no cached weights
        "TORCH_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:1",  # no network
    }
    app = launch(experiment.instance, other, environment=parameters)
    app.wait_until_ready()
    text = json.dumps(app.post("/sly/data"))
    assert "The project has no class 7; 9 of 10 classes are selected." in text
    assert "The project has no dataset with ID" in text
    state = app.post("/sly/state")
    assert state[app.widgets("RadioTabs")[0]]["value"] == "Custom models"
    assert yaml.safe_load(state[app.widgets("Editor")[0]]["text"])["seed"] == 77
    # The name that the page makes can be used.
    steps = app.widgets("Button", "Select")
    app.click(steps[0])
    model = {app.widgets("PretrainedModelsSelector")[0]: {"selectedRow": 0}}
    app.click(steps[1], **{app.widgets("RadioTabs")[0]: {"value": "Pretrained models"}}, **model)
    text = json.dumps(app.post("/sly/data"))
    assert "Could not download https://github.com" in text
    assert "or use RT-DETRv2-S (random weights)" in text
    (error,) = AppLog(app.log_file).new_page_errors()
    assert error.startswith("Could not download")
    app.click(steps[1], **{app.widgets("RadioTabs")[0]: {"value": "Custom models"}})
    names = [value.get("value") for key, value in app.post("/sly/state").items() if "Input" in key]
    assert any(re.fullmatch(rf"{app.task_id} site A-B RT-DETRv2-S.*", str(n)) for n in names), names


def test_custom_model_trains_on_collections_in_development_and_stops_at_shutdown(
    experiment, launch
):
    instance, project_id = experiment.instance, experiment.project_id
    # The split of the experiment exists as two collections.
    rows = instance.store.database.rows(
        "SELECT id, name FROM collections WHERE project_id = ? ORDER BY id", (project_id,)
    )
    ids = {row["name"][:3]: row["id"] for row in rows}
    split = {
        "method": "collections",
        "train_collections": [ids["tra"]],
        "val_collections": [ids["val"]],
    }
    model = {
        "source": "Custom models",
        "task_id": experiment.task_id,
        "checkpoint": "best.pth",
    }
    state = state_of(split, model=model, hyperparameters={**QUICK, **FOREVER})
    app = launch(instance, project_id, development=True)
    app.wait_until_ready()
    app.post(
        "/train_from_api",
        state={"app_state": state, "wait": False},
        context={"outside_request": True},
    )
    wait_for_epoch(app)
    app.post("/sly/shutdown")
    assert app.wait(240) == 0, app.log_tail(60)
    assert "new=0 dropped=0" in app.log()
    files, info = experiment_of(instance, project_id, -1, experiment.name)
    assert set(files) >= ARTIFACTS
    assert (info["train_size"], info["val_size"]) == (100, 4)


# The page


def select_all(app, project_id, instance, **editor):
    """Complete all steps of the page, with a split by datasets and two classes."""
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
    select_hyperparameters(app, steps[4], **editor)
    return steps[4]


def select_hyperparameters(app, button, **editor):
    text = json.dumps({**TINY, **editor})
    app.click(button, **{app.widgets("Editor")[0]: {"text": text}})


def start(app):
    """Press Start; the request lasts as long as the training, and may end with the process."""
    with contextlib.suppress(httpx.HTTPError):
        app.click(app.widgets("Button", "Start")[0])


def check_tensorboard(app, token):
    """It is started when it is opened, on the loopback interface, without the token."""
    session = app.process.pid
    assert not [line for line in command_lines(session) if "tensorboard" in line]
    assert "TensorBoard" in app.client.get("/tensorboard/").raise_for_status().text
    shown = app.client.get("/tensorboard/data/environment").raise_for_status().json()
    assert shown["data_location"] == str(app.runs.output / "summary")
    lines = [line for line in command_lines(session) if "tensorboard" in line]
    assert lines
    assert not [line for line in lines if token in line]
    assert listening_addresses(session) <= {"127.0.0.1", "::1"}


def test_page_reports_a_wrong_value_then_trains_and_stops(instance, launch, project_id):
    app = launch(instance, project_id)
    app.wait_until_ready()
    step = select_all(app, project_id, instance, clip_max_norm=-1)
    start(app)
    data, state = app.post("/sly/data"), app.post("/sly/state")
    assert state["slyAppShowDialog"] is True
    message = data["slyAppDialogMessage"]
    assert message.startswith("hyperparameters, line 1: clip_max_norm = -1: ")
    assert message.endswith("greater than or equal to 0")
    assert app.process.poll() is None

    select_hyperparameters(app, step, **FOREVER)
    started = threading.Thread(target=start, args=(app,), daemon=True)
    started.start()
    wait_for_epoch(app)
    check_tensorboard(app, instance.token)
    app.click(app.widgets("Button", "Stop")[0])
    assert app.wait(240) == 0, app.log_tail(60)
    files, info = experiment_of(instance, project_id, app.task_id)
    assert set(files) >= ARTIFACTS
    assert info["best_checkpoint"] == "best.pth"
    assert (info["train_size"], info["val_size"]) == (6, 4)  # images without objects stay
    meta = read_json(instance.store, files["model_meta.json"])
    assert [c["title"] for c in meta["classes"]] == ["3", "7"]  # in the order of the project
    config = yaml.safe_load(instance.store.files.contents(files["model_config.yml"]).read_text())
    assert config["num_classes"] == 2
    stopped = {"evaluation_report": "the training was stopped"}  # selected by default
    assert TaskStatus.load(app.data_dir) == TaskStatus("finished", missing=stopped)
    assert not app.runs.path.exists()


# Settings that cannot be used


def test_invalid_settings_end_the_app_before_the_download(instance, launch, project_id, tmp_path):
    only_polygons = make_project(
        instance.store, tmp_path / "data", polygons=CLASSES, name="only polygons"
    )
    unconverted = state_of(TAGS)
    unconverted["options"]["convert_class_shapes"] = False
    misspelled = state_of(TAGS, hyperparameters={"optimizr": {"lr": 1}})
    apps = [
        launch(instance, only_polygons, unconverted),
        launch(instance, project_id, misspelled),
    ]
    reasons = (
        "Enable conversion checkbox or select compatible classes",
        "unknown key 'optimizr'; did you mean 'optimizer'?",
    )
    for app, reason in zip(apps, reasons, strict=True):
        assert app.wait(240) == 1, app.log_tail(60)
        status = TaskStatus.load(app.data_dir)
        assert (status.state, status.error_type) == ("failed", "ConfigError")
        assert reason in status.error
        assert reason in app.log_tail(3)  # a thread of the SDK may log a line after it
        assert "Downloading" not in app.log()


# Stop


def test_sigterm_stops_a_training_of_mixed_shapes(instance, launch, tmp_path):
    """Without conversion, objects of other shapes are left out and counted."""
    name, polygons = "mixed shapes", ["3", "7"]
    project_id = make_project(instance.store, tmp_path / "data", polygons=polygons, name=name)
    stats = instance.store.projects.statistics(project_id)["objects"]["items"]
    count = {item["objectClass"]["name"]: item["total"] for item in stats}
    state = state_of(TAGS, hyperparameters=FOREVER)
    state["options"]["convert_class_shapes"] = False
    state["options"]["model_benchmark"]["enable"] = True
    app = launch(instance, project_id, state)
    wait_for_epoch(app)
    app.process.send_signal(signal.SIGTERM)
    assert app.wait(240) == 0, app.log_tail(60)
    assert (
        f"Non-rectangular objects are left out: 3 ({counted(count['3'], 'object')}), "
        f"7 ({counted(count['7'], 'object')})"
    ) in app.log()
    assert "Traceback" not in app.log()
    files, info = experiment_of(instance, project_id, app.task_id, name)
    assert set(files) >= ARTIFACTS
    assert info["best_checkpoint"] == "best.pth"
    assert not app.runs.path.exists()
    status = TaskStatus.load(app.data_dir)
    assert status.state == "finished"
    assert status.missing == {"evaluation_report": "the training was stopped"}


def test_sigterm_in_preparation_saves_nothing(instance, launch, project_id):
    app = launch(instance, project_id, state_of(TAGS))
    app.wait_for(lambda: "Preparing for training" in app.log(), "preparation")
    app.process.send_signal(signal.SIGTERM)
    assert app.wait(240) == 0, app.log_tail(60)
    assert "nothing to save" in app.log()
    assert TaskStatus.load(app.data_dir).state == "stopped"
    folder = f"/experiments/{project_id}_{NAME}/{app.task_id}_RT-DETRv2"
    assert files_below(instance.store, folder) == {}
    assert not app.runs.path.exists()


# Resume


def test_killed_training_resumes_and_completes_its_upload_after_sigterm(
    instance, launch, project_id
):
    split = {"method": "random", "split": "train", "percent": 60}
    state = state_of(split, hyperparameters={"epoches": 12})
    first = launch(instance, project_id, state)
    wait_for_epoch(first)
    first.kill()
    saved = first.runs.load()
    assert saved is not None
    assert TaskStatus.load(first.data_dir).state == "running"
    second = launch(instance, project_id, state, task_id=first.task_id)
    second.wait_for(lambda: "Finalizing training" in second.log(), "finalization")
    second.process.send_signal(signal.SIGTERM)
    assert second.wait(240) == 0, second.log_tail(60)
    assert "Resuming from last.pth" in second.log()
    assert "Resuming after epoch" in second.log()
    files, info = experiment_of(instance, project_id, first.task_id)
    assert set(files) >= ARTIFACTS
    assert (info["train_size"], info["val_size"]) == (6, 4)
    assert not second.runs.path.exists()


def test_killed_upload_is_completed_by_the_resume_button(instance, launch, project_id, monkeypatch):
    put = instance.store.files.put
    reached, proceed = threading.Event(), threading.Event()

    def interrupted(team_id, path, incoming):
        if path.endswith("last.pth"):
            reached.set()
            assert proceed.wait(240)
        return put(team_id, path, incoming)

    monkeypatch.setattr(instance.store.files, "put", interrupted)
    first = launch(instance, project_id, state_of(TAGS))
    first.wait_for(reached.is_set, "upload")
    first.kill()
    monkeypatch.undo()
    proceed.set()
    assert first.runs.path.exists()  # nothing is deleted before it is uploaded

    second = launch(instance, project_id, state_of(TAGS), task_id=first.task_id)
    second.wait_until_ready()
    assert "Resume upload mode is enabled" in second.log()
    with contextlib.suppress(httpx.HTTPError):
        second.click(second.widgets("Button", "Resume Upload")[0])
    assert second.wait(240) == 0, second.log_tail(60)
    assert "epoch=" not in second.log().split("Resume upload mode is enabled")[1]  # not trained
    files, _ = experiment_of(instance, project_id, first.task_id)
    assert set(files) >= ARTIFACTS
    assert not second.runs.path.exists()
