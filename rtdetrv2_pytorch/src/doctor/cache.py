"""Cache of image facts, valid while the modification time and size of a file are unchanged."""

import hashlib
import json
import logging
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

import PIL

from ..data.images.opening import max_pixels
from ..misc.files import write_text
from .deep_values import DeepValues
from .image_files import ImageFacts

logger = logging.getLogger(__name__)

FOLDER = "doctor"  # in the cache folder of the user
_FORMAT = f"3, Pillow {PIL.__version__}"  # another version may decode other files

# File, time in ns, size in bytes, declared width and height, limit of pixels.
Key = tuple[str, int, int, int, int, int]


class FactsCache:
    """Facts about the images of one folder, by file, time, size and declared size.

    An unreadable cache counts as empty; a failed write is logged. Without `folder`, the place of
    all caches, nothing is cached.
    """

    def __init__(self, folder: Path | None, img_folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(img_folder.resolve())).hexdigest()[:24]
        self._path = None if folder is None else folder / f"{name}.json"
        self._known = self._read()
        self._seen: dict[str, list[Any]] = {}

    def key(self, path: Path, declared_wh: tuple[int, int] | None) -> Key | None:
        """Return the key of a file; None if it does not exist, or the cache is disabled."""
        if self._path is None:
            return None
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        return str(path), status.st_mtime_ns, status.st_size, *(declared_wh or (0, 0)), max_pixels()

    def get(self, key: Key) -> ImageFacts | None:
        """Return the facts about an image, or None."""
        record = self._known.get(_text(key))
        if record is None:
            return None
        try:
            size, problems, digest, look, deep = record
            facts = ImageFacts(
                None if size is None else (int(size[0]), int(size[1])),
                tuple((str(kind), str(detail)) for kind, detail in problems),
                str(digest),
                str(look),
                None if deep is None else DeepValues.from_list(deep),
            )
        except (TypeError, ValueError, LookupError):
            return None
        self._seen[_text(key)] = record
        return facts

    def put(self, key: Key, facts: ImageFacts) -> None:
        """Add the facts about an image."""
        problems = [list(problem) for problem in facts.problems]
        self._seen[_text(key)] = [
            facts.size_wh,
            problems,
            facts.digest,
            facts.look,
            None if facts.deep is None else list(astuple(facts.deep)),
        ]

    def save(self, *, is_complete: bool) -> None:
        """Write the cache file.

        Args:
            is_complete: whether all files were examined; then entries of other files, which have
                changed or no longer exist, are removed.
        """
        if self._path is None:
            return
        records = self._seen if is_complete else {**self._known, **self._seen}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps([_FORMAT, records]))
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); the next pass decodes all images again",
                self._path,
                error,
            )

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
