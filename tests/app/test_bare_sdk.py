"""Behavior of the SDK alone. If a test fails, its work-around in `docs/sdk.md` may be obsolete."""

import inspect
import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from rtdetrv2_pytorch.src.data.readers.supervisely import dataset_folders
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.sdk.training_gui import AllShapesClassesSelector, CpuTrainingProcess
from supervisely_integration.task_status import describe_error
from tests.app.real_app import make_project
from tests.sdk import import_sdk

import_sdk()

import supervisely as sly  # noqa: E402 (imported in a thread above)
from supervisely.app.widgets import Button, SplitMethod  # noqa: E402
from supervisely.nn.benchmark import base_benchmark  # noqa: E402
from supervisely.nn.benchmark.object_detection import benchmark  # noqa: E402
from supervisely.nn.inference import inference_request  # noqa: E402
from supervisely.nn.inference.inference import Inference  # noqa: E402
from supervisely.nn.training import loggers, train_app  # noqa: E402
from supervisely.nn.training.gui import utils as gui_utils  # noqa: E402
from supervisely.nn.training.gui.classes_selector import ClassesSelector  # noqa: E402
from supervisely.nn.training.gui.hyperparameters_selector import (  # noqa: E402
    HyperparametersSelector,
)
from supervisely.nn.training.gui.training_process import TrainingProcess  # noqa: E402
from supervisely.nn.utils import RuntimeType  # noqa: E402
from supervisely.project import project  # noqa: E402

BARE = train_app.TrainApp


class Recorder:
    """Accepts every call and attribute, and records the calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return Recorder()

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return nullcontext(Recorder())


def bare_app(**attributes):
    """The SDK's `TrainApp` without its constructor, with the attributes that a test needs."""
    app = object.__new__(BARE)
    quiet = ("_set_text_status", "_set_ws_progress_status", "_show_error", "_init_logger")
    quiet += ("_prepare_working_dir", "_set_train_widgets_state_on_start")
    vars(app).update({name: Recorder() for name in (*quiet, "gui", "app", "_api")})
    vars(app).update({"_is_resume_upload": False, "_app_options": {}, **attributes})
    return app


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_version_is_the_one_that_was_examined():
    assert sly.__version__ == "6.74.51"


# The page


def test_device_is_a_gpu_without_a_gpu(monkeypatch):
    """CpuTrainingProcess."""
    assert TrainingProcess({}).get_device() == "cuda:0"
    ours = CpuTrainingProcess({"device_selector": True})
    assert (ours.get_device(), ours.get_devices(), ours.get_device_name()) == (
        "cpu",
        ["cpu"],
        "CPU",
    )


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_invalid_number_of_ranks_is_rejected(value, monkeypatch):
    monkeypatch.setenv("CPU_RANKS", value)
    with pytest.raises(ConfigError, match=f"CPU_RANKS = '{value}': .* 1 or more"):
        CpuTrainingProcess({})


def test_classes_of_other_shapes_are_hidden(instance, tmp_path, monkeypatch):
    """AllShapesClassesSelector."""
    monkeypatch.setenv("SERVER_ADDRESS", instance.address)
    monkeypatch.setenv("API_TOKEN", instance.token)
    project_id = make_project(instance.store, tmp_path, name="shapes", polygons=["3", "7"])
    models = SimpleNamespace(
        models=[{"meta": {"task_type": "object detection"}}],
        get_selected_task_type=lambda: "object detection",
    )
    bare, ours = (
        kind(project_id, [], models, {}) for kind in (ClassesSelector, AllShapesClassesSelector)
    )
    every = {str(digit) for digit in range(10)}
    assert set(bare.get_selected_classes()) == every - {"3", "7"}
    assert set(ours.get_selected_classes()) == every
    assert ours.validate_step()
    assert ours.validator_text.text.startswith("Selected 10 classes. Non-rectangular objects are")


