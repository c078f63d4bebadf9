"""What is known of files from an earlier pass: valid while time and size of a file stay."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import PIL

from ..misc.resources import cache_folder
from .image_files import Picture

logger = logging.getLogger(__name__)

_FORMAT = f"1, Pillow {PIL.__version__}"  # another version may read other files

Key = tuple[str, int, int, int, int]  # file, time in ns, size in bytes, declared width and height


def default_folder() -> Path:
    """The folder for what this user's examinations found."""
    return cache_folder("doctor")


class PictureCache:
    """Pictures of one image folder, by file, time, size and declared size.

    A cache that cannot be read is an empty one, and one that cannot be written is only said.

    Args:
        folder: for the files of all caches; None: nothing is kept.
        img_folder: whose pictures these are.
    """

    def __init__(self, folder: Path | None, img_folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(img_folder.resolve())).hexdigest()[:24]
        self._path = None if folder is None else folder / f"{name}.json"
        self._known = self._read()
        self._seen: dict[str, list[Any]] = {}

    def key(self, path: Path, declared_wh: tuple[int, int] | None) -> Key | None:
        """What has to stay for a picture to be known; None for what is no file."""
        if self._path is None:
            return None
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        return str(path), status.st_mtime_ns, status.st_size, *(declared_wh or (0, 0))

    def get(self, key: Key) -> Picture | None:
        """The picture, if it is known."""
        record = self._known.get(_text(key))
        if record is None:
            return None
        try:
            size, problems, digest, look = record
            picture = Picture(
                None if size is None else (int(size[0]), int(size[1])),
                tuple((str(kind), str(detail)) for kind, detail in problems),
                str(digest),
                str(look),
            )
        except (TypeError, ValueError, LookupError):
            return None
        self._seen[_text(key)] = record
        return picture

    def put(self, key: Key, picture: Picture) -> None:
        """Remember a picture."""
        problems = [list(problem) for problem in picture.problems]
        self._seen[_text(key)] = [picture.size_wh, problems, picture.digest, picture.look]

    def save(self, *, is_complete: bool) -> None:
        """Write what is known.

        Args:
            is_complete: whether all files were asked for; then the rest is forgotten, as that of
                files that changed or are gone.
        """
        if self._path is None:
            return
        records = self._seen if is_complete else {**self._known, **self._seen}
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps([_FORMAT, records]))
            partial.replace(self._path)
        except OSError as error:
            logger.warning("%s: cannot be written (%s); nothing is kept", self._path, error)

    def _read(self) -> dict[str, list[Any]]:
        if self._path is None:
            return {}
        try:
            version, known = json.loads(self._path.read_text())
        except (OSError, ValueError, TypeError):
            return {}
        return known if version == _FORMAT and isinstance(known, dict) else {}


def _text(key: Key) -> str:
    return json.dumps(key)
