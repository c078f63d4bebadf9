"""Every work-around for the model benchmark of the Supervisely SDK, each with its pitfall.

The benchmark serves the best checkpoint on the training app's own server, lets it predict the
validation split into a project, and compares that with the labels. `docs/benchmark.md` says how
its numbers relate to those of the training; `tests/app/test_sdk_patches.py` asks the bare SDK
about each work-around.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
import supervisely as sly
import uvicorn
from supervisely.geometry import point_location
from supervisely.nn.benchmark import base_benchmark as sdk_base_benchmark
from supervisely.nn.benchmark.object_detection import benchmark as sdk_benchmark
from supervisely.nn.benchmark.object_detection.metric_provider import MetricProvider
from supervisely.nn.inference import ObjectDetection
from supervisely.nn.training import train_app as sdk_train_app

from rtdetrv2_pytorch.src.solver.stopping import StopFlag

from .coco import box_objects
from .lifecycle import Stopped

logger = logging.getLogger(__name__)

# Detections with lower scores are not asked for. An untrained network gives 0.01 to everything:
# three quarters of all detections are there, and a thousandth of the AP is not.
LOWEST_SCORE = 0.02
CPU_ITERATIONS = 20  # of the speed test, for each of its three batch sizes
_DEFAULT_PORT = 8000
_ENDING = ("stop_inference", "clear_inference_request")  # what a stopped benchmark still sends


def app_port() -> int:
    """Pitfall 2: the benchmark talks to port 8000, wherever the app listens.

    Returns:
        The port of this app, as uvicorn reads it from the command line or its environment.
    """
    with suppress(click.ClickException, click.exceptions.Exit):
        return int(uvicorn.main.make_context("uvicorn", sys.argv[1:]).params["port"])
    return _DEFAULT_PORT


class OwnSession(sdk_train_app.SessionJSON):  # type: ignore[misc]
    """Pitfalls 2 and 17: talks to this app wherever it listens, and ends when it is to stop.

    Args:
        api: of the platform.
        session_url: what the SDK takes for the address of this app.
        stop: asked before every request.
    """

    def __init__(self, api: sly.Api, *, session_url: str, stop: StopFlag) -> None:
        self._stop = stop
        super().__init__(api, session_url=f"http://localhost:{app_port()}")

    def _post(self, url: str, **options: Any) -> Any:
        if self._stop.is_set and not url.endswith(_ENDING):
            raise Stopped(f"stopped: {self._stop.reason}")
        return super()._post(url, **options)


def predicting_exactly(inference_class: type[Any]) -> type[Any]:
    """A serving class that leaves fractions of pixels to the SDK; see `fractions_of_pixels`."""

    class Exact(inference_class):  # type: ignore[misc]
        def _create_label(self, dto: Any) -> sly.Label:
            return ObjectDetection._create_label(self, dto)

    Exact.__name__ = inference_class.__name__
    return Exact


@contextmanager
def fractions_of_pixels() -> Iterator[None]:
    """Not in the list: predicted boxes are cut to whole pixels, which labels are, too.

    A small box that is nearly right becomes exactly right, and the AP is too high. Coordinates are
    cut when a geometry is made, and when one is downloaded.
    """
    cut, cut_downloads = point_location.floor, vars(sly.Rectangle)["_round_subpixel_coordinates"]

    def as_they_are(*corners: float) -> tuple[float, ...]:
        return corners

    point_location.floor = float
    sly.Rectangle._round_subpixel_coordinates = staticmethod(as_they_are)
    try:
        yield
    finally:
        point_location.floor = cut
        sly.Rectangle._round_subpixel_coordinates = cut_downloads


def ap_of_labelled_classes(metrics: MetricProvider) -> float:
    """Not in the list: for AP50 a class without a box in the split counts, as one never found."""
    precision = metrics.coco_precision[metrics.iou_threshold_idx, :, :, 0, 2]
    return float(precision[precision > -1].mean())


class TrueBenchmark(sdk_train_app.ObjectDetectionBenchmark):  # type: ignore[misc]
    """Not in the list: two constants of the SDK that do not fit.

    Only detections above 0.05 are asked for, which takes from the AP what the others would find,
    and leaves nothing of a model that was trained for a short while. And the speed test takes a
    hundred batches of each size, minutes on a GPU, hours without one.
    """

    def _run_inference(self, *args: Any, **options: Any) -> dict[str, Any]:
        sdk_benchmark.CONF_THRES = LOWEST_SCORE
        with fractions_of_pixels():
            return dict(super()._run_inference(*args, **options))

    def _download_projects(self, save_images: bool = False) -> tuple[str, str]:
        """Predictions come with fractions of pixels; labels come as they did for training."""
        _, predictions = self.get_project_paths()
        with fractions_of_pixels():
            sdk_base_benchmark.download_project(
                self.api,
                self.dt_project_info.id,
                predictions,
                log_progress=True,
                save_images=save_images,
                save_image_info=True,
            )
        paths: tuple[str, str] = super()._download_projects(save_images)
        return paths

    def _run_speedtest(self, *args: Any, **options: Any) -> dict[str, Any]:
        if self._fetch_model_info(self.session)["device"] == "cpu":
            options["num_iterations"] = min(options["num_iterations"], CPU_ITERATIONS)
        return dict(super()._run_speedtest(*args, **options))


class _Listener(logging.Handler):
    """Collects the reasons of errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.reasons.append((str(error) or repr(error)) if error else record.getMessage())


