"""Presets and the estimate of the time on the training page."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch
from supervisely.nn.utils import ModelSource

from rtdetrv2.training.auto_config import CPU_BUDGET_S, scratch_augmentation
from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2_pytorch.src.timing.estimates import Speed

from ...models import find_base_config
from ...paths import HYPERPARAMETERS
from ...sdk.train_page import TrainPage
from ..hyperparameters import complete_hyperparameters, read_hyperparameters
from . import presets
from .estimate import Estimate, estimate
from .probe import ProbeTask
from .project_size import project_extent, split_sizes
from .reserve import reserve_seconds
from .runner import ProbeRunner

logger = logging.getLogger(__name__)

_ASSUMED = Speed(1.0, 0.1, 0.1)  # of a small CPU, until it is measured
_MANY_EPOCHS = 1000
_NOT_INCLUDED = "Download, evaluation report, exports, label radar and upload take additional time."


class PagePlan:
    """Presets hyperparameters on a machine without a GPU, and shows how long a training takes.

    Steps are timed in the background: for the presets when the model is selected, and for the
    estimate when the hyperparameters are. Presets replace presets only, and only until the card of
    the hyperparameters is open.

    Args:
        gui: of the app.
        folder: for the configurations of custom models; created if needed.
    """

    def __init__(self, gui: TrainPage, folder: Path) -> None:
        self._gui = gui
        self._folder = folder
        self._runner = ProbeRunner()
        self._lock = threading.RLock()
        self._preset = ""  # the text in the editor, if it is ours
        self._speed: Speed | None = None  # of the preset
        self._is_open = False  # the card of the hyperparameters
        self._is_timing = False  # for the estimate
        for step, action, is_reselect in (
            ("model_selector", self._time_preset, False),
            ("train_val_splits", self._finish_preset, False),
            ("train_val_splits", self._reopen_preset, True),
            ("hyperparameters_selector", self._estimate, False),
            ("hyperparameters_selector", self._withdraw_estimate, True),
        ):
            gui.step_flow.add_on_select_actions(step, [_harmless(action)], is_reselect=is_reselect)
        devices = gui.training_process.select_device
        if devices is not None:
            devices.value_changed(lambda _: _harmless(self._estimate_again)())

    def begin(self) -> None:
        """Preset hyperparameters for a CPU, unless others are loaded; show the time of those."""
        defaults = HYPERPARAMETERS.read_text(encoding="utf-8")
        if not self._gui.training_process.card.is_locked():
            _harmless(self._estimate)()
        elif not torch.cuda.is_available() and self._text() == defaults:
            self._preset = defaults
            _harmless(self._show_preset)()

    def stop_timing(self) -> None:
        """End the timing, as a training begins; an estimate stays."""
        self._runner.cancel()
        if self._is_timing:
            self._hide_estimate()

    @cached_property
    def _extent(self) -> DataExtent:
        return project_extent(self._gui._api, self._gui.project_id)

    # --- presets ----------------------------------------------------------------------------

    @property
    def _has_preset(self) -> bool:
        return bool(self._preset) and self._text() == self._preset

    def _time_preset(self) -> None:
        if not self._has_preset:
            return
        self._speed = None
        self._show_preset()  # the model may start from random weights
        values = self._completed(self._preset)

        def show(speed: Speed) -> None:
            with self._lock:
                self._speed = speed
                self._show_preset()

        self._runner.request(lambda: self._task(values), show, logger.debug)

    def _finish_preset(self) -> None:
        """Preset the epochs for the selected split, before a person can edit them."""
        with self._lock:
            self._show_preset()
            self._is_open = True

    def _reopen_preset(self) -> None:
        self._is_open = False

    def _show_preset(self) -> None:
        """Show the presets, and why they are what they are; with an open card only why."""
        if not self._has_preset:
            return
        is_from_scratch = not self._gui.model_selector.get_checkpoint_name()
        values = presets.cpu_values(self._extent, is_from_scratch=is_from_scratch)
        sizes = split_sizes(self._gui._api, self._gui.train_val_splits_selector)
        completed = presets.completed({"epoches": 1, **values})
        one = _estimate_on_cpu(self._speed or _ASSUMED, completed, sizes)
        fitting = one.time.epochs_within(CPU_BUDGET_S)
        if is_from_scratch:
            num_boxes = sizes[0] * self._extent.mean_boxes
            values |= scratch_augmentation(
                epochs=fitting,
                num_boxes=num_boxes,
                num_classes=len(self._gui.classes_selector.get_selected_classes()),
                given={},
            )
        if not self._is_open:
            self._preset = presets.as_text({"epoches": fitting, **values})
            self._gui.hyperparameters_selector.set_hyperparameters(self._preset)
        shown = self._completed(self._preset)
        text = presets.reason(
            shown["eval_spatial_size"],
            epochs=int(shown["epoches"]),
            fitting=fitting,
            one=one,
            is_measured=self._speed is not None,
        )
        self._gui.hyperparameters_selector.preset_text.set(text, "info")
        self._gui.hyperparameters_selector.preset_text.show()

    # --- estimate ---------------------------------------------------------------------------

    def _estimate(self) -> None:
        text = self._text()
        if text != self._preset:
            self._gui.hyperparameters_selector.preset_text.hide()
        values = self._completed(text)
        device, num_ranks = self._devices()
        self._show("Estimating the time...")
        self._is_timing = True

        def show(speed: Speed) -> None:
            num_train, num_val = split_sizes(self._gui._api, self._gui.train_val_splits_selector)
            found = estimate(
                speed,
                values,
                num_train=num_train,
                num_val=num_val,
                device=device,
                num_ranks=num_ranks,
                reserve_s=reserve_seconds(
                    self._gui.hyperparameters_selector, values, num_ranks=num_ranks
                ),
            )
            logger.info("Training takes %s", found)
            self._show(f"Takes {found}. {_NOT_INCLUDED}")
            if text == self._preset:
                self._speed = speed
                self._show_preset()

        def failed(reason: str) -> None:
            self._show(f"The time could not be estimated: {reason}")

        self._runner.request(lambda: self._task(values), show, failed)

    def _estimate_again(self) -> None:
        if not self._gui.training_process.estimate_text.is_hidden():
            self._estimate()

    def _withdraw_estimate(self) -> None:
        self._runner.cancel()
        self._hide_estimate()

    def _hide_estimate(self) -> None:
        self._is_timing = False
        self._gui.training_process.estimate_text.hide()

    def _show(self, text: str) -> None:
        self._is_timing = False
        self._gui.training_process.estimate_text.set(escape(text, quote=False), "info")
        self._gui.training_process.estimate_text.show()

    # --- selections of the page -------------------------------------------------------------

    def _text(self) -> str:
        return str(self._gui.hyperparameters_selector.get_hyperparameters())

    def _completed(self, text: str) -> dict[str, Any]:
        return complete_hyperparameters(read_hyperparameters(text))

    def _devices(self) -> tuple[str, int]:
        process = self._gui.training_process
        device = process.get_device() or "cuda:0"
        return device, 1 if device == "cpu" else max(1, len(process.get_devices()))

    def _task(self, values: Mapping[str, Any]) -> ProbeTask:
        device, num_ranks = self._devices()
        return ProbeTask(
            base_config=str(self._base_config()),
            # Does not change the speed; with few epochs, augmentation would end early.
            hyperparameters={**values, "epoches": _MANY_EPOCHS, "lr_scheduler": None},
            longest_side=self._extent.longest_side,
            device=device,
            num_ranks=num_ranks,
        )

    def _base_config(self) -> Path:
        """Return the configuration of the selected model; downloads that of an experiment."""
        selector = self._gui.model_selector
        info = selector.get_model_info()
        if selector.get_model_source() == ModelSource.PRETRAINED:
            return find_base_config(info["meta"]["model_files"]["config"])
        remote = f"{info['artifacts_dir'].rstrip('/')}/{info['model_files']['config']}"
        local = self._folder / remote.strip("/").replace("/", "_")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._gui._api.file.download(self._gui.team_id, remote, str(local))
        return local


def _estimate_on_cpu(speed: Speed, values: Mapping[str, Any], sizes: tuple[int, int]) -> Estimate:
    num_train, num_val = sizes
    return estimate(speed, values, num_train=num_train, num_val=num_val, device="cpu")


def _harmless(action: Callable[[], None]) -> Callable[[], None]:
    """Return an action whose errors are logged: a training is possible without it."""

    def run() -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 (any)
            logger.warning("The time of the training could not be planned", exc_info=True)

    return run