def test_hyperparameters_are_not_checked_when_selected():
    """CheckedHyperparametersSelector in `training_gui`."""
    assert HyperparametersSelector("optimizr: {lr: 1}", {}).validate_step()


def test_stop_button_is_hidden_and_has_no_handler():
    """TrainApp.__init__, TrainApp._wrapped_start_training."""
    process = TrainingProcess({})
    app = bare_app(gui=SimpleNamespace(training_process=process))
    app.start(lambda: None)
    assert process.start_button._click_handled
    assert process.stop_button.is_hidden()
    assert not process.stop_button._click_handled


def test_error_dialog_does_not_give_the_reason(monkeypatch):
    """TrainApp._show_error."""
    dialog = Recorder()
    monkeypatch.setattr(train_app, "show_dialog", dialog)
    app = bare_app(_restore_train_widgets_state_on_error=Recorder())
    BARE._show_error(app, "Error occurred", ConfigError("lr = -1"))
    assert "lr = -1" not in str(dialog.calls)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("lr = -1: give 0 or more"), "lr = -1: give 0 or more"),
        (ValueError("no\nimages"), "Failed (ValueError: no)"),
        (KeyError("x" * 900), f"Failed (KeyError: {repr('x' * 900)[:300]})"),
    ],
)
def test_errors_are_described_in_one_sentence(error, expected):
    assert describe_error(error, "Failed") == expected


def test_second_click_on_a_step_deselects_it():
    """TrainPage._reopen_steps."""
    button, text = Button("Select"), Recorder()
    click = gui_utils.wrap_button_click(button, [], [], validation_text=text)
    for is_selected in (True, False):
        click()
        assert gui_utils.button_clicked[button.widget_id] is is_selected


# Start and end


def test_failed_preparation_leaves_the_process_running():
    """TrainApp._wrapped_start_training."""
    app = bare_app(_train_func=Recorder(), _prepare=raising(RuntimeError("no network")))
    with pytest.raises(RuntimeError, match="no network"):
        app._wrapped_start_training()
    assert not app._train_func.calls
    app.app.shutdown = shutdown = Recorder()
    with pytest.raises(RuntimeError, match="no network"):
        app._wrapped_start_training()
    assert not shutdown.calls


def test_invalid_experiment_name_ends_the_app():
    """TrainApp._check_settings."""
    app = bare_app(_set_train_widgets_state_on_start=raising(ValueError("invalid characters")))
    app.app.shutdown = shutdown = Recorder()
    with pytest.raises(ValueError, match="invalid characters"):
        app._wrapped_start_training()
    assert shutdown.calls


def test_failed_finalization_without_a_manifest_exits_with_0(tmp_path):
    """TrainApp._exit_with_error."""
    app = bare_app(work_dir=str(tmp_path), task_id=3, _exit_code=0)
    app._request_non_zero_exit()
    assert app._exit_code == 0


