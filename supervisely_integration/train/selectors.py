"""Work-arounds for what the SDK's page of a training offers, and when it says what is wrong."""

import logging
import os
from typing import Any

import supervisely as sly
import torch
from supervisely.app.widgets import ClassesTable
from supervisely.nn.training.gui import classes_selector as sdk_classes_selector
from supervisely.nn.training.gui import gui as sdk_gui
from supervisely.nn.training.gui.hyperparameters_selector import HyperparametersSelector

from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ..models import find_base_config
from .run_config import check_hyperparameters

logger = logging.getLogger(__name__)

ANY_RECIPE = "rtdetrv2_r18vd_120e_coco.yml"  # will do to check what was typed


def use_cpu_without_gpu(process: Any) -> None:
    """Pitfall 1: without a GPU the selected device is None, or a GPU that is not there.

    `CPU_RANKS` in the environment says how many ranks share the CPU; one, if it says nothing.
    """
    if torch.cuda.is_available():
        return
    ranks = os.environ.get("CPU_RANKS", "1")
    if not ranks.isdecimal() or int(ranks) < 1:
        raise ConfigError(f"CPU_RANKS = {ranks!r}: has to be a number of ranks, 1 or more")
    process.select_device._include_cpu_option = True  # else the choice is empty
    process.select_device.refresh()
    process.get_device = lambda: "cpu"
    process.get_devices = lambda: ["cpu"] * int(ranks)
    process.get_device_name = lambda: "CPU"


class AllShapesClassesSelector(sdk_classes_selector.ClassesSelector):  # type: ignore[misc]
    """Pitfall 29: classes that are no rectangles are hidden, and dropped without a word."""

    def validate_step(self) -> bool:
        """Let mixed classes pass, saying what will be left out while conversion is off."""
        left_out = {} if self.is_convert_class_shapes_enabled() else self._other_shapes()
        selected = self.get_selected_classes()
        if not left_out or len(left_out) == len(selected):
            return bool(super().validate_step())
        listed = ", ".join(f"{name} ({objects} objects)" for name, objects in left_out.items())
        text = (
            f"Selected {len(selected)} classes. Objects that are no rectangles are left out: "
            f"{listed}. Enable conversion to train on their boxes."
        )
        self.validator_text.set(text=text, status="warning")
        self.validator_text.show()
        logger.warning("%s", text)
        return True

    def _other_shapes(self) -> dict[str, int]:
        """Selected classes that hold no rectangles, with their numbers of objects."""
        meta = self.classes_table.project_meta
        # Columns of a row: name, shape, images, objects.
        objects = {row[0]["data"]: int(row[3]["data"]) for row in self.classes_table._table_data}
        return {
            name: objects.get(name, 0)
            for name in self.get_selected_classes()
            if meta.get_obj_class(name).geometry_type not in (sly.Rectangle, sly.AnyGeometry)
        }


def offer_all_shapes() -> None:
    """Pitfall 29, continued: the table of classes is not filtered by shape."""

    def unfiltered_table(project_id: int, allowed_types: Any) -> Any:
        return ClassesTable(project_id=project_id)

    sdk_classes_selector.ClassesTable = unfiltered_table
    sdk_gui.ClassesSelector = AllShapesClassesSelector


class CheckedHyperparametersSelector(HyperparametersSelector):  # type: ignore[misc]
    """Not in the list: what was typed is looked at when the training starts, a step later."""

    def validate_step(self) -> bool:
        """Say what is wrong beside the editor, as far as it does not depend on the model."""
        try:
            check_hyperparameters(self.get_hyperparameters(), find_base_config(ANY_RECIPE))
        except ConfigError as error:
            self.validator_text.set(str(error), "error")
            self.validator_text.show()
            return False
        self.validator_text.hide()
        return bool(super().validate_step())


def check_hyperparameters_when_selected() -> None:
    """The same, continued: the page is made with that class."""
    sdk_gui.HyperparametersSelector = CheckedHyperparametersSelector
