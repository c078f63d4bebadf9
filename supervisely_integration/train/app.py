"""Every work-around for the Supervisely SDK (6.74.51), each with the pitfall that it answers.

Those for what the page offers are in `gui_patches`, those for the model benchmark in
`benchmark_patches`, for exports in `export_patches`, for uploads and downloads in
`transfer_patches`, and for pages of both apps in `gui/closed_pages`.
`tests/app/test_sdk_patches.py` asks the bare SDK about each of them: a test that fails there says
that the work-around is no longer needed.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import supervisely as sly
from requests import HTTPError
from supervisely import env as sly_env
from supervisely.app.content import get_synced_data_dir
from supervisely.app.fastapi.subapp import _add_event_handler
from supervisely.app.widgets import SplitMethod
from supervisely.nn.training import loggers
from supervisely.project import project as sdk_project
from supervisely.project.project import ItemInfo
from tqdm import tqdm

from rtdetrv2_pytorch.src.data.readers.supervisely import dataset_folders
from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.text import first_line
from rtdetrv2_pytorch.src.misc.weights import is_url, locate
from supervisely_integration.gui.page import serve_own_page
from supervisely_integration.sdk.websockets import survive_closed_pages

from ..models import find_base_config
from ..sdk.transfers import replace_damaged, send_whole_bodies_again
from .coco import check_complete, images_on_disk
from .examination import Origins
from .exports import COCO_FOLDER, ExportingTrainApp
from .lifecycle import Stage, StopControl, Stopped
from .progress import show_logs
from .run_config import check_hyperparameters
from .run_folder import Items, RunFolder, SavedRun, fingerprint
from .selectors import (
    ANY_RECIPE,
    check_hyperparameters_when_selected,
    offer_all_shapes,
    use_cpu_without_gpu,
)
from .workflow import TrainingRequest

logger = logging.getLogger(__name__)

_LONGEST_REASON = 300  # letters of an error that is not ours

# What is said when the Stop button is pressed.
STOPPING = {
    Stage.TRAINING: "Stopping after this batch; what was trained will be uploaded...",
    Stage.FINALIZATION: "Stopping after the upload...",
}
# What a platform sends along to say what to train; a relaunched task knows it already.
_START_PARAMETERS = ("guiState", "trainTaskId", "trainMode")


def _parameter(name: str) -> str:
    return f"modal.state.{name}"


def put_tools_on_path() -> None:
    """Pitfall 4: `tensorboard` is started by its bare name, from an environment not activated."""
    tools = str(Path(sys.executable).parent)
    if tools not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((tools, os.environ.get("PATH", "")))


def read_all_data_sets() -> None:
    """Not in the list: data sets whose names end in "img", "ann", "meta" ... are left out."""

    def folders(project_dir: str, *ignored: Any) -> list[str]:
        root = Path(project_dir)
        return [str(each.relative_to(root)) for each in dataset_folders(root)]

    sdk_project.subdirs_tree = folders


def in_words(message: str, error: Exception | None) -> str:
    """What happened, for people.

    Args:
        message: the SDK's, which says when.
        error: one of ours says all in one sentence; of others it is the first line.
    """
    if error is None:
        return message
    if isinstance(error, RTDETRError):
        return str(error)
    return f"{message} ({type(error).__name__}: {first_line(error)[:_LONGEST_REASON]})"


def close_bars() -> None:
    """Not in the list: bars that stay open end in tracebacks when the interpreter does."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()


