"""The `train` command: settings from options, and complete trainings in a terminal."""

import json
import os
import shlex
import socket
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rtdetrv2.commands import export_onnx
from rtdetrv2.terminal.console import INTERRUPTED
from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.timing.estimates import Speed
from supervisely_integration.local.emulator.storage.sql.listing import Listing
from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.launcher import choices, cli, train_session
from supervisely_integration.local.launcher.app_log import AppError, AppLog, Bar
from supervisely_integration.local.launcher.app_process import AppProcess
from supervisely_integration.local.launcher.choices import hyperparameters_for, sample_choices
from supervisely_integration.local.launcher.results import find_experiment, finish_task
from supervisely_integration.local.launcher.selection import (
    Project,
    app_state,
    choose_classes,
    choose_split,
    find_import,
    find_project,
    folder_fingerprint,
    note_import,
    read_project,
    split_note,
)
from supervisely_integration.local.launcher.train_session import _named_project, follow
from supervisely_integration.models import find_base_config
from supervisely_integration.paths import ROOT
from supervisely_integration.task_status import TaskStatus
from supervisely_integration.train.run_config import check_hyperparameters
from tests.app.real_app import MODEL, TINY, make_project, start_preloaded, state_of
from tests.ranks import free_port
from tests.terminal import module_in_terminal, noise

SMALL = {key: value for key, value in TINY.items() if key[0].isupper()}
PROJECT = Project(
    id=3,
    name="animals",
    classes=("cat", "dog", "owl"),
    datasets={"day": 11, "night": 12, "night/moon": 13},
    num_images={11: 10, 12: 5, 13: 5},
    extent=DataExtent(longest_side=640, max_boxes=9, mean_boxes=4.0),
)


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory):
    """Root of an instance with one project; read only."""
    folder = tmp_path_factory.mktemp("read_only")
    make_project(Store(folder / "root"), folder / "digits", name="digits")
    return folder / "root"


def test_find_project_by_name_and_id(digits_root):
    store = Store(digits_root)
    project = find_project(store, "digits")
    assert project == find_project(store, "1")
    assert project.classes == tuple("0123456789")
    assert set(project.datasets) == {"train", "val"}
    assert [project.num_images[project.datasets[n]] for n in ("train", "val")] == [6, 4]
    assert project.extent.longest_side == 320
    assert 1 <= project.extent.mean_boxes <= project.extent.max_boxes <= 6
    stored = store.database.rows("SELECT count(*) FROM figures")[0][0]
    assert project.extent.mean_boxes == stored / 10
    with pytest.raises(DatasetError, match=r"no project 'cats'; projects: digits \(\d+\)"):
        find_project(store, "cats")


def test_project_named_like_an_id(tmp_path):
    store = Store(tmp_path / "root")
    first, second = store.projects.create("2"), store.projects.create("digits")
    assert (first, second) == (1, 2)
    assert find_project(store, "2").id == 1
    assert find_project(store, "1").id == 1
    assert (read_project(store, 2).id, read_project(store, 2).name) == (2, "digits")


def test_choose_classes():
    assert choose_classes(PROJECT, None) == ["cat", "dog", "owl"]
    assert choose_classes(PROJECT, "owl, cat") == ["owl", "cat"]
    with pytest.raises(ConfigError, match=r"no class \['cow'\]; it has cat, dog, owl"):
        choose_classes(PROJECT, "cow,cat")
    with pytest.raises(ConfigError, match=r"no class \[', '\]; it has cat, dog, owl"):
        choose_classes(PROJECT, ", ")


def test_choose_split():
    assert choose_split(PROJECT, "random:70") == (
        {"method": "random", "split": "train", "percent": 70},
        14,
        6,
    )
    assert choose_split(PROJECT, "datasets:day,night:night/moon") == (
        {"method": "datasets", "train_datasets": [11, 12], "val_datasets": [13]},
        15,
        5,
    )
    named = replace(PROJECT, datasets={"Train": 11, "valid": 12, "test": 13})
    assert choose_split(named, None) == (
        {"method": "datasets", "train_datasets": [11], "val_datasets": [12]},
        10,
        5,
    )
    assert choose_split(PROJECT, None)[0]["percent"] == 80
    only_train = replace(PROJECT, datasets={"train": 11}, num_images={11: 10})
    assert choose_split(only_train, None)[1:] == (8, 2)
    assert split_note(only_train) == (
        "Random split of 10 images (the datasets name a training split only): 80 % training, 20 % "
        "validation, chosen by the platform at each start"
    )
    split, train, val = choose_split(PROJECT, "tags:a:b")
    assert (split["train_tag"], split["val_tag"]) == ("a", "b")
    assert (train, val) == (20, 20)


