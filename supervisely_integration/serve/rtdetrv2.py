"""RT-DETRv2 behind the SDK's `ObjectDetection`."""

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
import uvicorn
from fastapi import HTTPException
from supervisely.nn.inference import ObjectDetection
from supervisely.nn.prediction_dto import PredictionBBox
from supervisely.nn.utils import CheckpointInfo, ModelSource, RuntimeType

from rtdetrv2_pytorch.src.data.images.pixel_range import PixelRange, array_to_rgb
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import Runtime, open_runtime
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.text import parse_json
from rtdetrv2_pytorch.src.misc.weights import locate
from rtdetrv2_pytorch.src.structures import DetectionTensors

from ..models import find_base_config
from ..paths import INFERENCE_SETTINGS, MODELS, SERVE_OPTIONS
from ..sdk.access import protect_app, use_paths_without_prefix
from ..sdk.deployment import (
    LOOPBACK,
    PORT,
    RUNTIMES,
    add_openvino,
    complete_deploy_params,
    parse_command_line,
)
from ..sdk.inference import replace_shared_parts
from .image_inputs import check_image_ids
from .prediction_settings import SYNONYMS, PredictionSettings, check_classes, synonyms_in
from .routes import add_times, note, prepare_server


class RTDETRv2(ObjectDetection):  # type: ignore[misc]
    """A detector that the SDK deploys, queries and stops.

    The network handles one request at a time: a request uses all cores, or the whole GPU, and
    TensorRT allows no more.

    Args:
        options: of the SDK's `Inference`.
    """

    FRAMEWORK_NAME = "RT-DETRv2"
    MODELS = str(MODELS)
    APP_OPTIONS = str(SERVE_OPTIONS)
    INFERENCE_SETTINGS = str(INFERENCE_SETTINGS)
    checkpoint_info: CheckpointInfo | None
    in_train = False  # the training app's benchmark sets it

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._opened: tuple[object, ...] | None = None
        self.kept: dict[str, Any] = {}  # attributes of the model that answers during a deployment
        add_openvino()
        use_paths_without_prefix()
        super().__init__(*args, **options)
        replace_shared_parts(self, lambda: self.pixel_range)

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
        """Open a model file and deploy it.

        :param model_files: checkpoint (.pth), ONNX file or TensorRT engine under "checkpoint"
        :param model_source: pretrained, custom or external
        :param device: cpu, cuda:0, ...
        :param runtime: PyTorch, ONNXRuntime, TensorRT or OpenVINO
        """
        path = Path(model_files["checkpoint"])
        kind = RUNTIMES[runtime]
        # `Inference._load_model` loads a TensorRT engine twice in a row.
        opened = (path, path.is_file() and path.stat().st_mtime_ns, kind, device)
        if opened == self._opened and self._predictor is not None:
            return
        config = _config_file(model_files, model_source)
        names = self.classes if model_files.get("classes") else None
        if kind == "openvino" and path.suffix.lower() != ".onnx":
            path = self._export(path, ".onnx", config)
        self._deploy(Predictor(_open(path, kind, device, config, names)), opened)
        if not self.checkpoint_info:
            self.checkpoint_info = CheckpointInfo(
                checkpoint_name=path.name,
                model_name=self._card.model_name or self.FRAMEWORK_NAME,
                architecture=self.FRAMEWORK_NAME,
                custom_checkpoint_path=model_files["checkpoint"],
                model_source=model_source,
            )

    def _deploy(self, predictor: Predictor, opened: tuple[object, ...]) -> None:
        card = predictor.runtime.card
        if card.pixel_range != self.pixel_range:
            self.cache.clear_cache()  # it holds scaled images
        self._predictor, self._opened, self.kept = predictor, opened, {}
        self.classes = list(card.class_names)
        self.max_batch_size = predictor.runtime.max_batch_size
        self.model_precision = card.precision.upper()
        if not _matches(self._model_meta, card):
            self.update_model_meta()

    @property
    def model_meta(self) -> sly.ProjectMeta:
        """Classes and tags of the model that answers."""
        return self.kept.get("_model_meta") or super().model_meta

    @property
    def _deployed(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError("no model is deployed; deploy one first")
        return self._predictor

    @property
    def pixel_range(self) -> PixelRange | None:
        """Pixel range of the deployed model."""
        return None if self._predictor is None else self._card.pixel_range

    @property
    def _card(self) -> ModelCard:
        return self._deployed.runtime.card

    def _download_model_files(
        self, deploy_params: dict[str, Any], log_progress: bool = True
    ) -> dict[str, str]:
        """Check the request before the download, and forget the meta of an earlier model."""
        complete_deploy_params(deploy_params)
        deploy_params.setdefault("model_info", {})
        self.checkpoint_info = self._model_meta = None
        params = dict(deploy_params)
        if params["runtime"] == "OpenVINO":
            params["runtime"] = RuntimeType.ONNXRUNTIME  # whose file an experiment may have
        files: dict[str, str] = super()._download_model_files(
            params, log_progress and bool(self.gui)
        )
        return files

    def _download_pretrained_model(
        self, model_files: dict[str, str], log_progress: bool = True, headless: bool = False
    ) -> dict[str, str]:
        """Use cached weights offline; the SDK opens the URL before it checks its cache."""
        return {**model_files, "checkpoint": str(locate(model_files["checkpoint"]))}

    def _load_models_json_file(self, models: str) -> list[dict[str, Any]]:
        """Leave out the rows with random weights, which only the training app offers."""
        rows: list[dict[str, Any]] = super()._load_models_json_file(models)
        return [row for row in rows if row["meta"]["model_files"].get("checkpoint")]

    def _fallback_download_custom_model_pt(self, deploy_params: dict[str, Any]) -> str:
        """Raise the load error of an engine, if no experiment exists to rebuild it from."""
        if not deploy_params.get("model_info", {}).get("artifacts_dir"):
            raise  # noqa: PLE0704 (called in an except block)
        return str(super()._fallback_download_custom_model_pt(deploy_params))

    def shutdown_model(self) -> None:
        """Stop the deployed model, unless it answers until another one is loaded."""
        if self.kept:
            return
        super().shutdown_model()
        self._predictor = self._opened = None

    def export_onnx(self, deploy_params: dict[str, Any]) -> str:
        """Convert the checkpoint for ONNX Runtime; returns the path."""
        return self._export_deployed(deploy_params, ".onnx")

    def export_tensorrt(self, deploy_params: dict[str, Any]) -> str:
        """Convert the checkpoint for TensorRT; returns the path."""
        return self._export_deployed(deploy_params, ".engine")

    def _export_deployed(self, deploy_params: dict[str, Any], suffix: str) -> str:
        files = deploy_params["model_files"]
        config = _config_file(files, deploy_params["model_source"])
        return str(self._export(Path(files["checkpoint"]), suffix, config))

    def _export(self, path: Path, suffix: str, config: Path | None) -> Path:
        from ..checkpoint_export import export_checkpoint  # its libraries take seconds to load

        output = Path(self.model_dir) / f"{path.stem}{suffix}"
        try:
            return export_checkpoint(path, output)
        except CheckpointError:
            if config is None:
                raise
            return export_checkpoint(path, output, config=config)

    # --- predicting -------------------------------------------------------------------------

    def predict_benchmark(
        self, images_np: list[np.ndarray], settings: dict[str, Any]
    ) -> tuple[list[list[PredictionBBox]], dict[str, float]]:
        """Detect objects in a batch of RGB images; times are milliseconds of the whole batch."""
        predictor = self._deployed
        chosen = PredictionSettings.read(settings)
        images = [array_to_rgb(image, self.pixel_range) for image in images_np]
        with self._lock:
            detections, timing = predictor.predict(images, **asdict(chosen))
        names = predictor.runtime.card.class_names
        wanted = settings.get("classes")
        check_classes(wanted, names)
        predictions = [
            to_predictions(one, names, image.shape[:2])
            for one, image in zip(detections, images, strict=True)
        ]
        if wanted not in (None, "all"):
            predictions = [[p for p in image if p.class_name in wanted] for image in predictions]
        if not self.in_train:
            predictions = [[_rounded(each) for each in image] for image in predictions]
        times = {name.removesuffix("_s"): 1000 * value for name, value in asdict(timing).items()}
        add_times(times)
        return predictions, times

    def predict(self, image_path: str, settings: dict[str, Any]) -> list[PredictionBBox]:
        """Detect objects in one image file."""
        return self.predict_benchmark([self._deployed.read(image_path)], settings)[0][0]

    def get_info(self) -> dict[str, Any]:
        """Describe the session to clients."""
        info: dict[str, Any] = super().get_info()
        info |= {"tracking_on_videos_support": False, "tracking_algorithms": []}
        if self._predictor is not None:
            info |= {
                "model_name": self._card.model_name or self.FRAMEWORK_NAME,
                "checkpoint_name": self.checkpoint_info and self.checkpoint_info.checkpoint_name,
                "device": self.device,
                "runtime": self.runtime,
                "input_size_hw": list(self._card.input_size_hw),
            }
        return info

    # --- requests ---------------------------------------------------------------------------

    def validate_inference_state(self, state: Any, log_error: bool = True) -> None:
        """Reject an invalid request with status 400 before any work is done for it."""
        try:
            given = parse_json(state) if isinstance(state, str) else state
            super().validate_inference_state(given, log_error)
            self._check_state(given)
        except (RTDETRError, ValueError) as error:
            raise HTTPException(status_code=400, detail=str(error)) from error

    def _check_state(self, state: dict[str, Any]) -> None:
        card = self._card
        check_image_ids(state)
        settings = state.get("settings") or {}
        if not isinstance(settings, dict):
            raise ConfigError(f"settings = {settings!r}: give a mapping of names to values")
        chosen = PredictionSettings.read({**self.custom_inference_settings_dict, **settings})
        if chosen.confidence_threshold == "auto":
            card.thresholds()
        check_classes(settings.get("classes"), card.class_names)
        for key in synonyms_in(settings):
            note(f"{key} is read as {SYNONYMS[key]}")
        for key in state:
            if key in ("confidence_threshold", "nms_iou", "classes", *SYNONYMS):
                raise ConfigError(f"{key}: belongs into the settings of the state; move it there")
        if state.get("tracker"):
            raise ConfigError(
                f"tracker = {state['tracker']!r}: this model does not track objects; remove it"
            )

    def serve(self) -> None:
        """Start to answer requests."""
        super().serve()
        prepare_server(self)

    def _run_server(self) -> None:
        """Run the server of the command `deploy` on the loopback, or the given host."""
        prepare_server(self)
        uvicorn.run(self._app, host=self._args.host, port=PORT, ws="websockets")

    def _run_server_in_thread(self) -> None:
        """Serve a model that Python code deploys, to this machine only."""
        protect_app(self.app.get_server())
        options = {"host": LOOPBACK, "port": PORT, "ws": "websockets"}
        threading.Thread(target=uvicorn.run, args=(self._app,), kwargs=options, daemon=True).start()

    # --- command line -----------------------------------------------------------------------

    def _parse_cli_deploy_args(self) -> tuple[Any, bool]:
        return parse_command_line(super()._parse_cli_deploy_args)

    def _get_custom_model_params_from_args(
        self,
    ) -> tuple[dict[str, str], str, dict[str, Any], bool]:
        """Accept a single file; the SDK requires the folder of an experiment around it."""
        path = Path(self._args.model)
        if path.is_file():
            files = {"checkpoint": str(path)}
            config = path.parent.parent / "model_config.yml"
            if config.is_file():
                files["config"] = str(config)
            return files, ModelSource.CUSTOM, {}, False
        if self.api is None or not os.environ.get("TEAM_ID"):
            raise ConfigError(
                f"--model {path}: neither a published model nor a file; to use a file in Team "
                "Files, set SERVER_ADDRESS, API_TOKEN and TEAM_ID"
            )
        return {"checkpoint": str(path)}, ModelSource.CUSTOM, {}, True


def to_predictions(
    detections: DetectionTensors, names: Sequence[str], size_hw: Sequence[int]
) -> list[PredictionBBox]:
    """Convert boxes to the SDK's convention: the last row and column belong to the box.

    A box that ends at 10.2 covers pixel 9 and a part of 10: its last column is 9.2, or 9 in whole
    pixels. Boxes are at least one pixel wide and lie in the image.
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
    """Round to the nearest pixels; the SDK would truncate."""
    return [math.floor(edge + 0.5) for edge in bbox_tlbr]


def _rounded(prediction: PredictionBBox) -> PredictionBBox:
    box = whole_pixels(prediction.bbox_tlbr)
    return PredictionBBox(prediction.class_name, box, prediction.score)


def _matches(meta: sly.ProjectMeta | None, card: ModelCard) -> bool:
    """Return whether a meta has the classes of the model, as rectangles."""
    if meta is None:
        return False
    shapes = {each.name: each.geometry_type for each in meta.obj_classes}
    return set(shapes) == set(card.class_names) and set(shapes.values()) == {sly.Rectangle}


def _config_file(model_files: dict[str, str], model_source: str) -> Path | None:
    """Return the configuration given for a checkpoint that has none."""
    name = model_files.get("config")
    if not name:
        return None
    return find_base_config(name) if model_source == ModelSource.PRETRAINED else Path(name)


def _open(
    path: Path, kind: str, device: str, config: Path | None, names: list[str] | None
) -> Runtime:
    """Open a model; a file's own configuration takes precedence over the given one."""
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
