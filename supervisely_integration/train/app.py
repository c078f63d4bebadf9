"""The training app: the SDK's `TrainApp` with stop requests, resume and a task status.

Every override calls a collaborator, which owns its state. `docs/sdk.md` says for each what the SDK
does, how that is tested, and when the override can be deleted.
"""

import json
import logging
import os
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import supervisely as sly
from supervisely import env as sly_env
from supervisely.app.content import get_synced_data_dir
from supervisely.app.exceptions import show_dialog
from supervisely.app.fastapi.subapp import _add_event_handler
from supervisely.nn.training import train_app as sdk

from rtdetrv2_pytorch.src.data.readers.supervisely import dataset_folders
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.weights import is_url, locate

from ..gui.app_page import serve_own_page
from ..models import find_base_config
from ..sdk import logs
from ..sdk import training_gui as page
from ..sdk.access import protect_app, use_paths_without_prefix
from ..sdk.api_calls import create_collection, find_datasets_with, retry_multipart_uploads
from ..sdk.benchmark import model_benchmark
from ..sdk.experiment_page import own_experiment_page
from ..sdk.tensorboard import add_executables_to_path, start_when_opened
from ..sdk.train_page import read_settings
from ..sdk.websockets import drop_closed_connections
from ..settings.names import valid_part
from ..task_status import EVALUATION_REPORT, PAGE_ERROR, StatusReporter, describe_error
from .exports import COCO_FOLDER, Exporter
from .lifecycle import Lifecycle, TrainingStage, TrainingStopped, stays_open
from .plan.page_plan import PagePlan
from .plan.reserve import optional_steps
from .project_data import ProjectData
from .run_config import check_hyperparameters
from .run_folder import RunFolder, SavedRun
from .workflow import TrainingRequest

logger = logging.getLogger(__name__)

_ANY_CONFIG = "rtdetrv2_r18vd_120e_coco.yml"  # to check hyperparameters before a model is known
_STOPPING = {
    TrainingStage.TRAINING: "Stopping after this batch. The latest checkpoints will be uploaded...",
    TrainingStage.FINALIZATION: "Stopping after the upload...",
}
_SAVED = "Stopped, saved: the checkpoints and reports are uploaded."
# Environment variables of the platform that say what to train.
_GUI_STATE = "modal.state.guiState"
_START_PARAMETERS = (_GUI_STATE, "modal.state.trainTaskId", "modal.state.trainMode")