@pytest.mark.parametrize("text", ["random:0", "random:x", "halves", "datasets:day", "tags:a"])
def test_invalid_splits_are_rejected(text):
    with pytest.raises(ConfigError, match="use random:80"):
        choose_split(PROJECT, text)


def test_settings_match_those_of_the_page():
    split = {"method": "random", "split": "train", "percent": 80}
    state = app_state(model="RT-DETRv2-S", classes=["cat"], split=split, hyperparameters="a: 1")
    assert state["model"] == {"source": "Pretrained models", "model_name": "RT-DETRv2-S"}
    assert state["start_training"] is True
    assert state.keys() == state_of(split).keys()
    assert state["options"] == state_of(split)["options"]


def test_settings_contain_report_and_exports():
    chosen = {"model": "RT-DETRv2-S", "classes": ["cat"], "split": {}, "hyperparameters": ""}
    options = app_state(**chosen, benchmark=True, exports=["onnx"])["options"]
    assert options["model_benchmark"] == {"enable": True, "speed_test": False}
    assert options["export"] == {"enable": True, "ONNXRuntime": True, "TensorRT": False}
    # A speed test is a part of the report.
    options = app_state(**chosen, speed_test=True)["options"]
    assert options["model_benchmark"] == {"enable": True, "speed_test": True}
    assert options["export"] == {"enable": False, "ONNXRuntime": False, "TensorRT": False}


def test_folder_is_imported_again_after_a_change(tmp_path):
    store = Store(tmp_path / "root")
    one, other = (
        make_digits_dataset(tmp_path / n / "digits", num_train=2, num_val=1) for n in "ab"
    )
    # Folders with the same name in two places are two datasets.
    first = folder_fingerprint(one)
    assert folder_fingerprint(one) == first != folder_fingerprint(other)
    in_latin_1 = one / os.fsdecode(b"caf\xe9")
    in_latin_1.write_text("")
    assert folder_fingerprint(one) != first
    in_latin_1.unlink()
    assert find_import(store, first) is None
    id_ = store.projects.create("digits", customData={"mine": 1})
    note_import(store, id_, first)
    assert find_import(store, first) == id_
    assert store.projects.info(id_)["customData"]["mine"] == 1
    (one / "train" / "00001.jpg").unlink()
    assert find_import(store, folder_fingerprint(one)) is None
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        folder_fingerprint(tmp_path / "nowhere")


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train_in_terminal(folder, root, *arguments):
    words = ["train", *map(str, arguments), "--root", str(root)]
    return module_in_terminal("supervisely_integration.local", words, folder, ENVIRONMENT)