@contextmanager
def overheard_errors() -> Iterator[list[str]]:
    """Pitfall 24: the reason of a failed benchmark is logged, and nothing else knows of it.

    Yields:
        Reasons, filled while errors are logged.
    """
    listener = _Listener()
    sly.logger.addHandler(listener)
    try:
        yield listener.reasons
    finally:
        sly.logger.removeHandler(listener)


class BenchmarkedTrainApp(sdk_train_app.TrainApp):  # type: ignore[misc]
    """The SDK's app with a benchmark that is true, can be stopped, and does not fail in silence."""

    stop_flag: StopFlag
    last_words: str | None

    def register_inference_class(
        self, inference_class: type[Any], inference_settings: str | dict[str, Any] | None = None
    ) -> None:
        """Register what serves the model while it is evaluated.

        Args:
            inference_class: serving class.
            inference_settings: its settings, or the path of their file.
        """
        super().register_inference_class(predicting_exactly(inference_class), inference_settings)

    def _convert_and_split_gt_project(self, task_type: str) -> tuple[int | None, dict[str, Any]]:
        """Not in the list: the SDK converts what training left out, and fails on nested data sets.

        Here the images of the validation split are copied, with the boxes of the training.
        """
        splits = self._postprocess_splits()
        if not self.gui.classes_selector.is_convert_class_shapes_enabled():
            return None, splits
        try:
            project_id, image_ids = self._copy_with_boxes(self._image_ids(splits["val"]))
        except Exception as error:
            self._benchmark_failed(str(error) or repr(error))
            raise
        return project_id, {**splits, "val": {"dataset_ids": None, "images_ids": image_ids}}

    def _copy_with_boxes(self, image_ids: list[int]) -> tuple[int, list[int]]:
        """Copy images into a new project whose objects are boxes; returns it and the copies."""
        project = self._api.project.create(
            self.workspace_id,
            f"[detection]: {self.project_info.name}",
            description=f"Labels of task {self.task_id} as boxes, for its evaluation report",
            change_name_if_conflict=True,
        )
        classes = [self.project_meta.get_obj_class(title) for title in self.classes]
        meta = sly.ProjectMeta([c.clone(geometry_type=sly.Rectangle) for c in classes])
        self._api.project.update_meta(project.id, meta)
        groups: dict[int, list[int]] = {}
        for info in self._api.image.get_info_by_id_batch(image_ids):
            groups.setdefault(info.dataset_id, []).append(info.id)
        copies = []
        for dataset_id, ids in groups.items():
            name = self._api.dataset.get_info_by_id(dataset_id).name
            own = self._api.dataset.create(project.id, name, change_name_if_conflict=True)
            labels = {
                each.image_id: {
                    **each.annotation,
                    "tags": [],
                    "objects": box_objects(each.annotation, self.classes, each.image_name),
                }
                for each in self._api.annotation.download_batch(dataset_id, ids)
            }
            made = [image.id for image in self._api.image.copy_batch(own.id, ids)]
            self._api.annotation.upload_jsons(made, [labels[id_] for id_ in ids])
            copies += made
        return project.id, copies

    def _image_ids(self, split: dict[str, Any]) -> list[int]:
        """Images of one split, which may be named by its data sets."""
        if split["images_ids"] is not None:
            return list(split["images_ids"])
        datasets = split["dataset_ids"]
        return [image.id for id_ in datasets for image in self._api.image.get_list(id_)]

    def _run_model_benchmark(
        self,
        local_artifacts_dir: str,
        remote_artifacts_dir: str,
        experiment_info: dict[str, Any],
        splits_data: dict[str, Any],
        *others: Any,
    ) -> tuple[Any, ...]:
        def own_session(api: sly.Api, session_url: str) -> OwnSession:
            return OwnSession(api, session_url=session_url, stop=self.stop_flag)

        sdk_train_app.SessionJSON = own_session
        sdk_train_app.ObjectDetectionBenchmark = TrueBenchmark
        MetricProvider.AP_custom = ap_of_labelled_classes
        with overheard_errors() as reasons:
            try:
                # Not in the list: a data set in another one is looked for without its parent. By
                # their images all are found.
                validation = {
                    "dataset_ids": None,
                    "images_ids": self._image_ids(splits_data["val"]),
                }
                results: tuple[Any, ...] = super()._run_model_benchmark(
                    local_artifacts_dir,
                    remote_artifacts_dir,
                    experiment_info,
                    {**splits_data, "val": validation},
                    *others,
                )
            except Exception as error:
                self._benchmark_failed(str(error) or repr(error))
                raise
        report_id = results[2]
        if report_id is None:
            self._benchmark_failed(reasons[0] if reasons else "no reason was given")
        return results

    def _benchmark_failed(self, reason: str) -> None:
        """Pitfall 24: a training without the report that was asked for ends as if all were well."""
        text = f"The experiment is complete, but it has no evaluation report: {reason}"
        logger.error("%s", text)
        self.last_words = text
