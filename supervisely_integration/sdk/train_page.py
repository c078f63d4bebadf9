"""The training page: valid experiment names, and settings of other projects."""

import logging
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from supervisely.app.widgets import Button
from supervisely.nn.training.gui.gui import TrainGUI
from supervisely.nn.training.gui.model_selector import ModelSelector
from supervisely.nn.training.gui.utils import button_clicked
from supervisely.nn.utils import ModelSource

from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.text import parse_json
from rtdetrv2_pytorch.src.misc.weights import check_available

from ..settings.fitting import ProjectContent, fit_settings
from ..settings.formats import app_settings
from ..settings.names import experiment_name, unused_name
from ..task_status import PAGE_ERROR

logger = logging.getLogger(__name__)


class CheckedModelSelector(ModelSelector):  # type: ignore[misc]
    """Rejects pretrained models whose weights are not available, before training is started.

    `ModelSelector` (supervisely/nn/training/gui/model_selector.py) accepts every row.

    Args:
        arguments: of `ModelSelector`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._offered = ""  # a row with random weights
        self.offer_button = Button("", plain=True)
        self.offer_button.hide()
        self.offer_button.click(self._take_offer)
        self.display_widgets.insert(-1, self.offer_button)

    def _take_offer(self) -> None:
        """Select the row with random weights."""
        self.offer_button.hide()
        self.pretrained_models_table.set_by_model_name(self._offered)
        show_at_step(self, f"{self._offered} is selected. Press Select to continue.", "info")

    def validate_step(self) -> bool:
        """Show the reason, and a button for the same model with random weights."""
        self.offer_button.hide()
        is_selected = bool(super().validate_step())
        if not is_selected or self.get_model_source() != ModelSource.PRETRAINED:
            return is_selected
        row = self.get_model_info()
        checkpoint = row["meta"]["model_files"].get("checkpoint")
        try:
            if checkpoint:
                check_available(checkpoint)
        except CheckpointError as error:
            self._offered = f"{row['Model'].split('_')[0]} (random weights)"
            show_at_step(
                self,
                f"{error}, or use {self._offered}, which needs many more epochs and images for the "
                "same accuracy.",
                "error",
            )
            self.offer_button.text = f"Use {self._offered}"
            self.offer_button.show()
            return False
        return True


class TrainPage(TrainGUI):  # type: ignore[misc]
    """Loads what fits of saved settings, and shows the rest as open.

    `TrainGUI` (supervisely/nn/training/gui/gui.py) raises if an experiment or settings name a part
    that the project does not have, which ends the app.

    Args:
        arguments: of `TrainGUI`.
    """

    def __init__(self, *arguments: Any) -> None:
        self.is_ready = False  # the app sets it when its constructor is done
        self._used_names: set[str] = set()  # of experiments that this app saved
        self._saved_name = ""  # in the loaded settings
        super().__init__(*arguments)
        self.step_flow.add_on_select_actions("model_selector", [self._name_experiment])

    def _name_experiment(self) -> None:
        """Replace the name of the SDK, which rejects its own name if the project's has a slash."""
        model = self.model_selector.get_model_name()
        if model is not None:
            name = experiment_name(self.task_id, self.project_info.name, model)
            name = self._saved_name or name
            self.training_process.set_experiment_name(unused_name(name, self._used_names))

    def propose_new_name(self) -> None:
        """Propose another name, since the experiment with the current one is saved."""
        name = self.training_process.get_experiment_name()
        self._used_names.add(name)
        self.training_process.set_experiment_name(unused_name(name, self._used_names))

    def load_from_app_state(
        self, app_state: str | dict[str, Any], click_cb: bool = True, validate_steps: bool = True
    ) -> None:
        """Load settings; those that start a training, or come from a request, have to fit.

        Raises:
            ConfigError: if the format is unknown.
            ValueError: if settings that have to fit do not.
        """
        settings = read_settings(app_state)
        if self.is_ready and click_cb:
            self._reopen_steps()
        if not validate_steps or settings.get("start_training", self.is_ready):
            super().load_from_app_state(settings, click_cb, validate_steps)
        else:
            self._load_fitting(settings, "The settings are loaded.", click=click_cb)

    def _reopen_steps(self) -> None:
        """Deselect every step: the SDK's callbacks toggle, and would deselect selected ones."""
        for step in reversed(list(self.step_flow.steps.values())):
            if step["wrapper"] and button_clicked.get(step["button"].widget_id):
                step["wrapper"](False)
                button_clicked[step["button"].widget_id] = False  # also if its values are invalid
        self.set_first_step()

    def _run_from_experiment(self, train_task_id: int, train_mode: str) -> None:
        """Load the settings of an experiment; with "continue", also its best checkpoint."""
        try:
            info = self._api.nn.get_experiment_info(train_task_id)
            settings: dict[str, Any] = {}
            if info.app_state is not None:
                settings = self._download_experiment_state(info)
            elif info.hyperparameters is not None:
                settings["hyperparameters"] = self._download_experiment_hparams(info)
        except Exception as error:  # noqa: BLE001 (any: files may be missing or damaged)
            logger.warning(
                "The settings of task %s could not be loaded", train_task_id, exc_info=True
            )
            reason = f"The settings of task {train_task_id} could not be loaded ({error})."
            show_at_step(self.input_selector, f"{reason} Choose them here.", "warning")
            return
        if train_mode == "continue":
            settings["model"] = {
                "source": ModelSource.CUSTOM,
                "task_id": train_task_id,
                "checkpoint": info.best_checkpoint,
            }
        settings.pop("start_training", None)
        source = f"Training configuration is loaded from the experiment: {info.experiment_name}."
        self._load_fitting(settings, source)

    def _load_fitting(
        self, settings: Mapping[str, Any], source: str, *, click: bool = False
    ) -> None:
        """Load the settings that fit the project; show the others at their step and at the top.

        Args:
            settings: in the app's format; missing parts stay open.
            source: sentence that says where they come from.
            click: whether to complete the steps, up to the first one that is open.
        """
        fitted, notes = fit_settings(settings, self._content())
        options = settings.get("options") or {}
        steps = (
            ("input", self._init_input, self.input_selector),
            ("model", self._init_model, self.model_selector),
            ("classes", self._init_classes, self.classes_selector),
            ("train_val_split", self._init_train_val_splits, self.train_val_splits_selector),
            ("hyperparameters", self._init_hyperparameters, self.hyperparameters_selector),
        )
        for part, load, selector in steps:
            is_given = part in fitted or part == "input"
            click = click and is_given and part not in notes
            if is_given:
                if part != "input":
                    selector.validator_text.hide()  # describes the defaults
                try:
                    click = bool(load(fitted.get(part), options, click, click)) and click
                except Exception as error:  # noqa: BLE001 (the SDK raises any)
                    logger.debug("%s could not be loaded", part, exc_info=True)
                    notes[part] = f"{error} Choose the {part} here."
                    click = False
            if part in notes:
                is_default = part == "train_val_split" and part not in fitted
                default = f" {selector.default_note}" if is_default else ""
                show_at_step(selector, notes[part] + default)
        self._saved_name = settings.get("experiment_name") or ""
        if self._saved_name:
            self.training_process.set_experiment_name(self._saved_name)
        text = " ".join([source, *notes.values()])
        show_at_step(self.input_selector, text, "warning" if notes else "success")

    def _content(self) -> ProjectContent:
        tree = self._api.dataset.tree(self.project_id)
        collections = self._api.entities_collection.get_list(self.project_id)
        return ProjectContent(
            classes={each.name: each.sly_id for each in self.project_meta.obj_classes},
            tags={each.name for each in self.project_meta.tag_metas},
            datasets={dataset.id for _, dataset in tree},
            collections={each.id for each in collections},
        )


def read_settings(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the app's format, from a dict, JSON or the path of a file.

    Raises:
        ConfigError: if they cannot be read.
    """
    where = "app state"
    if isinstance(given, str):
        try:
            if not given.lstrip().startswith("{"):
                where, given = given, Path(given).read_text(encoding="utf-8")
            given = parse_json(given)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{where}: not readable as JSON ({error}); correct it") from error
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: not an object; use the app_state.json of an experiment")
    return app_settings(given, where)[0]


def show_at_step(selector: Any, text: str, status: str = "warning") -> None:
    """Show a text at a step of the page; warnings and errors are logged, too."""
    if status == "warning":
        logger.warning("%s", text)
    elif status == "error":
        logger.error("%s", text, extra={PAGE_ERROR: True})
    selector.validator_text.set(escape(text, quote=False), status)
    selector.validator_text.show()
