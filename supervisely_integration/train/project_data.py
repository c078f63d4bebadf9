"""The downloaded project of a training: its completeness, its splits and its image names."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import supervisely as sly
from supervisely.app.widgets import SplitMethod
from supervisely.nn.training.train_app import TrainApp
from supervisely.project.project import ItemInfo

from ..sdk.api_calls import refetch_damaged_images
from .data_check import Origins
from .label_radar.queue import queue_images
from .project_splits import box_objects, check_complete, images_on_disk
from .run_folder import Items, SavedRun, fingerprint

logger = logging.getLogger(__name__)


class ProjectData:
    """The project that an app trains on.

    Args:
        app: the training app.
    """

    def __init__(self, app: TrainApp) -> None:
        self._app = app
        self._downloaded: Mapping[str, Collection[str]] = {}

    # --- download ---------------------------------------------------------------------------

    def check_download(self) -> None:
        """Compare the downloaded images with the platform's, and download damaged ones again.

        `Project.download` (supervisely/project/project.py) logs an image that fails and leaves it
        out.

        Raises:
            DatasetError: if images are missing.
        """
        app = self._app
        folder = Path(app.project_dir)
        self._downloaded = images_on_disk(folder)
        expected = {}
        for path, dataset in self._selected_datasets():
            images = app._api.image.get_list(dataset.id)
            if len(self._downloaded.get(path, ())) < dataset.images_count:
                expected[path] = [image.name for image in images]
            dataset_folder = folder.joinpath(*path.replace("/", "/datasets/").split("/"))
            refetch_damaged_images(app._api, dataset_folder / "img", images)
        check_complete(folder, expected)

    def queue_label_errors(self, suspicions: Path) -> None:
        """Tag and collect the images that the label radar found, if it was run.

        A failure is logged, because the training is complete without it.
        """
        if not suspicions.is_file():
            return
        api = self._app._api
        try:
            image_ids = {
                f"{path}/{image.name}": image.id
                for path, dataset in self._selected_datasets()
                for image in api.image.get_list(dataset.id)
            }
            queue_images(api, self._app.project_id, image_ids, suspicions)
        except Exception:
            logger.exception("Could not tag the images that the label radar found")

    def _selected_datasets(self) -> list[tuple[str, Any]]:
        """Return path ("parent/child") and record of every dataset that is downloaded."""
        selector = self._app.gui.train_val_splits_selector
        tree = self._app._api.dataset.tree(self._app.project_id)
        datasets = [("/".join((*parents, dataset.name)), dataset) for parents, dataset in tree]
        if selector.get_split_method() != SplitMethod.DATASETS:
            return datasets
        ids = {*selector.get_train_dataset_ids(), *selector.get_val_dataset_ids()}
        return [(path, dataset) for path, dataset in datasets if dataset.id in ids]

    # --- splits -----------------------------------------------------------------------------

    def restore_split(self, saved: SavedRun) -> None:
        """Use the saved split once, instead of a random one.

        `TrainValSplits.get_splits` (supervisely/app/widgets) samples a new random split at every
        launch of a task.
        """
        widget = self._app.gui.train_val_splits_selector.train_val_splits

        def get_splits() -> tuple[list[ItemInfo], list[ItemInfo]]:
            del widget.get_splits
            return self._find_items(saved.train), self._find_items(saved.val)

        widget.get_splits = get_splits

    def _find_items(self, names: Items) -> list[ItemInfo]:
        datasets = {dataset.name: dataset for dataset in self._app.sly_project.datasets}
        items = []
        for dataset_name, name in names:
            if dataset_name not in datasets or not datasets[dataset_name].item_exists(name):
                continue  # the fingerprint of the run differs then, which is logged
            paths = datasets[dataset_name].get_item_paths(name)
            items.append(ItemInfo(dataset_name, name, paths.img_path, paths.ann_path))
        return items

    def split_items(self) -> tuple[Items, Items]:
        """Return the images of both splits."""
        train, val = (
            [(item.dataset_name, item.name) for item in split]
            for split in (self._app._train_split, self._app._val_split)
        )
        return train, val

    def run_to_save(self) -> SavedRun:
        """Return the settings of this training, for a relaunch of its task."""
        app = self._app
        train, val = self.split_items()
        app_state = app.get_app_state()
        app_state["experiment_name"] = app.gui.training_process.get_experiment_name()
        return SavedRun(
            fingerprint=fingerprint(
                project_id=app.project_id,
                classes=app.classes,
                train=train,
                val=val,
                model=app_state["model"],
                hyperparameters=app.hyperparameters,
            ),
            app_state=app_state,
            train=train,
            val=val,
        )

    def origins(self) -> Origins:
        """Return the original names of the images, which `TrainApp._split_project` renames."""
        train, val = self.split_items()
        digits = len(str(max(len(train), len(val))))
        names = {
            f"{split}_img_{number:0{digits}d}": f"{dataset}/{name}"
            for split, items in (("train", train), ("val", val))
            for number, (dataset, name) in enumerate(items, start=1)
        }
        return Origins(names, self._downloaded)

    # --- ground truth of the evaluation -----------------------------------------------------

    def copy_with_boxes(self, image_ids: list[int]) -> tuple[int, list[int]]:
        """Copy images into a new project whose objects are the boxes of the training.

        `TrainApp._convert_and_split_gt_project` (supervisely/nn/training/train_app.py) converts
        classes that the training left out, too, and fails on nested datasets.

        Returns:
            Id of the project and ids of the copies.
        """
        app, api = self._app, self._app._api
        project = api.project.create(
            app.workspace_id,
            f"[detection]: {app.project_info.name}",
            description=f"Labels of task {app.task_id} as boxes, for its evaluation report",
            change_name_if_conflict=True,
        )
        classes = [app.project_meta.get_obj_class(title) for title in app.classes]
        meta = sly.ProjectMeta([c.clone(geometry_type=sly.Rectangle) for c in classes])
        api.project.update_meta(project.id, meta)
        groups: dict[int, list[int]] = {}
        for info in api.image.get_info_by_id_batch(image_ids):
            groups.setdefault(info.dataset_id, []).append(info.id)
        copies = []
        for dataset_id, ids in groups.items():
            name = api.dataset.get_info_by_id(dataset_id).name
            dataset = api.dataset.create(project.id, name, change_name_if_conflict=True)
            labels = {
                each.image_id: {
                    **each.annotation,
                    "tags": [],
                    "objects": box_objects(each.annotation, app.classes, each.image_name),
                }
                for each in api.annotation.download_batch(dataset_id, ids)
            }
            copied = [image.id for image in api.image.copy_batch(dataset.id, ids)]
            api.annotation.upload_jsons(copied, [labels[id_] for id_ in ids])
            copies += copied
        return project.id, copies
