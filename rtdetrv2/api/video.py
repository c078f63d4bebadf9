"""Frames of a video file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rtdetrv2_pytorch.src.misc.errors import DatasetError, extra

_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv")


def is_video(path: Path) -> bool:
    """Return whether a file has the name of a video: by its extension, in any case."""
    return path.suffix.lower() in _SUFFIXES


class Video:
    """A video file.

    Args:
        path: of the file.

    Attributes:
        num_frames: number of frames; None if the file does not tell it.

    Raises:
        DatasetError: if the file is not a video.
        ConfigError: if the package av is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with extra("video"):
            import av
        self._av: Any = av
        with self._open() as container:
            self.num_frames: int | None = container.streams.video[0].frames or None

    def frames(self) -> Iterator[np.ndarray]:
        """Decode all frames: [H, W, 3] uint8 RGB each, upright.

        Raises:
            DatasetError: if a frame cannot be decoded.
        """
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            frames = container.decode(video=0)
            while True:
                try:
                    frame = next(frames, None)
                except self._av.FFmpegError as error:
                    raise self._unreadable(error) from error
                if frame is None:
                    return
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(frame.rotation / 90) % 4  # counterclockwise
                yield np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self.path))
        except (self._av.FFmpegError, OSError) as error:
            raise self._unreadable(error) from error
        if not container.streams.video:
            container.close()
            raise DatasetError(f"{self.path}: the file has no video stream; give a video")
        return container

    def _unreadable(self, error: Exception) -> DatasetError:
        reason = getattr(error, "strerror", None) or error
        return DatasetError(f"{self.path}: cannot be read as a video ({reason})")
