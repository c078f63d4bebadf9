"""Steps of the training page: classes of any shape, checked hyperparameters, training on a CPU."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape, unescape
from types import SimpleNamespace
from typing import Any

import supervisely as sly
import torch
from supervisely.api.entities_collection_api import CollectionTypeFilter
from supervisely.app.widgets import Text
from supervisely.nn.training import train_app
from supervisely.nn.training.gui import gui as sdk_gui
from supervisely.nn.training.gui.classes_selector import ClassesSelector
from supervisely.nn.training.gui.hyperparameters_selector import HyperparametersSelector
from supervisely.nn.training.gui.train_val_splits_selector import TrainValSplitsSelector
from supervisely.nn.training.gui.training_process import TrainingProcess

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.text import counted

from ..settings.default_split import default_split
from .attributes import replaced
from .train_page import CheckedModelSelector, TrainPage, show_at_step

logger = logging.getLogger(__name__)


class AllShapesClassesSelector(ClassesSelector):  # type: ignore[misc]
    """Offers classes of every shape.

    For a detection model, `ClassesSelector` (supervisely/nn/training/gui/classes_selector.py) lists
    only classes of rectangles. It drops others without a message, even if a GUI state names them.

    Args:
        project_id: of the project.
        classes: selected at first; none selects all.
        model_selector: the step before.
        app_options: of the app.
    """

    def __init__(
        self,
        project_id: int,
        classes: list[str],
        model_selector: Any = None,
        app_options: dict[str, Any] | None = None,
    ) -> None:
        # The shapes to list follow from the models: without one, all are listed.
        super().__init__(project_id, classes, SimpleNamespace(models=[]), app_options or {})
        self.model_selector = model_selector

    def validate_step(self) -> bool:
        """Accept mixed shapes while conversion is off, and list the skipped objects."""
        left_out = {} if self.is_convert_class_shapes_enabled() else self._other_shapes()
        selected = self.get_selected_classes()
        if not left_out or len(left_out) == len(selected):
            return bool(super().validate_step())
        listed = ", ".join(
            f"{name} ({counted(objects, 'object')})" for name, objects in left_out.items()
        )
        text = (
            f"Selected {counted(len(selected), 'class')}. Non-rectangular objects are left out: "
            f"{listed}. Enable conversion to train on their bounding boxes."
        )
        self.validator_text.set(text=escape(text, quote=False), status="warning")
        self.validator_text.show()
        logger.warning("%s", text)
        return True

    def _other_shapes(self) -> dict[str, int]:
        """Return the selected classes of other shapes with their numbers of objects."""
        meta = self.classes_table.project_meta
        # Columns of a row: name, shape, images, objects.
        objects = {row[0]["data"]: int(row[3]["data"]) for row in self.classes_table._table_data}
        return {
            name: objects.get(name, 0)
            for name in self.get_selected_classes()
            if meta.get_obj_class(name).geometry_type not in (sly.Rectangle, sly.AnyGeometry)
        }


class DecidedTrainValSplitsSelector(TrainValSplitsSelector):  # type: ignore[misc]
    """Selects the split that the names of datasets and collections decide, and says why.

    `TrainValSplitsSelector` (supervisely/nn/training/gui/train_val_splits_selector.py) knows the
    names train, training, val, validation, test and testing of datasets, and collections of earlier
    trainings. These stay selected where the names decide nothing.

    Args:
        api: of the instance.
        project_id: of the project.
        app_options: of the app.
    """

    def __init__(self, api: sly.Api, project_id: int, app_options: dict[str, Any]) -> None:
        super().__init__(api, project_id, app_options)
        tree = api.dataset.tree(project_id)
        datasets = {
            "/".join((*parents, each.name)): (each.id, each.images_count or 0)
            for parents, each in tree
        }
        kind = CollectionTypeFilter.DEFAULT
        collections = {
            each.name: (each.id, len(api.entities_collection.get_items(each.id, kind, project_id)))
            for each in api.entities_collection.get_list(project_id)
            if each.name in ("train", "val")
        }
        decided = default_split(datasets, collections)
        self.default_note = ""
        method = decided.settings.get("method")
        if method == "datasets":
            self.train_val_splits.set_datasets_splits(
                decided.settings["train_datasets"], decided.settings["val_datasets"]
            )
        elif method == "collections":
            self.train_val_splits.set_collections_splits(
                decided.settings["train_collections"], decided.settings["val_collections"]
            )
        elif method == "random":
            if self.latest_train_collection is not None and self.latest_val_collection is not None:
                return  # of an earlier training
            self.train_val_splits.set_random_splits("train", decided.settings["percent"])
        status = "info" if decided.settings else "warning"
        self.default_note = f"{decided.note}."
        self.validator_text.set(escape(self.default_note, quote=False), status)
        self.validator_text.show()


class TimedTrainingProcess(TrainingProcess):  # type: ignore[misc]
    """Shows how long the training takes.

    `TrainingProcess` (supervisely/nn/training/gui/training_process.py) has no place for it.

    Args:
        app_options: of the app.
    """

    def __init__(self, app_options: dict[str, Any]) -> None:
        super().__init__(app_options)
        self.estimate_text = Text("")
        self.estimate_text.hide()
        buttons = self.display_widgets[-2]
        buttons._widgets[-1] = self.estimate_text  # instead of an empty space


class CpuTrainingProcess(TimedTrainingProcess):
    """Trains on the CPU.

    Without a GPU, `TrainingProcess` (supervisely/nn/training/gui/training_process.py) returns no
    device, or "cuda:0". The environment variable `CPU_RANKS` says how many ranks share the CPU.

    Raises:
        ConfigError: if CPU_RANKS is not a positive integer.
    """

    def __init__(self, app_options: dict[str, Any]) -> None:
        ranks = os.environ.get("CPU_RANKS", "1")
        if not ranks.isdecimal() or int(ranks) < 1:
            raise ConfigError(f"CPU_RANKS = {ranks!r}: give a number of ranks, 1 or more")
        self._num_ranks = int(ranks)
        super().__init__(app_options)
        if self.select_device is not None:
            self.select_device._include_cpu_option = True
            self.select_device.refresh()

    def get_device(self) -> str:
        """Return the device of the first rank."""
        return "cpu"

    def get_devices(self) -> list[str]:
        """Return the device of every rank."""
        return ["cpu"] * self._num_ranks


def end_app_only_if(app: sly.Application, condition: Callable[[], bool]) -> None:
    """Let the app end itself only if a condition holds.

    `TrainApp._wrapped_start_training` (supervisely/nn/training/train_app.py) always calls
    `Application.shutdown` after a training, which the platform expects. People then have a page
    that does not respond.
    """
    shutdown = app.shutdown
    app.shutdown = lambda: shutdown() if condition() else None


def shown_errors(gui: sdk_gui.TrainGUI) -> list[str]:
    """Return the errors that the steps of the page show, without markup."""
    steps = ("input", "model", "classes", "train_val_splits", "hyperparameters")
    selectors = filter(None, (getattr(gui, f"{step}_selector") for step in steps))
    texts = [selector.validator_text for selector in selectors]
    return [unescape(text.text) for text in texts if text.status == "error" and text.text]


def hide_earlier_results(gui: sdk_gui.TrainGUI) -> None:
    """Hide the results of an earlier training in the same app."""
    results, logs = gui.training_artifacts, gui.training_logs
    for widget in (results.artifacts_field, results.inference_demo_field):
        if widget is not None:
            widget.hide()
    results.card.lock()
    if logs.tensorboard_offline_button is not None:
        logs.tensorboard_offline_button.hide()
        logs.tensorboard_button.show()


def offer_new_training(gui: sdk_gui.TrainGUI) -> None:
    """Unlock the settings after a training; `TrainApp` leaves them locked."""
    process = gui.training_process
    gui.enable_select_buttons()
    process.experiment_name_input.enable()
    if process.select_device is not None:
        process.select_device.enable()
    process.start_button.loading = False
    process.start_button.enable()
    process.stop_button.disable()


@contextmanager
def training_gui(
    check_hyperparameters: Callable[[str], object], is_stopping: Callable[[], bool]
) -> Iterator[None]:
    """Build the training page from the classes of this module; for the constructor of `TrainApp`.

    `TrainGUI.__init__` (supervisely/nn/training/gui/gui.py) takes no selectors of an app.

    Args:
        check_hyperparameters: raises ConfigError for a text that cannot be used.
        is_stopping: whether the training was asked to stop; nothing is exported then.
    """

    class CheckedHyperparametersSelector(HyperparametersSelector):  # type: ignore[misc]
        """Validates the editor's text when its step is completed; the SDK accepts any text."""

        def __init__(self, hyperparameters: str, app_options: dict[str, Any]) -> None:
            super().__init__(hyperparameters, app_options)
            self.preset_text = Text("")  # why the values differ from the defaults
            self.preset_text.hide()
            self.display_widgets.insert(0, self.preset_text)

        def validate_step(self) -> bool:
            """Show an error below the editor, and mark its line on the app's own page."""
            try:
                check_hyperparameters(self.get_hyperparameters())
            except ConfigError as error:
                show_at_step(self, str(error), "error")
                self._mark_line(error.line, str(error))
                return False
            self.validator_text.hide()
            self._mark_line(None)
            return bool(super().validate_step())

        def _mark_line(self, line: int | None, reason: str = "") -> None:
            data = sly.app.DataJson()
            mark = {"line": line, "reason": reason} if line else None
            data[self.editor.widget_id]["editor_options"]["mark"] = mark
            data.send_changes()

        def is_export_required(self) -> bool:
            """Return whether an export is selected and not ruled out by a stop."""
            return not is_stopping() and bool(super().is_export_required())

    process = TimedTrainingProcess if torch.cuda.is_available() else CpuTrainingProcess
    with (
        replaced(sdk_gui, "ClassesSelector", AllShapesClassesSelector),
        replaced(sdk_gui, "HyperparametersSelector", CheckedHyperparametersSelector),
        replaced(sdk_gui, "TrainValSplitsSelector", DecidedTrainValSplitsSelector),
        replaced(sdk_gui, "TrainingProcess", process),
        replaced(sdk_gui, "ModelSelector", CheckedModelSelector),
        replaced(train_app, "TrainGUI", TrainPage),
    ):
        yield