class TrainApp(ExportingTrainApp):
    """The SDK's app, with an end, a memory and honest errors.

    Args:
        options: as the SDK's `TrainApp` takes them.
    """

    def __init__(self, **options: Any) -> None:
        put_tools_on_path()
        offer_all_shapes()
        check_hyperparameters_when_selected()
        read_all_data_sets()
        send_whole_bodies_again()
        survive_closed_pages()
        show_logs(sly.logger.handlers)
        self.stop_control = StopControl(self._leave)
        self.stop_flag = self.stop_control.flag
        task_id = sly_env.task_id(raise_not_found=False) or -1
        self.run_folder = RunFolder(Path(get_synced_data_dir()), task_id)
        self._saved = self._find_saved_run(task_id)
        self.last_words = None
        try:
            super().__init__(**options)
            serve_own_page(self._server)
            show_logs(sly.logger.handlers)  # the page has a window for them
            use_cpu_without_gpu(self.gui.training_process)
            self._connect_stop()
            if self._saved is not None and not self._is_resume_upload:
                self._restore(self._saved)
            self._refuse_settings_that_do_not_start()
        except Exception as error:
            # Pitfall 12: in production a thread of the SDK keeps a dead process alive for ever.
            logger.exception("The app cannot start")
            logger.error("%s", str(error) or repr(error))
            self._flush()
            os._exit(1)

    def _refuse_settings_that_do_not_start(self) -> None:
        """Pitfall 21: settings that cannot be used are logged, and the app waits for ever."""
        settings = json.loads(os.environ.get(_parameter("guiState")) or "{}")
        if self._is_resume_upload or self.auto_start or not settings.get("start_training"):
            return
        steps = ("input", "model", "classes", "train_val_splits", "hyperparameters")
        selectors = [getattr(self.gui, f"{step}_selector") for step in steps]
        texts = [s.validator_text for s in selectors if s is not None]
        reasons = [text.text for text in texts if text.status == "error" and text.text]
        raise ConfigError(" ".join(reasons) or "the settings could not be loaded")

    # --- going on after a relaunch (the SDK forgets everything but a failed upload) ---------

    def _find_saved_run(self, task_id: int) -> SavedRun | None:
        """What a launch of this task left; then the platform's start parameters do not count.

        In development all tasks are -1: nothing says that it is the same one.
        """
        if task_id == -1 or self.run_folder.last_checkpoint is None:
            return None
        saved = self.run_folder.load()
        if saved is not None:
            for name in _START_PARAMETERS:
                os.environ.pop(_parameter(name), None)
        return saved

    def _restore(self, saved: SavedRun) -> None:
        logger.info("This task was interrupted: its settings are restored and training goes on")
        self.gui.load_from_app_state(saved.app_state)
        self.gui._start_training = True

    def _split_project(self) -> None:
        """Restore a split that was drawn at random; the SDK would draw another one.

        The SDK removes the project's own folders, so what was there is noted first.
        """
        self._downloaded = images_on_disk(Path(self.project_dir))
        saved, self._saved = self._saved, None  # once: a later start may choose another split
        if saved is None:
            super()._split_project()
            return
        widget = self.gui.train_val_splits_selector.train_val_splits
        widget.get_splits = lambda: (self._find_items(saved.train), self._find_items(saved.val))
        try:
            super()._split_project()
        finally:
            del widget.get_splits

    def _find_items(self, names: Items) -> list[ItemInfo]:
        datasets = {dataset.name: dataset for dataset in self.sly_project.datasets}
        items = []
        for dataset_name, name in names:
            if dataset_name not in datasets or not datasets[dataset_name].item_exists(name):
                continue  # another split makes another training, which is said
            paths = datasets[dataset_name].get_item_paths(name)
            items.append(ItemInfo(dataset_name, name, paths.img_path, paths.ann_path))
        return items

    def _origins(self) -> Origins:
        """The names of images before the SDK renamed them, as it does in `_split_project`."""
        digits = len(str(max(len(self._train_split), len(self._val_split))))
        names = {
            f"{split}_img_{number:0{digits}d}": f"{item.dataset_name}/{item.name}"
            for split, items in (("train", self._train_split), ("val", self._val_split))
            for number, item in enumerate(items, start=1)
        }
        return Origins(names, self._downloaded)

    def begin_run(self) -> Path | None:
        """Open this training's folder; returns the checkpoint to go on from, if there is one."""
        train, val = (
            [(item.dataset_name, item.name) for item in split]
            for split in (self._train_split, self._val_split)
        )
        app_state = self.get_app_state()
        app_state["experiment_name"] = self.gui.training_process.get_experiment_name()
        run = SavedRun(
            fingerprint=fingerprint(
                project_id=self.project_id,
                classes=self.classes,
                train=train,
                val=val,
                model=app_state["model"],
                hyperparameters=self.hyperparameters,
            ),
            app_state=app_state,
            train=train,
            val=val,
        )
        return self.run_folder.begin(run)

    # --- preparation ------------------------------------------------------------------------

    def _init_logger(self) -> None:
        """Bars of an earlier start in this session would be moved, too."""
        for name in ("train_started", "train_finished", "epoch_started", "epoch_finished"):
            getattr(loggers.train_logger, f"_on_{name}_callbacks").clear()
        loggers.train_logger._on_step_finished_callbacks.clear()
        super()._init_logger()

    def _prepare_working_dir(self) -> None:
        """Pitfall 14: the event files of an earlier start would be wiped with the folder."""
        self.log_dir = str(Path(self.work_dir) / self._log_dir_name)
        super()._prepare_working_dir()

    def _prepare(self) -> None:
        """Check before anything is downloaded."""
        self.stop_control.stage = Stage.PREPARATION
        # The recipe of a model of one's own is not here yet; any will do to check what was typed.
        config = self.model_info.get("meta", {}).get("model_files", {}).get("config", ANY_RECIPE)
        check_hyperparameters(self.hyperparameters_yaml, find_base_config(config))
        super()._prepare()

    def _download_project(self) -> None:
        """Pitfall 27: an image that cannot be downloaded is logged and skipped."""
        super()._download_project()
        present = images_on_disk(Path(self.project_dir))
        expected = {}
        for path, dataset in self._selected_datasets():
            images = self._api.image.get_list(dataset.id)
            if len(present.get(path, ())) < dataset.images_count:
                expected[path] = [image.name for image in images]
            folder = Path(self.project_dir, *path.replace("/", "/datasets/").split("/"), "img")
            replace_damaged(self._api, folder, images)
        check_complete(Path(self.project_dir), expected)

    def _selected_datasets(self) -> list[tuple[str, Any]]:
        """The data sets that are downloaded: path ("parent/child") and record."""
        selector = self.gui.train_val_splits_selector
        tree = self._api.dataset.tree(self.project_id)
        datasets = [("/".join((*parents, dataset.name)), dataset) for parents, dataset in tree]
        if selector.get_split_method() != SplitMethod.DATASETS:
            return datasets
        ids = {*selector.get_train_dataset_ids(), *selector.get_val_dataset_ids()}
        return [(path, dataset) for path, dataset in datasets if dataset.id in ids]

    def _create_collection(self, split_type: str, suffix: int) -> int:
        """Not in the list: where the answer is lost, the SDK asks again, and the name is taken."""
        known = {each.id for each in self._api.entities_collection.get_list(self.project_id)}
        try:
            return int(super()._create_collection(split_type, suffix))
        except HTTPError:
            name = f"{split_type}_{suffix:03d}"
            for made in self._api.entities_collection.get_list(self.project_id):
                if made.id not in known and made.name.startswith(name):
                    return int(made.id)
            raise

    def _convert_project_to_model_task(self) -> None:
        """Pitfall 29: conversion hangs on the benchmark's checkbox; `coco.py` does it instead."""

    def _download_pretrained_model(self) -> None:
        """Pitfall 7: the SDK opens a URL before it looks into the cache, so it is never offline."""
        files = self.model_info["meta"]["model_files"]
        self.model_files = {"config": str(find_base_config(files["config"]))}
        checkpoint = files.get("checkpoint")
        if not checkpoint:
            logger.info("Starting from random weights")
            return
        with self.progress_bar_main(message="Getting the weights", total=100) as bar:
            self.progress_bar_main.show()

            def move(received: int, total: int) -> None:
                if total:
                    bar.update(100 * received // total - bar.n)

            self.model_files["checkpoint"] = str(locate(checkpoint, on_progress=move))
        self.progress_bar_main.hide()
        logger.info("Starting from %s", checkpoint if is_url(checkpoint) else Path(checkpoint).name)

    # --- the training itself ----------------------------------------------------------------

    def training_request(self) -> TrainingRequest:
        """What was selected, once everything is downloaded and split."""
        self.stop_control.stage = Stage.TRAINING
        if self.stop_control.flag.is_set:
            raise Stopped(self.stop_control.flag.reason)
        resume = self.begin_run()
        if resume is not None:
            logger.info("Going on from %s", resume.name)
        work_dir = Path(self.work_dir)
        checkpoint = self.model_files.get("checkpoint")
        return TrainingRequest(
            model_name=self.model_name,
            base_config=find_base_config(self.model_files["config"]),
            checkpoint=Path(checkpoint) if checkpoint else None,
            resume=resume,
            classes=self.classes,
            convert_shapes=self.gui.classes_selector.is_convert_class_shapes_enabled(),
            hyperparameters=self.hyperparameters,
            train_dir=Path(self.train_dataset_dir),
            val_dir=Path(self.val_dataset_dir),
            coco_dir=work_dir / COCO_FOLDER,
            run_dir=self.run_folder.output,
            result_dir=work_dir / "result",
            devices=tuple(self.devices) or (self.device,),
            name=self.gui.training_process.get_experiment_name() or None,
            origins=self._origins(),
        )

    def show_tensorboard(self, folder: Path) -> None:
        """Pitfall 13: `train_logger: tensorboard` cannot work; the engine writes the events."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.start_tensorboard(str(folder))
        except OSError as error:
            logger.warning("TensorBoard could not be started: %s", error)

    def _wrapped_start_training(self) -> None:
        """Pitfalls 17 and 21: there is no stop, failures leave the process waiting for ever."""
        button = self.gui.training_process.stop_button
        try:
            if not self._is_resume_upload:
                self._validate_experiment_name()
            button.enable()
            button.show()
            super()._wrapped_start_training()
        except Stopped:
            self._say("Stopped: nothing to save")
            self.stop_control.stage = Stage.OVER
            if self.run_folder.last_checkpoint is None:
                self.run_folder.remove()
            self.app.shutdown()
        except Exception as error:
            self.stop_control.stage = Stage.OVER
            if self.auto_start:
                self._fail(error)
            raise
        finally:
            close_bars()
            button.hide()
            if self.stop_control.stage is not Stage.OVER:
                self.stop_control.stage = Stage.IDLE

    def _validate_experiment_name(self) -> bool:
        """Not in the list: a wrong name ends the app, with all that was chosen, and is not told."""
        try:
            return bool(super()._validate_experiment_name())
        except ValueError as error:
            refused = ConfigError(f"{error}; give another one")
            self.gui.stepper.set_active_step(7)  # from where an error goes back
            self._show_error("", refused)
            raise refused from error

    def _show_error(self, message: str, e: Exception | None = None) -> None:
        """Pitfall 22: the dialog says that something happened, and not what."""
        if isinstance(e, Stopped):
            self._restore_train_widgets_state_on_error()
            return
        super()._show_error(in_words(message, e), e)
        self.gui.training_logs.card.unlock()  # which the dialog may ask to look into

    def _finalize(self, experiment_info: dict[str, Any], resume: bool = False) -> None:
        self.stop_control.stage = Stage.FINALIZATION
        if self.stop_control.flag.is_set:
            self._tell_what_a_stop_leaves_out()
        try:
            super()._finalize(experiment_info, resume)
        except Exception as error:
            if self.auto_start:
                self._exit_code, self.last_words = 1, str(error)
            raise
        finally:
            self.stop_control.stage = Stage.OVER  # what comes next is the SDK ending the process
        self.run_folder.remove()

    def _tell_what_a_stop_leaves_out(self) -> None:
        """Not in the list: the SDK would call it an evaluation that failed."""
        text = self.gui.training_artifacts.model_benchmark_fail_text
        text.set("Not evaluated, since the training was stopped.", "info")
        selector = self.gui.hyperparameters_selector
        left_out = {  # the two that were asked for, before `_connect_stop` says no to them
            "it has no evaluation report": super().is_model_benchmark_enabled,
            "not its exports": type(selector).is_export_required(selector),
        }
        for what in (what for what, was_asked in left_out.items() if was_asked):
            logger.info("The experiment is complete, but %s: the training was stopped", what)

    def _generate_train_val_splits(self, remote_dir: str, splits_data: dict[str, Any]) -> None:
        """Pitfall 30: of a split by datasets the file of the split says nothing."""
        ids = {"train": self._train_split_item_ids, "val": self._val_split_item_ids}
        filled = {
            split: {**data, "images_ids": data["images_ids"] or sorted(ids[split]) or None}
            for split, data in splits_data.items()
        }
        super()._generate_train_val_splits(remote_dir, filled)

    # --- the end ----------------------------------------------------------------------------

    def _connect_stop(self) -> None:
        """Pitfalls 17 to 19: the Stop button has no handler, and signals end the server only."""
        button = self.gui.training_process.stop_button
        button.click(self._stop)
        _add_event_handler(self._server, "startup", self.stop_control.take_signals)
        exports = self.gui.hyperparameters_selector
        is_required: Callable[[], bool] = exports.is_export_required
        exports.is_export_required = lambda: not self.stop_control.flag.is_set and is_required()

    def _stop(self) -> None:
        """The button: the end of a batch may be seconds away, so say at once that it was heard."""
        self.gui.training_process.stop_button.disable()
        self._say(f"Status: {STOPPING.get(self.stop_control.stage, 'Stopping...')}")
        self.stop_control.request("Stop button")

    @property
    def is_model_benchmark_enabled(self) -> bool:
        """A stopped training is uploaded, and not evaluated again."""
        return not self.stop_control.flag.is_set and bool(super().is_model_benchmark_enabled)

    def _say(self, text: str) -> None:
        logger.info("%s", text)
        self.gui.training_process.validator_text.set(text, "info")

    def _leave(self) -> None:
        """End in preparation, where the SDK waits for the download before it ends."""
        self._say("Stopped: nothing to save")
        if self.run_folder.last_checkpoint is None:
            self.run_folder.remove()
        self._flush()
        os._exit(0)

    def _fail(self, error: Exception) -> None:
        """End a training that nobody watches, with the reason as the last line."""
        self._exit_code, self.last_words = 1, str(error) or type(error).__name__
        self.app.shutdown()

    def _exit_with_requested_code(self) -> None:
        if self.last_words is not None:
            logger.error("%s", self.last_words)
            self._flush()
        super()._exit_with_requested_code()

    @staticmethod
    def _flush() -> None:
        for handler in sly.logger.handlers:
            handler.flush()
