"""What the bare SDK does: a test that fails here says that a work-around is no longer needed."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rtdetrv2_pytorch.src.data.readers.supervisely import dataset_folders
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from tests.sdk import import_sdk

import_sdk()

from supervisely.app.widgets.select_cuda import select_cuda  # noqa: E402
from supervisely.geometry.rectangle import Rectangle  # noqa: E402
from supervisely.nn.benchmark import base_benchmark, base_visualizer  # noqa: E402
from supervisely.nn.benchmark.object_detection import benchmark, metric_provider  # noqa: E402
from supervisely.nn.training import loggers, train_app  # noqa: E402 (imported in a thread above)
from supervisely.nn.training.gui import (  # noqa: E402
    classes_selector,
    gui,
    hyperparameters_selector,
    training_artifacts,
    training_process,
)
from supervisely.project import project  # noqa: E402

from supervisely_integration.train.app import in_words  # noqa: E402
from supervisely_integration.train.selectors import use_cpu_without_gpu  # noqa: E402

BARE = train_app.TrainApp


def source(thing) -> str:
    return inspect.getsource(thing)


def test_the_version_is_the_one_that_was_read():
    import supervisely

    assert supervisely.__version__ == "6.74.51"


def test_without_a_selector_the_device_is_a_gpu_whether_there_is_one_or_not():
    """Pitfall 1: use_cpu_without_gpu."""
    text = source(training_process.TrainingProcess.get_device)
    assert 'return "cuda:0"' in text
    assert "is_available" not in text


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_a_number_of_ranks_that_is_none_is_refused_by_name(value, monkeypatch):
    monkeypatch.setenv("CPU_RANKS", value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"CPU_RANKS = '{value}': .* 1 or more"):
        use_cpu_without_gpu(SimpleNamespace())


def test_tensorboard_is_started_by_its_bare_name():
    """Pitfall 4: put_tools_on_path."""
    assert '            "tensorboard",\n' in source(BARE._init_tensorboard)


def test_an_address_is_opened_before_the_cache_is_looked_into():
    """Pitfall 7: TrainApp._download_pretrained_model."""
    text = source(BARE._download_pretrained_model)
    assert text.index("urlopen(file_url)") < text.index("exists(cached_path)")


def test_the_tensorboard_logger_cannot_be_set_up():
    """Pitfall 13: train_logger is left out of app_options.yaml."""
    script = (
        "from supervisely.nn.training import loggers, train_app\n"
        "train_app.setup_train_logger('tensorboard_logger')\n"
        "try:\n"
        "    train_app.train_logger.set_log_dir('x')\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "'BaseTrainLogger' object has no attribute 'set_log_dir'" in done.stdout, done.stderr


def test_the_folder_of_event_files_is_wiped_whatever_it_is():
    """Pitfall 14: TrainApp._prepare_working_dir."""
    assert "sly_fs.mkdir(self.log_dir, True)" in source(BARE._prepare_working_dir)


def test_callbacks_of_bars_are_added_at_every_start():
    """TrainApp._init_logger."""
    logger = loggers.BaseTrainLogger()
    for _ in range(2):
        logger.add_on_epoch_finish_callback(print)
    assert len(logger._on_epoch_finished_callbacks) == 2
    assert "clear" not in source(BARE._setup_logger_callbacks)


def test_the_stop_button_is_hidden_and_does_nothing():
    """Pitfall 17: TrainApp._connect_stop."""
    assert "self.stop_button.hide()" in source(training_process.TrainingProcess.__init__)
    assert "stop_button.click" not in source(train_app)
    assert "stop_button.show" not in source(train_app) + source(gui)


def test_a_failed_preparation_leaves_the_process_alive():
    """Pitfall 21: TrainApp._wrapped_start_training."""
    text = source(BARE._wrapped_start_training)
    preparation = text[text.index("self._prepare()") : text.index("self._train_func()")]
    assert "shutdown" not in preparation


def test_a_wrong_name_of_the_experiment_ends_the_app():
    """TrainApp._validate_experiment_name."""
    text = source(BARE._wrapped_start_training)
    begin = text[text.index("_set_train_widgets_state_on_start") : text.index("self._prepare()")]
    assert "self.app.shutdown()" in begin
    assert "_validate_experiment_name()" in source(BARE._set_train_widgets_state_on_start)


def test_hyperparameters_are_not_looked_at_when_they_are_selected():
    """CheckedHyperparametersSelector."""
    text = source(hyperparameters_selector.HyperparametersSelector.validate_step)
    assert text.split(":", 1)[1].strip() == "return True"


def test_a_stopped_training_is_said_to_have_failed_in_its_evaluation():
    """TrainApp._finalize."""
    text = source(training_artifacts.TrainingArtifacts)
    assert "Model evaluation did not finish successfully" in text
    assert "model_benchmark_fail_text.show()" in source(BARE._set_training_output)


def test_without_a_gpu_the_choice_of_a_device_is_empty():
    """Pitfall 1, continued: use_cpu_without_gpu."""
    assert "Select.Item(None," in source(select_cuda.SelectCudaDevice.refresh)
    assert "include_cpu_option" not in source(training_process)


def test_the_dialog_does_not_say_what_happened():
    """Pitfall 22: TrainApp._show_error."""
    assert 'show_dialog(title="Error", description=message' in source(BARE._show_error)


def test_the_dialog_says_what_happened():
    assert in_words("Error during upload.", ConfigError("lr: is 0")) == "lr: is 0"
    other = OSError(28, "No space left on device")
    assert in_words("Error during upload.", other) == (
        "Error during upload. (OSError: [Errno 28] No space left on device)"
    )
    assert in_words("No data.", None) == "No data."


def test_items_that_cannot_be_downloaded_are_skipped():
    """Pitfall 27: TrainApp._download_project."""
    assert "Task error" in source(project)


def test_data_sets_are_left_out_because_of_their_names(tmp_path):
    """read_all_data_sets."""
    for name in ("day", "day_meta", "my_img/datasets/x_ann"):
        for part in ("img", "ann"):
            (tmp_path / name / part).mkdir(parents=True)
    args = ({"img", "ann", "meta", "datasets"}, {"img", "ann", "meta"})
    assert list(project.subdirs_tree(str(tmp_path), *args)) == ["day"]
    found = [str(f.relative_to(tmp_path)) for f in dataset_folders(tmp_path)]
    assert found == ["day", "day_meta", "my_img/datasets/x_ann"]


def test_the_file_of_the_split_holds_images_only_where_they_were_looked_up():
    """Pitfall 30: TrainApp._generate_train_val_splits."""
    text = source(BARE._postprocess_splits)
    by_dataset = text[
        text.index("SplitMethod.DATASETS") : text.index("else:\n            if project")
    ]
    assert "images_ids =" not in by_dataset


@pytest.mark.parametrize("name", ["allowed_types.append(Rectangle)", "allowed_types=allowed_types"])
def test_classes_of_other_shapes_are_hidden(name):
    """Pitfall 29: offer_all_shapes."""
    assert name in source(classes_selector.ClassesSelector.__init__)


def test_conversion_hangs_on_the_checkbox_of_the_benchmark():
    """Pitfall 29: TrainApp._convert_project_to_model_task."""
    text = source(gui.TrainGUI.__init__)
    inner = text[text.index("def need_convert_class_shapes") :]
    assert "run_model_benchmark_checkbox.is_checked()" in inner[: inner.index("task_type")]


# --- the model benchmark ----------------------------------------------------------------


def test_the_benchmark_knows_one_port():
    """Pitfall 2: app_port, OwnSession."""
    assert "port = 8000\n" in source(BARE._run_model_benchmark)


def test_a_failed_benchmark_is_logged_and_forgotten():
    """Pitfall 24: overheard_errors, BenchmarkedTrainApp._benchmark_failed."""
    text = source(BARE._run_model_benchmark)
    handler = text[text.index("except Exception as e:") :]
    assert "logger.error" in handler
    assert "raise" not in handler


def test_the_benchmark_asks_for_few_detections():
    """TrueBenchmark._run_inference."""
    assert "CONF_THRES = 0.05\n" in source(benchmark)


def test_the_speed_test_is_as_long_without_a_gpu():
    """TrueBenchmark._run_speedtest."""
    assert "num_iterations: int = 100" in source(base_benchmark.BaseBenchmark.run_speedtest)
    assert "bm.run_speedtest(session, self.project_info.id)" in source(BARE._run_model_benchmark)


def test_rectangles_are_cut_to_whole_pixels():
    """fractions_of_pixels."""
    rectangle = Rectangle(1.25, 2.5, 30.75, 40.875)
    assert rectangle.to_json()["points"]["exterior"] == [[2, 1], [40, 30]]
    assert Rectangle._round_subpixel_coordinates(1.25, 2.5, 30.75, 40.875) != (
        *(1.25, 2.5),
        *(30.75, 40.875),
    )


def test_a_class_without_a_box_counts_as_one_never_found():
    """ap_of_labelled_classes."""
    text = source(metric_provider.MetricProvider.AP_custom_per_class)
    assert "np.nan_to_num(ap, nan=0)" in text
    assert 'f"AP{iou_name}": self.AP_custom()' in source(
        metric_provider.MetricProvider.json_metrics
    )


def test_labels_are_converted_whatever_was_trained_on():
    """BenchmarkedTrainApp._convert_and_split_gt_project."""
    text = source(BARE._convert_and_split_gt_project)
    assert "is_convert_class_shapes_enabled" not in text
    assert "parent_id" not in text


def test_the_parents_of_data_sets_are_not_looked_for():
    """BenchmarkedTrainApp._run_model_benchmark."""
    text = source(base_visualizer.BaseVisualizer._get_eval_project_infos)
    assert "ApiField.VALUE: [ds.name for ds in self.gt_dataset_infos]" in text


def test_a_failed_export_is_logged_and_forgotten():
    """ExportingTrainApp._export_weights."""
    text = source(BARE._export_weights)
    assert text.count("logger.error") == 2
    assert "raise" not in text


def test_of_an_export_only_one_file_is_uploaded():
    """ExportingTrainApp._upload_export_weights."""
    text = source(BARE._upload_export_weights)
    assert "files_to_upload = list(export_weights.values())" in text
    assert text.count("files_to_upload.append(") == 1  # the classes