class TrainApp(sdk.TrainApp):  # type: ignore[misc]
    """The training app.

    Args:
        options: of the SDK's `TrainApp`.
    """

    def __init__(self, **options: Any) -> None:
        add_executables_to_path()
        find_datasets_with(dataset_folders)
        retry_multipart_uploads()
        use_paths_without_prefix()
        drop_closed_connections()
        logs.attach_handlers(sly.logger.handlers)
        data_dir = Path(get_synced_data_dir())
        task_id = sly_env.task_id(raise_not_found=False) or -1
        self.status = StatusReporter(data_dir)
        self.lifecycle = Lifecycle(self._leave, stays_open=stays_open(os.environ.get(_GUI_STATE)))
        self.run_folder = RunFolder(data_dir, task_id)
        self.data = ProjectData(self)
        self.exporter = Exporter(self, self.status)
        try:
            saved = self._restore_settings(task_id)
            check = partial(check_hyperparameters, base_config=find_base_config(_ANY_CONFIG))
            with page.training_gui(check, lambda: self.lifecycle.is_stopping):
                super().__init__(**options)
            protect_app(self._server)
            self.gui.is_ready = True
            serve_own_page(self._server)
            page.end_app_only_if(
                self.app, lambda: not self.lifecycle.stays_open or self._exit_code != 0
            )
            logs.attach_handlers(sly.logger.handlers)  # the page's log window is one now
            self.gui.training_process.stop_button.click(self._stop_from_button)
            _add_event_handler(self._server, "startup", self.lifecycle.install_signal_handlers)
            if saved is not None:
                self.data.restore_split(saved)
            self._require_valid_settings()
            self.plan = PagePlan(self.gui, Path(self.work_dir) / "timing")
            if not self.auto_start and not self._is_resume_upload:
                self.plan.begin()
        except Exception as error:
            # A thread of the SDK (ContentOrigin, app/content.py) would keep the process alive.
            logger.exception("The app cannot start")
            self.status.fail(error)
            logs.flush()
            os._exit(1)

    def _restore_settings(self, task_id: int) -> SavedRun | None:
        """Start with the settings of an interrupted training of this task, if there is one.

        In development every task is -1, so nothing says that it is the same task.
        """
        if task_id == -1 or self.run_folder.last_checkpoint is None:
            return None
        saved = self.run_folder.load()
        if saved is not None:
            logger.info("The task was interrupted: restoring its settings and resuming")
            for name in _START_PARAMETERS:
                os.environ.pop(name, None)
            os.environ[_GUI_STATE] = json.dumps({**saved.app_state, "start_training": True})
        return saved

    def _require_valid_settings(self) -> None:
        """Raise if settings that should start a training are invalid; the SDK would only log it."""
        settings = read_settings(os.environ[_GUI_STATE]) if os.environ.get(_GUI_STATE) else {}
        if self._is_resume_upload or self.auto_start or not settings.get("start_training"):
            return
        raise ConfigError(
            " ".join(page.shown_errors(self.gui)) or "the settings could not be loaded"
        )

    @property
    def project_name(self) -> str:
        """The project's name in the paths of Team Files, where a slash would make a subfolder."""
        return valid_part(self.project_info.name)

    # --- start and end ----------------------------------------------------------------------

    def _wrapped_start_training(self) -> None:
        """Check the settings first, offer the Stop button, and exit after a failure."""
        button = self.gui.training_process.stop_button
        # `_prepare_working_dir` empties this folder: not the one of an earlier start.
        self.log_dir = str(Path(self.work_dir) / self._log_dir_name)
        self.gui.need_convert_shapes = False  # `write_coco` converts
        self.plan.stop_timing()
        try:
            if not self._is_resume_upload:
                self._check_settings()
            self.lifecycle.begin()
            page.hide_earlier_results(self.gui)
            self.status.start()
            button.enable()
            button.show()
            super()._wrapped_start_training()
        except TrainingStopped:
            self._end_without_result()
            self.app.shutdown()
        except Exception as error:
            self.lifecycle.stage = TrainingStage.OVER
            if self.auto_start:
                self._exit_with_error(error)
                self.app.shutdown()
            raise
        finally:
            button.hide()
            if self.lifecycle.stays_open:
                page.offer_new_training(self.gui)
            self.lifecycle.end()
            self.status.wait()

    def _check_settings(self) -> None:
        """Check name and hyperparameters; the SDK ends the app for the one, and not the other."""
        model_files = self.model_info.get("meta", {}).get("model_files", {})
        try:
            try:
                self._validate_experiment_name()
            except ValueError as error:
                raise ConfigError(f"{error}; choose another one") from error
            # The configuration of a custom model is downloaded later.
            config = find_base_config(model_files.get("config", _ANY_CONFIG))
            check_hyperparameters(self.hyperparameters_yaml, config)
        except Exception as error:
            self.gui.stepper.set_active_step(7)  # `_show_error` goes back one step
            self._show_error("", error)
            raise

    def _show_error(self, message: str, e: Exception | None = None) -> None:
        """Show the reason, which the SDK only logs; a stop is not an error."""
        if isinstance(e, TrainingStopped):
            self._restore_train_widgets_state_on_error()
            return
        text = describe_error(e, message) if e else message
        logger.error("%s", text, extra={PAGE_ERROR: True})
        super()._show_error(text, e)
        as_html = escape(text, quote=False)  # widgets and dialogs show HTML, the log does not
        self.gui.training_process.validator_text.set(as_html, "error")
        show_dialog("Error", as_html, "error")
        self.gui.training_logs.card.unlock()

    def _stop_from_button(self) -> None:
        """Confirm immediately: the current batch may take seconds."""
        self.gui.training_process.stop_button.disable()
        self._show_status(f"Status: {_STOPPING.get(self.lifecycle.stage, 'Stopping...')}")
        self.lifecycle.stop("Stop button")

    def _show_status(self, text: str) -> None:
        logger.info("%s", text)
        self.gui.training_process.validator_text.set(text, "info")

    def _end_without_result(self) -> None:
        self._show_status("Stopped: nothing to save")
        self.lifecycle.stage = TrainingStage.OVER
        self.run_folder.remove(keep_checkpoint=True)
        self.status.stop()

    def _leave(self) -> None:
        """Exit in preparation; the SDK would wait for the download."""
        self._end_without_result()
        logs.flush()
        os._exit(0)

    def _exit_with_error(self, error: Exception) -> None:
        """Exit with code 1 at shutdown; the SDK would exit with 0 or stay alive."""
        self._exit_code = 1
        self.status.fail(error)

    # --- preparation ------------------------------------------------------------------------

    def _download_project(self) -> None:
        super()._download_project()
        self.data.check_download()

    def _create_collection(self, split_type: str, suffix: int) -> int:
        def create() -> int:
            return int(sdk.TrainApp._create_collection(self, split_type, suffix))

        name = f"{split_type}_{suffix:03d}"
        return create_collection(self._api, self.project_id, name, create)

    def _download_pretrained_model(self) -> None:
        """Use cached weights offline; the SDK opens the URL before it checks its cache."""
        files = self.model_info["meta"]["model_files"]
        self.model_files = {"config": str(find_base_config(files["config"]))}
        checkpoint = files.get("checkpoint")
        if not checkpoint:
            logger.info("Starting from random weights")
            return
        with self.progress_bar_main(message="Downloading weights", total=100) as bar:
            self.progress_bar_main.show()

            def show(received: int, total: int) -> None:
                if total:
                    bar.update(100 * received // total - bar.n)

            self.model_files["checkpoint"] = str(locate(checkpoint, on_progress=show))
        self.progress_bar_main.hide()
        logger.info("Starting from %s", checkpoint if is_url(checkpoint) else Path(checkpoint).name)

    # --- training ---------------------------------------------------------------------------

    def training_request(self) -> TrainingRequest:
        """Return the selected settings after data and model are downloaded and split.

        Raises:
            TrainingStopped: if a stop was requested in preparation.
        """
        self.lifecycle.stage = TrainingStage.TRAINING
        self.lifecycle.check()
        resume = self.run_folder.begin(self.data.run_to_save())
        if resume is not None:
            logger.info("Resuming from %s", resume.name)
        work_dir = Path(self.work_dir)
        checkpoint = self.model_files.get("checkpoint")
        return TrainingRequest(
            model_name=self.model_name,
            base_config=find_base_config(self.model_files["config"]),
            checkpoint=Path(checkpoint) if checkpoint else None,
            resume=resume,
            classes=self.classes,
            convert_shapes=self._converts_shapes,
            hyperparameters=self.hyperparameters,
            train_dir=Path(self.train_dataset_dir),
            val_dir=Path(self.val_dataset_dir),
            coco_dir=work_dir / COCO_FOLDER,
            run_dir=self.run_folder.output,
            result_dir=work_dir / "result",
            devices=tuple(self.devices) or (self.device,),
            name=self.gui.training_process.get_experiment_name() or None,
            origins=self.data.origins(),
        )

    @property
    def _converts_shapes(self) -> bool:
        return bool(self.gui.classes_selector.is_convert_class_shapes_enabled())

    def show_tensorboard(self, folder: Path) -> None:
        """Offer TensorBoard; `train_logger: tensorboard` does not, see docs/sdk.md."""
        folder.mkdir(parents=True, exist_ok=True)
        self.log_dir = str(folder)  # the SDK uploads it
        start_when_opened(self._server, lambda port: self.start_tensorboard(str(folder), port))
        self.gui.training_logs.tensorboard_button.enable()

    # --- finalization -----------------------------------------------------------------------

    def _finalize(self, experiment_info: dict[str, Any], resume: bool = False) -> None:
        self.lifecycle.stage = TrainingStage.FINALIZATION
        self.gui.need_convert_shapes = False  # `_run_model_benchmark` converts
        if self.lifecycle.is_stopping:
            self._skip_optional_steps()
        try:
            with own_experiment_page():
                super()._finalize(experiment_info, resume)
        except Exception as error:
            self._exit_with_error(error)
            raise
        finally:
            self.lifecycle.stage = TrainingStage.OVER
        if self.lifecycle.is_stopping:
            self._show_status(_SAVED)
            self.gui.training_artifacts.validator_text.set(_SAVED, "success")
        self.status.finish()
        self.run_folder.remove()
        self.gui.propose_new_name()

    def _skip_optional_steps(self) -> None:
        """Report the evaluation and the exports that a stopped training leaves out."""
        self.gui.training_artifacts.model_benchmark_fail_text.set(
            "Not evaluated, since the training was stopped.", "info"
        )
        for part in self.optional_steps:
            self.status.add_missing(part, "the training was stopped")

    @property
    def optional_steps(self) -> list[str]:
        """The evaluation and the exports that are selected."""
        return optional_steps(self.gui.hyperparameters_selector)

    @property
    def is_model_benchmark_enabled(self) -> bool:
        """Whether the best checkpoint is evaluated; not after a stop."""
        return not self.lifecycle.is_stopping and bool(super().is_model_benchmark_enabled)

    def _postprocess_splits(self, project_id: int | None = None) -> dict[str, Any]:
        """Return the splits as images; the SDK returns datasets, and finds no nested ones."""
        return {
            "train": {"dataset_ids": None, "images_ids": sorted(self._train_split_item_ids)},
            "val": {"dataset_ids": None, "images_ids": sorted(self._val_split_item_ids)},
        }

    def _run_model_benchmark(
        self,
        local_artifacts_dir: str,
        remote_artifacts_dir: str,
        experiment_info: dict[str, Any],
        splits_data: dict[str, Any],
        model_meta: sly.ProjectMeta,
        gt_project_id: int | None = None,
    ) -> tuple[Any, ...]:
        """Evaluate the best checkpoint, and report a failure, which the SDK only logs."""
        selector = self.gui.classes_selector
        with logs.collect_errors() as reasons:
            try:
                is_mixed = selector.get_wrong_shape_classes(experiment_info["task_type"])
                if is_mixed and self._converts_shapes:
                    image_ids = splits_data["val"]["images_ids"]
                    gt_project_id, copies = self.data.copy_with_boxes(image_ids)
                    validation = {"dataset_ids": None, "images_ids": copies}
                    splits_data = {**splits_data, "val": validation}
                with model_benchmark(self.lifecycle.check):
                    results: tuple[Any, ...] = super()._run_model_benchmark(
                        local_artifacts_dir,
                        remote_artifacts_dir,
                        experiment_info,
                        splits_data,
                        model_meta,
                        gt_project_id,
                    )
            except Exception as error:
                self.status.add_missing(EVALUATION_REPORT, describe_error(error))
                raise
        if results[2] is None:  # the report's id
            reason = reasons[0] if reasons else "the SDK gave no reason"
            self.status.add_missing(EVALUATION_REPORT, reason)
        return results

    def _upload_export_weights(
        self, export_weights: dict[str, str], export_classes_path: str | None, remote_dir: str
    ) -> dict[str, str]:
        remote: dict[str, str] = super()._upload_export_weights(
            export_weights, export_classes_path, remote_dir
        )
        self.exporter.upload_companions(export_weights, remote_dir)
        return remote
