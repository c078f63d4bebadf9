"""RT-DETRv2 behind the interface that the Supervisely SDK serves."""

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import supervisely as sly
import torch
from fastapi import HTTPException
from supervisely.nn.inference import ObjectDetection
from supervisely.nn.prediction_dto import PredictionBBox
from supervisely.nn.tracker import TRACKING_LIBS_INSTALLED
from supervisely.nn.utils import CheckpointInfo, ModelSource, RuntimeType

from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime, open_runtime
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.weights import locate
from rtdetrv2_pytorch.src.structures import Detections
from supervisely_integration.models import find_base_config
from supervisely_integration.paths import INFERENCE_SETTINGS, MODELS, SERVE_OPTIONS
from supervisely_integration.sdk.inference import (
    KINDS,
    add_openvino,
    complete_deploy_params,
    parse_command_line,
    replace_shared_parts,
)
from supervisely_integration.serve.routes import prepare_server
from supervisely_integration.serve.settings import PredictionSettings, with_threshold


class RTDETRv2(ObjectDetection):  # type: ignore[misc]
    """A detector that is deployed, asked and stopped by the SDK.

    One prediction at a time goes through the network: it uses all cores, or the whole GPU, anyway,
    and TensorRT allows no more.

    Args:
        options: as the SDK's `Inference` takes them.
    """

    FRAMEWORK_NAME = "RT-DETRv2"
    MODELS = str(MODELS)
    APP_OPTIONS = str(SERVE_OPTIONS)
    INFERENCE_SETTINGS = str(INFERENCE_SETTINGS)
    checkpoint_info: CheckpointInfo | None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._opened: tuple[object, ...] | None = None
        add_openvino()
        super().__init__(*args, **options)
        replace_shared_parts(self)

    # --- deploying --------------------------------------------------------------------------

    def load_model(
        self,
        model_files: dict[str, str],
        model_info: dict[str, Any] | None = None,
        model_source: str = ModelSource.CUSTOM,
        device: str = "cpu",
        runtime: str = RuntimeType.PYTORCH,
        **others: Any,
    ) -> None:
        """Open a model file and take it into service.

        :param model_files: checkpoint (.pth), ONNX file or TensorRT engine under "checkpoint"
        :param model_source: pretrained, custom or external
        :param device: cpu, cuda:0, ...
        :param runtime: PyTorch, ONNXRuntime, TensorRT or OpenVINO
        """
        path = Path(model_files["checkpoint"])
        kind = KINDS[runtime]
        # The SDK loads a TensorRT engine twice in a row.
        opened = (path, path.is_file() and path.stat().st_mtime_ns, kind, device)
        if opened == self._opened and self._predictor is not None:
            return
        config = _config_file(model_files, model_source)
        names = self.classes if model_files.get("classes") else None
        if kind == "openvino" and path.suffix.lower() != ".onnx":
            path = self._export("onnx", path, config)
        predictor = Predictor(_open(path, kind, device, config, names))
        self._serve_with(predictor, opened)
        if not self.checkpoint_info:
            self.checkpoint_info = CheckpointInfo(
                checkpoint_name=path.name,
                model_name=predictor.runtime.card.model_name or self.FRAMEWORK_NAME,
                architecture=self.FRAMEWORK_NAME,
                custom_checkpoint_path=model_files["checkpoint"],
                model_source=model_source,
            )

    def _serve_with(self, predictor: Predictor, opened: tuple[object, ...]) -> None:
        card = predictor.runtime.card
        self._predictor, self._opened = predictor, opened
        self.classes = list(card.class_names)
        self.max_batch_size = predictor.runtime.max_batch_size
        self.model_precision = card.precision.upper()
        if not _describes(self._model_meta, card):  # of an earlier model, or not of rectangles
            self.update_model_meta()

    def _load_model_headless(self, *args: Any, **params: Any) -> None:
        """The SDK keeps the name and the classes of an earlier model where a file brings none."""
        self.checkpoint_info = self._model_meta = None
        super()._load_model_headless(*args, **params)

    def _load_model(self, deploy_params: dict[str, Any]) -> None:
        super()._load_model(complete_deploy_params(deploy_params))

    def _set_common_deploy_params(self, deploy_params: dict[str, Any]) -> dict[str, Any]:
        return complete_deploy_params(deploy_params)

    def _download_model_files(
        self, deploy_params: dict[str, Any], log_progress: bool = True
    ) -> dict[str, str]:
        """Refuse what cannot work before anything is downloaded."""
        complete_deploy_params(deploy_params)
        deploy_params.setdefault("model_info", {})
        asked = dict(deploy_params)
        if asked["runtime"] == "OpenVINO":
            asked["runtime"] = RuntimeType.ONNXRUNTIME  # the file that an experiment may have
        files: dict[str, str] = super()._download_model_files(
            asked, log_progress and bool(self.gui)
        )
        return files

    def _download_pretrained_model(
        self, model_files: dict[str, str], log_progress: bool = True, headless: bool = False
    ) -> dict[str, str]:
        """The SDK asks the server before it looks into its cache: there is no start offline."""
        return {**model_files, "checkpoint": str(locate(model_files["checkpoint"]))}

    def _load_models_json_file(self, models: str) -> list[dict[str, Any]]:
        """The table of the training app without random weights."""
        rows: list[dict[str, Any]] = super()._load_models_json_file(models)
        return [row for row in rows if row["meta"]["model_files"].get("checkpoint")]

    def _fallback_download_custom_model_pt(self, deploy_params: dict[str, Any]) -> str:
        """An engine that does not run here is built again, if its checkpoint is known."""
        if not deploy_params.get("model_info", {}).get("artifacts_dir"):
            raise  # noqa: PLE0704 (called in an except block: the reason why it does not run)
        return str(super()._fallback_download_custom_model_pt(deploy_params))

    def shutdown_model(self) -> None:
        """Take the model out of service."""
        super().shutdown_model()
        self._predictor = self._opened = None

    def export_onnx(self, deploy_params: dict[str, Any]) -> str:
        """Convert the checkpoint for ONNX Runtime; returns the path."""
        return self._export_for("onnx", deploy_params)

    def export_tensorrt(self, deploy_params: dict[str, Any]) -> str:
        """Convert the checkpoint for TensorRT; returns the path."""
        return self._export_for("engine", deploy_params)

    def _export_for(self, suffix: str, deploy_params: dict[str, Any]) -> str:
        files = deploy_params["model_files"]
        config = _config_file(files, deploy_params["model_source"])
        return str(self._export(suffix, Path(files["checkpoint"]), config))

    def _export(self, suffix: str, path: Path, config: Path | None) -> Path:
        from supervisely_integration import export  # its libraries take seconds to load

        function = {"onnx": export.export_onnx, "engine": export.export_tensorrt}[suffix]
        output = Path(self.model_dir) / f"{path.stem}.{suffix}"
        try:
            return function(path, output)
        except CheckpointError:
            if config is None:
                raise
            return function(path, output, config=config)

    # --- predicting -------------------------------------------------------------------------

    def predict_benchmark(
        self, images_np: list[np.ndarray], settings: dict[str, Any]
    ) -> tuple[list[list[PredictionBBox]], dict[str, float]]:
        """Detect in a batch of RGB images; the times are milliseconds of the whole batch."""
        predictor = self._predictor
        if predictor is None:
            raise ConfigError("no model is deployed; deploy one first")
        chosen = PredictionSettings.read(settings)
        images = [_as_rgb(image) for image in images_np]
        with self._lock:
            detections, timing = predictor.predict(images, **asdict(chosen))
        names = predictor.runtime.card.class_names
        found = [
            to_predictions(one, names, image.shape[:2])
            for one, image in zip(detections, images, strict=True)
        ]
        spent = {name.removesuffix("_s"): 1000 * value for name, value in asdict(timing).items()}
        return found, spent

    def predict(self, image_path: str, settings: dict[str, Any]) -> list[PredictionBBox]:
        """Detect in one image file."""
        return self.predict_benchmark([sly.image.read(image_path)], settings)[0][0]

    def _create_label(self, dto: PredictionBBox) -> sly.Label:
        whole = PredictionBBox(dto.class_name, whole_pixels(dto.bbox_tlbr), dto.score)
        return super()._create_label(whole)

    def get_info(self) -> dict[str, Any]:
        """What clients are told about the session."""
        info: dict[str, Any] = super().get_info()
        info["tracking_on_videos_support"] = TRACKING_LIBS_INSTALLED
        if self._predictor is not None:
            card = self._predictor.runtime.card
            info |= {
                "model_name": card.model_name or self.FRAMEWORK_NAME,
                "checkpoint_name": self.checkpoint_info and self.checkpoint_info.checkpoint_name,
                "device": self.device,
                "runtime": self.runtime,
                "input_size_hw": list(card.input_size_hw),
            }
        return info

    def _tracker_init(self, tracker: str | None, tracker_settings: dict[str, Any]) -> Any:
        """The SDK goes on without a tracker where its packages are missing."""
        if tracker and not TRACKING_LIBS_INSTALLED:
            raise ConfigError(
                f"tracker = {tracker!r}: its packages are not here; install supervisely[tracking]"
            )
        return super()._tracker_init(tracker, tracker_settings)

    # --- requests ---------------------------------------------------------------------------

    def validate_inference_state(self, state: Any, log_error: bool = True) -> None:
        """Refuse a request in one sentence before any work is done for it."""
        super().validate_inference_state(state, log_error)
        if isinstance(state, str):
            return  # comes again as what it says
        try:
            self._check_state(state)
        except RTDETRError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error

    def _check_state(self, state: dict[str, Any]) -> None:
        predictor = self._predictor
        if predictor is None:
            raise ConfigError("no model is deployed; deploy one first")
        size = state.get("batch_size")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ConfigError(f"batch_size = {size!r}: give a whole number above 0")
        settings = state.get("settings") or {}
        if not isinstance(settings, dict):
            raise ConfigError(f"settings = {settings!r}: give a mapping of names to values")
        chosen = PredictionSettings.read(self._get_inference_settings({"settings": dict(settings)}))
        if chosen.confidence_threshold == "auto":
            predictor.runtime.card.thresholds()

    def _get_inference_settings(self, state: dict[str, Any]) -> dict[str, Any]:
        """The SDK forgets `conf` where a request does not give our own name, too."""
        settings = with_threshold(state.get("settings") or {})
        completed: dict[str, Any] = super()._get_inference_settings({**state, "settings": settings})
        return completed

    def serve(self) -> None:
        """Start to answer."""
        super().serve()
        prepare_server(self)

    def _run_server(self) -> None:
        prepare_server(self)
        super()._run_server()

    # --- command line -----------------------------------------------------------------------

    def _parse_cli_deploy_args(self) -> tuple[Any, bool]:
        return parse_command_line(super()._parse_cli_deploy_args)

    def _get_custom_model_params_from_args(
        self,
    ) -> tuple[dict[str, str], str, dict[str, Any], bool]:
        """The SDK wants an experiment around the file; ours describe themselves."""
        path = Path(self._args.model)
        if path.is_file():
            files = {"checkpoint": str(path)}
            config = path.parent.parent / "model_config.yml"
            if config.is_file():
                files["config"] = str(config)
            return files, ModelSource.CUSTOM, {}, False
        if self.api is None or not os.environ.get("TEAM_ID"):
            raise ConfigError(
                f"--model {path}: neither a published model nor a file; for a file in Team Files "
                "set SERVER_ADDRESS, API_TOKEN and TEAM_ID"
            )
        return {"checkpoint": str(path)}, ModelSource.CUSTOM, {}, True

    def _validate_settings(self, settings: dict[str, Any]) -> None:
        super()._validate_settings(with_threshold(settings))

    def _parse_inference_settings_from_args(self) -> None:
        """The SDK leaves out the defaults of the settings that are not given."""
        super()._parse_inference_settings_from_args()
        self._args.settings = self._get_inference_settings({"settings": self._args.settings})
        PredictionSettings.read(self._args.settings)


