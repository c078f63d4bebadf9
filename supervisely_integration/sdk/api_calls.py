"""Uploads and downloads of the Supervisely SDK."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import supervisely as sly
from requests import HTTPError
from requests.exceptions import RetryError
from requests_toolbelt import (  # type: ignore[import-untyped]
    MultipartEncoder,
    MultipartEncoderMonitor,
)
from supervisely.io.fs import get_file_hash
from supervisely.project import project as sdk_project

from rtdetrv2_pytorch.src.misc.errors import DatasetError

logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 60


def retry_multipart_uploads() -> None:
    """Send the whole body with every retry; patches `Api.post`.

    The first try of `Api.post` (supervisely/api/api.py) reads a multipart body to its end. The next
    try announces the same length, sends nothing, and hangs. Here every try gets a new body; the
    pauses between tries are those of the SDK.
    """
    original = sly.Api.post
    if getattr(original, "rewinds_bodies", False):
        return

    def post(
        self: Any, method: str, data: Any, retries: int | None = None, *rest: Any, **options: Any
    ) -> Any:
        if not isinstance(data, MultipartEncoder | MultipartEncoderMonitor):
            return original(self, method, data, retries, *rest, **options)
        tries = retries or self.retry_count
        for number in range(tries):
            try:
                return original(self, method, data, 1, *rest, **options)
            except RetryError:
                if number + 1 == tries:
                    raise
            # The SDK has already paused as after a first failure.
            pause_s = min(self.retry_sleep_sec * 2**number, _MAX_PAUSE_S)
            time.sleep(max(0, pause_s - self.retry_sleep_sec))
            data = _rewind(data)
        raise AssertionError("there is at least one try")

    post.rewinds_bodies = True  # type: ignore[attr-defined]
    sly.Api.post = post


def _rewind(data: Any) -> Any:
    encoder = data.encoder if isinstance(data, MultipartEncoderMonitor) else data
    for _, value in encoder.fields:
        if isinstance(value, tuple) and hasattr(value[1], "seek"):
            value[1].seek(0)
    copy = MultipartEncoder(encoder.fields, encoder.boundary_value)
    if isinstance(data, MultipartEncoderMonitor):
        return MultipartEncoderMonitor(copy, data.callback)
    return copy


def find_datasets_with(find: Callable[[Path], Iterable[Path]]) -> None:
    """Find the datasets of a downloaded project with this function; patches `subdirs_tree`.

    `supervisely.project.project.subdirs_tree` leaves out datasets whose names end in "img", "ann",
    "meta" or "datasets".

    Args:
        find: returns the dataset folders below the folder of a project.
    """

    def subdirs_tree(project_dir: str, *ignored: Any) -> list[str]:
        root = Path(project_dir)
        return [str(folder.relative_to(root)) for folder in find(root)]

    sdk_project.subdirs_tree = subdirs_tree


def refetch_damaged_images(api: sly.Api, folder: Path, images: Iterable[Any]) -> int:
    """Download images again whose content does not match their hash.

    `download_fast` (supervisely/project/download.py) downloads in bulk and compares no hashes. An
    image with the same content in two downloads is kept: the platform stores that content, even if
    its record has another hash.

    Args:
        api: of the SDK.
        folder: of the images.
        images: their records: `id`, `name`, `hash`.

    Returns:
        Number of images that were downloaded again.

    Raises:
        DatasetError: if an image arrives with different content every time.
    """
    count = 0
    for image in images:
        path = folder / image.name
        if not image.hash or not path.is_file():
            continue
        first = get_file_hash(str(path))
        if first == image.hash:
            continue
        logger.warning("%s: damaged in transfer; downloading it again", image.name)
        count += 1
        api.image.download_path(image.id, str(path))
        if get_file_hash(str(path)) not in (image.hash, first):
            raise DatasetError(
                f"{image.name}: arrives damaged every time; check the network and start again"
            )
    return count


def create_collection(api: sly.Api, project_id: int, name: str, create: Callable[[], int]) -> int:
    """Create a collection of a project, even if the platform's first answer is lost.

    `Api.post` repeats a request without an answer. The second one finds the name taken by the
    collection that the first one created, and `TrainApp._create_collection`
    (supervisely/nn/training/train_app.py) raises.

    Args:
        api: of the SDK.
        project_id: of the project.
        name: that the new collection's name starts with.
        create: the SDK's own method.

    Returns:
        Id of the new collection.
    """
    known = {each.id for each in api.entities_collection.get_list(project_id)}
    try:
        return create()
    except HTTPError:
        for collection in api.entities_collection.get_list(project_id):
            if collection.id not in known and collection.name.startswith(name):
                return int(collection.id)
        raise