def test_training_in_a_terminal(tmp_path, monkeypatch):
    root = tmp_path / "instance"
    make_project(Store(root), tmp_path / "digits", name="digits")
    changes = {**{k: v for k, v in TINY.items() if k != "epoches"}, "report": True}
    updates = [part for k, v in changes.items() for part in ("-u", f"{k}={json.dumps(v)}")]
    shown = train_in_terminal(
        tmp_path,
        root,
        *("--project", "digits", "--model", MODEL, "--epochs", 1, "--classes", "3,7"),
        *("--name", "first", "--port", free_port(), "--export", "tensorrt", *updates),
    )
    assert shown.code == 0, shown.text
    assert noise(shown.text) == []
    assert "\x1b[1mTraining\x1b[0m on 6 images, evaluating on 4; 2 classes: 3, 7" in shown.raw
    assert "epoch   1/1  AP" in shown.text
    folder = "/experiments/1_digits/1_RT-DETRv2"
    log = root / "tasks" / "1" / "app.log"
    assert [f"{folder}/", f"{folder}/report.html"] == shown.lines[-10:-8]
    assert shown.lines[-8:-6] == ["The log", str(log)]
    local = root / folder.lstrip("/")
    assert shown.lines[-6:-4] == ["On disk", str(local)]
    assert shown.lines[-4] == "Next open the report, predict, export"
    report, predict, export = (shlex.split(line) for line in shown.lines[-3:])
    assert report[1:] == ["-m", "webbrowser", "-t", (local / "report.html").as_uri()]
    assert (local / "report.html").is_file()
    best = local.relative_to(tmp_path) / "checkpoints" / "best.pth"  # they start in this folder
    assert export[1:] == ["-m", "rtdetrv2_pytorch.tools.export_onnx", "-r", str(best)]
    done = subprocess.run(
        predict, cwd=tmp_path, env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (drawing,) = tmp_path.glob("predictions/*.jpg")
    (shown_image,) = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
    assert shown_image["image"] == drawing.name
    assert (shown_image["width"], shown_image["height"]) == (320, 256)
    assert done.stdout.startswith(f"{drawing.name}: ")
    monkeypatch.chdir(tmp_path)
    assert export_onnx.main(export[3:]) == 0
    assert best.with_suffix(".onnx").is_file()
    stages = ["Starting the app as task 1, on project digits", "Preparing data"]
    stages += ["Uploading the experiment", "Evaluating the best checkpoint"]
    assert [line for line in shown.lines if line in stages] == stages
    for live in ("timing a few training steps", "epoch 1/1 ", "loss "):
        assert live in shown.text
    # The report is on by default; it fails for a model without detections.
    said = log.read_text()
    status = TaskStatus.load(log.parent)
    assert status.state == "finished"
    assert status.missing.keys() == {"evaluation_report", "TensorRT"}  # there is no GPU
    for notice, part in (
        ("no evaluation report", "evaluation_report"),
        ("no export for TensorRT", "TensorRT"),
    ):
        assert f"{notice}; {' '.join(status.missing[part].split())}" in shown.words
    assert '"message": "Application PID is' in said
    store = Store(root)
    info = find_experiment(store, 1)
    assert info["experiment_name"] == "first"
    assert (info["train_size"], info["val_size"]) == (6, 4)
    assert store.tasks.info(1)["status"] == "finished"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("-u", "optimizr=1"),
            "-u: unknown key 'optimizr'; did you mean 'optimizer'?",
        ),
        (
            ("-u", "eval_spatial_size=64"),
            "-u: eval_spatial_size = 64: give",
        ),
        (("--model", "RT-DETRv2-XXL"), "--model 'RT-DETRv2-XXL': unknown; use one of RT-DETRv2-S"),
        (("--classes", "cat"), "--classes 'cat': the project has no class ['cat']; it has 0, 1,"),
    ],
)
def test_invalid_options_are_rejected_at_once(digits_root, capsys, options, sentence):
    root = digits_root
    arguments = ("--project", "digits", "--model", MODEL, "--port", str(free_port()), *options)
    assert cli.main(["train", "--root", str(root), *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"ConfigError: {sentence}")
    assert shown.out == ""  # no steps were timed and no app was started
    assert not (root / "tasks").exists()


def train(root, *options):
    return cli.main(["train", "--root", str(root), "--port", str(free_port()), *map(str, options)])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-u", "optimizr=1"), "-u: unknown key 'optimizr'"),
        (("--classes", "cat"), "--classes 'cat': the project has no class ['cat']; it has 0, 1,"),
    ],
)
def test_invalid_options_are_rejected_before_an_import(tmp_path, capsys, options, sentence):
    data = make_digits_dataset(tmp_path / "data", num_train=2, num_val=1)
    root = tmp_path / "root"
    assert train(root, "--data", data, *options) == 1
    assert capsys.readouterr().err.startswith(f"ConfigError: {sentence}")
    assert Store(root).projects.page(Listing())["entities"] == []


def test_split_is_named_once(tmp_path, capsys, monkeypatch):
    """By the import, or else for the project that is used."""

    def stop(*_):
        raise ConfigError("before the training")

    monkeypatch.setattr(train_session, "pick_model", stop)
    data = make_digits_dataset(tmp_path / "data", num_train=2, num_val=1)
    root = tmp_path / "root"
    note = "Splits of the data: training train (2 images), validation val (1 image)"
    for _ in range(2):  # the second time, the folder has been imported
        assert train(root, "--data", data) == 1
        assert capsys.readouterr().out.count(note) == 1