def to_predictions(
    detections: Detections, names: Sequence[str], size_hw: Sequence[int]
) -> list[PredictionBBox]:
    """Boxes as the SDK has them: the last row and column are part of the box.

    A box that ends at 10.2 covers pixel 9 and a part of 10: its last column is 9.2, and 9 in whole
    pixels. No box is thinner than a pixel, and all of it is in the image.
    """
    height, width = size_hw
    left, top, right, bottom = detections["boxes"].double().unbind(-1)
    left, top = left.clamp(0, width - 1), top.clamp(0, height - 1)
    right = (right - 1).clamp(max=width - 1).maximum(left)
    bottom = (bottom - 1).clamp(max=height - 1).maximum(top)
    boxes = torch.stack((top, left, bottom, right), dim=-1)
    return [
        PredictionBBox(names[label], box, score)
        for label, box, score in zip(
            detections["labels"].tolist(),
            boxes.tolist(),
            detections["scores"].tolist(),
            strict=True,
        )
    ]


def whole_pixels(bbox_tlbr: Sequence[float]) -> list[int]:
    """The nearest pixels; the SDK would cut the fractions off."""
    return [math.floor(edge + 0.5) for edge in bbox_tlbr]


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Three channels of 8 bits, or an error."""
    if image.ndim == 2 or image.shape[-1] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ConfigError(f"an image is {image.dtype} {list(image.shape)}; give 8-bit RGB")
    return image[:, :, :3]


def _describes(meta: sly.ProjectMeta | None, card: ModelCard) -> bool:
    """Whether this meta has the classes of the model, as rectangles."""
    if meta is None:
        return False
    shapes = {each.name: each.geometry_type for each in meta.obj_classes}
    return set(shapes) == set(card.class_names) and set(shapes.values()) == {sly.Rectangle}


def _config_file(model_files: dict[str, str], model_source: str) -> Path | None:
    """The configuration that comes with a checkpoint which does not describe itself."""
    name = model_files.get("config")
    if not name:
        return None
    return find_base_config(name) if model_source == ModelSource.PRETRAINED else Path(name)


def _open(
    path: Path, kind: str, device: str, config: Path | None, names: list[str] | None
) -> Runtime:
    """What a file says about itself counts; a configuration beside it is for those silent."""
    if kind != "pytorch":
        return open_runtime(path, kind, device=device)
    if names is not None:
        return open_runtime(path, kind, device=device, config=config, class_names=names)
    try:
        return open_runtime(path, kind, device=device)
    except CheckpointError:
        if config is None:
            raise
        return open_runtime(path, kind, device=device, config=config)
