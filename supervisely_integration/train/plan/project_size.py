"""The properties of a project, and of its splits on the page, that the plan of a training needs."""

from collections.abc import Collection

import supervisely as sly
from supervisely.api.entities_collection_api import CollectionTypeFilter
from supervisely.app.widgets import SplitMethod
from supervisely.nn.training.gui.train_val_splits_selector import TrainValSplitsSelector

from rtdetrv2.training.data_extent import DataExtent

_MAX_DATASETS = 20
_IMAGES = 50  # per dataset


def project_extent(api: sly.Api, project_id: int) -> DataExtent:
    """Inspect the images with the most objects of a project's first datasets."""
    datasets = api.dataset.get_list(project_id, recursive=True)
    num_images = sum(dataset.images_count or 0 for dataset in datasets)
    objects = api.project.get_stats(project_id)["objects"]["items"]
    images = [
        image
        for dataset in datasets[:_MAX_DATASETS]
        for image in api.image.get_list(
            dataset.id, sort="labelsCount", sort_order="desc", limit=_IMAGES
        )
    ]
    return DataExtent(
        longest_side=max((max(each.width, each.height) for each in images), default=640),
        max_boxes=max((each.labels_count or 0 for each in images), default=0),
        mean_boxes=sum(each["total"] for each in objects) / max(num_images, 1),
    )


def split_sizes(api: sly.Api, selector: TrainValSplitsSelector) -> tuple[int, int]:
    """Return the numbers of training and validation images of the selected split."""
    splits, project_id = selector.train_val_splits, selector.project_id
    method = selector.get_split_method()
    if method == SplitMethod.COLLECTIONS:
        chosen = (selector.get_train_collection_ids(), selector.get_val_collection_ids())
        num_train, num_val = (_num_items(api, project_id, ids or ()) for ids in chosen)
        return num_train, num_val
    datasets = api.dataset.get_list(project_id, recursive=True)
    counts = {dataset.id: dataset.images_count or 0 for dataset in datasets}
    total = sum(counts.values())
    if method == SplitMethod.DATASETS:
        chosen = (selector.get_train_dataset_ids(), selector.get_val_dataset_ids())
        num_train, num_val = (sum(counts.get(id_, 0) for id_ in ids or ()) for ids in chosen)
        return num_train, num_val
    if method == SplitMethod.TAGS:
        tags = api.project.get_stats(project_id)["imageTags"]["items"]
        tagged = {each["tagMeta"]["name"]: each["total"] for each in tags}
        num_train = tagged.get(splits.get_train_tag(), 0)
        num_val = tagged.get(splits.get_val_tag(), 0)
        untagged = max(0, total - num_train - num_val)
        action = splits.get_untagged_action()
        return (
            num_train + (untagged if action == "train" else 0),
            num_val + (untagged if action == "val" else 0),
        )
    num_val = round(total * splits.get_val_split_percent() / 100)
    return total - num_val, num_val


def _num_items(api: sly.Api, project_id: int, collections: Collection[int]) -> int:
    kind = CollectionTypeFilter.DEFAULT
    items = (api.entities_collection.get_items(id_, kind, project_id) for id_ in collections)
    return len({image.id for images in items for image in images})
