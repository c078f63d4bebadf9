"""Work-arounds for transfers of the Supervisely SDK (6.74.51): whole uploads, whole downloads."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import supervisely as sly
from requests.exceptions import RetryError
from requests_toolbelt import (  # type: ignore[import-untyped]
    MultipartEncoder,
    MultipartEncoderMonitor,
)
from supervisely.io.fs import get_file_hash

from rtdetrv2_pytorch.src.misc.errors import DatasetError

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60


def send_whole_bodies_again() -> None:
    """Not in the list: a body of several files is read to its end by the first try.

    The SDK's next try announces its length, sends nothing, and waits for an answer for ever. Here
    every try gets a body of its own; pauses between them are those of the SDK.
    """
    original = sly.Api.post
    if getattr(original, "sends_whole_bodies", False):
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
            # The SDK has paused as after a first failure.
            pause_s = min(self.retry_sleep_sec * 2**number, _LONGEST_PAUSE_S)
            time.sleep(max(0, pause_s - self.retry_sleep_sec))
            data = _from_the_beginning(data)
        raise AssertionError("there is at least one try")

    post.sends_whole_bodies = True  # type: ignore[attr-defined]
    sly.Api.post = post


def _from_the_beginning(data: Any) -> Any:
    encoder = data.encoder if isinstance(data, MultipartEncoderMonitor) else data
    for _, value in encoder.fields:
        if isinstance(value, tuple) and hasattr(value[1], "seek"):
            value[1].seek(0)
    again = MultipartEncoder(encoder.fields, encoder.boundary_value)
    if isinstance(data, MultipartEncoderMonitor):
        return MultipartEncoderMonitor(again, data.callback)
    return again


def replace_damaged(api: Any, folder: Path, images: Iterable[Any]) -> int:
    """Not in the list: images are downloaded in bulk without a look at their hashes.

    What arrives damaged is fetched again. If it comes the same once more, that is what the platform
    has, whatever it says of it.

    Args:
        api: of the SDK.
        folder: where the images lie, under their names.
        images: their records: `id`, `name`, `hash`.

    Returns:
        How many were fetched again.

    Raises:
        DatasetError: if an image arrives in another way every time.
    """
    count = 0
    for image in images:
        path = folder / image.name
        if (
            not image.hash
            or not path.is_file()
            or (first := get_file_hash(str(path))) == image.hash
        ):
            continue
        logger.warning("%s: arrived damaged, and is fetched again", image.name)
        count += 1
        api.image.download_path(image.id, str(path))
        if get_file_hash(str(path)) not in (image.hash, first):
            raise DatasetError(
                f"{image.name}: arrives damaged every time; check the network, and start again"
            )
    return count