def test_settings_without_a_project_use_the_one_that_they_name(digits_root, tmp_path, capsys):
    path = tmp_path / "state.json"
    settings = state_of({"method": "random", "split": "train", "percent": 60})
    path.write_text(json.dumps({**settings, "input": {"project_id": 1}}))
    assert _named_project(path, Store(digits_root)).name == "digits"
    for given, problem in (({}, "no project"), ({"project_id": 77}, "project 77, which does not")):
        path.write_text(json.dumps({**settings, "input": given}))
        assert train(digits_root, "--app-state", path) == 1
        error = " ".join(capsys.readouterr().err.split())
        assert error.startswith(f"ConfigError: {path}: names {problem}")
        assert error.endswith("; give --project, --data or --sample")
    path.write_text(json.dumps({"model": settings["model"], "input": {"project_id": 1}}))
    assert train(digits_root, "--app-state", path) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith(f"ConfigError: {path}: train_val_split = None: give {{'method'")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not readable"),
        ("[" * 100_000, "not readable (nested too deeply)"),
        ("[1]", "not an object"),
        (None, "No such"),
    ],
)
def test_invalid_app_state_is_rejected(tmp_path, capsys, text, problem):
    root, state = tmp_path / "instance", tmp_path / "state.json"
    Store(root).projects.create("digits")
    if text is not None:
        state.write_text(text)
    options = ["--project", "digits", "--app-state", str(state), "--port", str(free_port())]
    assert cli.main(["train", "--root", str(root), *options]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.startswith(f"ConfigError: {state}: ")
    assert problem in shown


def test_failed_training_reports_the_error(tmp_path, capsys):
    root = tmp_path / "instance"
    make_project(Store(root), tmp_path / "digits", name="digits")
    state = tmp_path / "state.json"
    split = {"method": "random", "split": "train", "percent": 60}
    state.write_text(json.dumps(state_of(split, hyperparameters={"optimizr": 1})))
    arguments = ("--project", "digits", "--app-state", state, "--port", free_port())
    shown = train_in_terminal(tmp_path, root, *arguments)
    log = root / "tasks" / "1" / "app.log"
    sentence = "hyperparameters, line 1: unknown key 'optimizr'; did you mean 'optimizer'?"
    assert shown.code == 1
    assert noise(shown.text) == []
    assert "Starting the app as task 1, on project digits" in shown.lines
    assert f"\x1b[1;31mConfigError\x1b[0m: {sentence}" in shown.raw
    assert shown.lines[-2:] == ["Log:", str(log)]
    assert "Traceback" in log.read_text()
    assert '"level": "error"' in log.read_text()
    task = Store(root).tasks.info(1)
    assert (task["status"], task["error"]) == ("error", sentence)


def test_resumed_task_that_fails_again(tmp_path, capsys, monkeypatch):
    """Without a terminal, and in this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(AppProcess, "_start", start_preloaded)
    store = Store(tmp_path / "instance")
    project_id = make_project(store, tmp_path / "digits", name="digits")
    split = {"method": "random", "split": "train", "percent": 60}
    state = state_of(split, hyperparameters={"optimizr": 1})
    task_id = store.tasks.create(
        app={"id": 1, "name": "Train RT-DETRv2", "version": "local"},
        state={"slyProjectId": project_id, "guiState": state},
    )
    arguments = ["--task", str(task_id), "--port", str(free_port()), "--root", str(store.root)]
    assert cli.main(["train", *arguments]) == 1
    shown = capsys.readouterr()
    log = store.root / "tasks" / "1" / "app.log"
    assert shown.out.splitlines() == ["Starting the app as task 1, on project digits"]
    assert shown.err.splitlines() == [
        "ConfigError: hyperparameters, line 1: unknown key 'optimizr'; did you mean 'optimizer'?",
        *("Log:", str(log)),
    ]


@pytest.mark.parametrize(("epochs", "balanced_paste"), [(2, 0.5), (100, None)])
def test_sample_has_its_own_augmentation(digits_root, monkeypatch, epochs, balanced_paste):
    monkeypatch.setattr(choices, "measure", lambda _: Speed(20.0, 0.1, 0.1))
    store = Store(digits_root)
    given = {"eval_spatial_size": [64, 64], "batch_size": 2, **SMALL, "epoches": epochs}
    values, _ = hyperparameters_for(
        find_project(store, "digits"), MODEL, 6, 4, given, num_classes=10, preset=sample_choices()
    )
    assert (values["augmentation"], values["balanced_paste"]) == ("none", balanced_paste)
    check_hyperparameters(values, find_base_config("rtdetrv2_r18vd_120e_coco.yml"))


@pytest.mark.parametrize(
    ("given", "num_classes", "augmentation", "balanced_paste"),
    [
        ({}, 2, "none", 0.5),
        ({}, 1, "none", None),
        ({"balanced_paste": 0}, 2, "none", 0),
        ({"augmentation": None}, 2, None, None),
        ({"augmentation": "light"}, 2, "light", None),
        ({"epoches": 100}, 2, None, None),
        ({"time_budget": "2h"}, 2, None, None),  # can choose many epochs
    ],
)
def test_short_trainings_from_random_weights_paste_objects(
    digits_root, monkeypatch, given, num_classes, augmentation, balanced_paste
):
    monkeypatch.setattr(choices, "measure", lambda _: Speed(20.0, 0.1, 0.1))
    project = find_project(Store(digits_root), "digits")
    values, _ = hyperparameters_for(project, MODEL, 6, 4, given, num_classes=num_classes)
    assert (values["augmentation"], values["balanced_paste"]) == (augmentation, balanced_paste)


def test_follow_reads_the_last_lines_after_the_end(tmp_path):
    app_log, run = tmp_path / "app.log", tmp_path / "runs" / "1" / "output"
    event = {"event_type": "EventType.PROGRESS", "subtask": "Saving", "current": 1, "total": 2}
    app_log.write_text(json.dumps({"message": "progress", **event}) + "\n")
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text('{"event": "end"}\n')
    process = subprocess.Popen(["true"])
    process.wait()
    app = SimpleNamespace(process=process, app_log=AppLog(app_log), data_dir=tmp_path)
    assert list(follow(app, 1)) == [([Bar("Saving", 1, 2, in_bytes=False)], [{"event": "end"}])]


def test_interrupt_while_waiting_kills_the_app(tmp_path, monkeypatch):
    waited_for = []

    def interrupt(app):
        waited_for.append(app)
        raise KeyboardInterrupt

    monkeypatch.setattr(AppProcess, "wait_until_ready", interrupt)
    store = Store(tmp_path / "instance")
    make_project(store, tmp_path / "digits", name="digits")
    options = ["--gui", "--project", "digits", "--port", str(free_port())]
    assert cli.main(["train", "--root", str(store.root), *options]) == INTERRUPTED
    (app,) = waited_for
    assert app.process.poll() is not None
    assert store.tasks.info(1)["status"] == "stopped"


def test_killed_task_prints_its_resume_command(tmp_path):
    store = Store(tmp_path / "my instance")
    task_id = store.tasks.create(app={"id": 1, "name": "Train RT-DETRv2", "version": "local"})
    (tmp_path / "app.log").write_text("")
    app = SimpleNamespace(app_log=AppLog(tmp_path / "app.log"))
    with pytest.raises(AppError, match="killed by signal 9") as caught:
        finish_task(store, task_id, -9, app)
    options = f"train --task {task_id} --root '{tmp_path / 'my instance'}'"
    assert caught.value.resume_command.endswith(options)
    assert store.tasks.info(task_id)["status"] == "error"


def test_used_port_is_rejected(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--sample", "--port", str(port), "--root", str(tmp_path / "instance")]
        assert cli.main(["train", *options]) == 1
    assert f"port {port} is in use, perhaps by another app" in capsys.readouterr().err


def test_resume_of_another_task_is_rejected(tmp_path, capsys):
    root = tmp_path / "instance"
    task_id = Store(root).tasks.create(app={"id": 2, "name": "Serve RT-DETRv2", "version": "local"})
    arguments = (
        "--task",
        str(task_id),
        "--epochs",
        "3",
        "-u",
        "seed=1",
        "--port",
        str(free_port()),
    )
    assert cli.main(["train", "--root", str(root), *arguments]) == 1
    shown = capsys.readouterr()
    assert f"--task {task_id} is not a training" in shown.err
    assert shown.out == "unused with --task: --epochs, --update\n"