def test_tensorboard_is_started_by_its_bare_name(tmp_path, monkeypatch):
    """add_executables_to_path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    app = bare_app(
        _tensorboard_process=None,
        _tensorboard_port=6006,
        log_dir=str(tmp_path),
        _register_routes=Recorder(),
    )
    with pytest.raises(FileNotFoundError, match="tensorboard"):
        app._init_tensorboard()


def test_tensorboard_logger_cannot_be_configured(monkeypatch):
    """TrainApp.show_tensorboard; `train_logger` is left out of app_options.yaml."""
    monkeypatch.setattr(loggers, "train_logger", loggers.train_logger)  # restored at the end
    app = bare_app(_app_options={"train_logger": "tensorboard"}, log_dir="logs")
    with pytest.raises(AttributeError, match="'BaseTrainLogger' object has no attribute"):
        BARE._init_logger(app)


def test_event_files_of_an_earlier_start_are_deleted(tmp_path):
    """TrainApp._wrapped_start_training."""
    names = ("work_dir", "output_dir", "_output_checkpoints_dir", "project_dir", "model_dir")
    folders = {name: str(tmp_path / "work" / name) for name in names}
    events = tmp_path / "run" / "events"
    events.parent.mkdir()
    events.touch()
    app = bare_app(**folders, log_dir=str(events.parent))
    BARE._prepare_working_dir(app)
    assert not events.exists()


# Data


def test_weights_are_opened_online_although_they_are_cached(tmp_path, monkeypatch):
    """TrainApp._download_pretrained_model and RTDETRv2._download_pretrained_model."""
    (tmp_path / "a.pth").touch()
    opened = []
    monkeypatch.setattr(
        train_app, "urlopen", lambda url: opened.append(url) or raising(OSError())()
    )
    files = {"checkpoint": "http://localhost/a.pth"}
    gui = Recorder()
    gui.model_selector = SimpleNamespace(
        get_selected_row=lambda: {"meta": {"model_files": files}}, get_model_info=lambda: None
    )
    monkeypatch.setattr(BARE, "model_info", {"meta": {"model_files": files}})
    monkeypatch.setattr(BARE, "progress_bar_main", Recorder())
    app = bare_app(model_dir=str(tmp_path), _model_cache_dir=str(tmp_path), gui=gui)
    with pytest.raises(OSError):
        app._download_pretrained_model()
    assert opened == ["http://localhost/a.pth"]


def test_datasets_are_skipped_because_of_their_names(tmp_path):
    """find_datasets_with."""
    for name in ("day", "day_meta", "my_img/datasets/x_ann"):
        for part in ("img", "ann"):
            (tmp_path / name / part).mkdir(parents=True)
    args = ({"img", "ann", "meta", "datasets"}, {"img", "ann", "meta"})
    bare = SDK_SUBDIRS_TREE(str(tmp_path), *args)
    assert list(bare) == ["day"]
    found = [str(f.relative_to(tmp_path)) for f in dataset_folders(tmp_path)]
    assert found == ["day", "day_meta", "my_img/datasets/x_ann"]


SDK_SUBDIRS_TREE = project.subdirs_tree


def test_split_by_datasets_names_no_images():
    """TrainApp._postprocess_splits."""
    gui = SimpleNamespace(
        train_val_splits_selector=SimpleNamespace(
            get_split_method=lambda: SplitMethod.DATASETS,
            get_train_dataset_ids=lambda: [1],
            get_val_dataset_ids=lambda: [2],
        )
    )
    splits = bare_app(gui=gui, _train_split=[], _val_split=[])._postprocess_splits()
    assert splits["train"] == {"dataset_ids": [1], "images_ids": None}


def test_conversion_depends_on_the_benchmark_checkbox():
    """TrainApp._wrapped_start_training, TrainApp._finalize: `need_convert_shapes`."""
    converted = Recorder()
    gui = Recorder()
    gui.need_convert_shapes = False  # as long as the benchmark is not selected
    gui.classes_selector = SimpleNamespace(is_convert_class_shapes_enabled=lambda: True)
    app = bare_app(
        gui=gui,
        _convert_project_to_model_task=converted,
        _workflow_input=Recorder(),
        _download_project=Recorder(),
        _split_project=raising(StopIteration),
    )
    with pytest.raises(StopIteration):
        app._prepare()
    assert not converted.calls


# The model benchmark


def test_benchmark_connects_to_port_8000_and_hides_its_failure(monkeypatch, tmp_path, caplog):
    """model_benchmark, collect_errors, TrainApp._run_model_benchmark."""
    addresses = []

    def connect(api, session_url):
        addresses.append(session_url)
        raise ConnectionError("refused")

    monkeypatch.setattr(train_app, "SessionJSON", connect)
    for name in ("progress_bar_main", "progress_bar_secondary"):
        monkeypatch.setattr(BARE, name, Recorder())
    monkeypatch.setattr(BARE, "device", "cpu")
    app = bare_app(
        _inference_class=Recorder(),
        _inference_settings={},
        _benchmark_params={},
        framework_name="RT-DETRv2",
        model_dir=str(tmp_path),
    )
    app._inference_class = lambda **options: Recorder()
    info = {"task_type": "object detection", "best_checkpoint": "best.pth", "model_name": "S"}
    with caplog.at_level(logging.ERROR, "supervisely"):
        results = app._run_model_benchmark("out", "/remote", info, {}, Recorder())
    assert addresses == ["http://localhost:8000"]
    assert results == (None, None, None, {}, None)


def test_benchmark_requests_only_detections_above_a_threshold(monkeypatch):
    """DetectionBenchmark.run_inference."""
    monkeypatch.setattr(base_benchmark.BaseBenchmark, "_run_inference", lambda *args: {})
    session = SimpleNamespace(
        get_default_inference_settings=lambda: {"confidence_threshold": 0.5},
        inference_settings={},
    )
    bare = object.__new__(benchmark.ObjectDetectionBenchmark)
    bare.session = session
    bare._run_inference()
    assert session.inference_settings == {"confidence_threshold": 0.05}


def test_speed_test_takes_100_batches_on_a_cpu():
    """DetectionBenchmark.run_speedtest."""
    bare = object.__new__(benchmark.ObjectDetectionBenchmark)
    options = {}
    bare._init_model_session = lambda *args: None
    bare._run_speedtest = lambda project_id, **given: options.update(given)
    bare._dump_speedtest = lambda speedtest: None
    bare.run_speedtest(None, 1)
    assert options["num_iterations"] == 100


# Exports


def test_failed_export_is_only_logged():
    """Exporter."""
    failing = raising(RuntimeError("no TensorRT"))
    selector = SimpleNamespace(
        get_export_onnx_checkbox_value=lambda: True,
        get_export_tensorrt_checkbox_value=lambda: True,
    )
    app = bare_app(
        gui=SimpleNamespace(hyperparameters_selector=selector),
        _convert_onnx_func=failing,
        _convert_tensorrt_func=failing,
    )
    assert app._export_weights({}) == ({}, None)


def test_one_file_of_each_export_is_uploaded(tmp_path, monkeypatch):
    """Exporter.upload_companions."""
    paths = [tmp_path / name for name in ("best.onnx", "classes.json", "parity.json")]
    for path in paths:
        path.write_text("{}")
    monkeypatch.setattr(BARE, "progress_bar_main", Recorder())
    monkeypatch.setattr(BARE, "team_id", 1)
    uploaded = []
    files = SimpleNamespace(
        upload_bulk_fast=lambda **options: uploaded.extend(options["src_paths"])
    )
    app = bare_app(_api=SimpleNamespace(file=files), _export_dir_name="export")
    app._upload_export_weights({"ONNXRuntime": str(paths[0])}, str(paths[1]), "/remote")
    assert [Path(path).name for path in uploaded] == ["best.onnx", "classes.json"]


# Serving


def test_command_line_deploys_on_a_gpu_and_lacks_openvino(monkeypatch, capsys):
    """RTDETRv2._parse_cli_deploy_args, add_openvino."""
    assert "OPENVINO" not in inspect.getsource(RuntimeType)
    monkeypatch.setattr("sys.argv", ["main.py", "deploy", "--model", "S"])
    assert Inference._parse_cli_deploy_args(None)[0].device == "cuda:0"
    monkeypatch.setattr("sys.argv", ["main.py", "deploy", "--runtime", "OpenVINO"])
    with pytest.raises(SystemExit):
        Inference._parse_cli_deploy_args(None)
    assert "invalid choice: 'OpenVINO'" in capsys.readouterr().err


def test_ids_of_requests_are_made_of_the_time(monkeypatch):
    """RequestsManager."""
    monkeypatch.setattr(inference_request.time, "time", lambda: 1.5)
    create = inference_request.InferenceRequest
    assert create().uuid == create().uuid
