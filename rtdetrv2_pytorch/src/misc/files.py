"""Files that are replaced as a whole, and folders with a single writer."""

import contextlib
import datetime
import fcntl
import logging
import os
import platform
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TextIO

from .errors import ConfigError

logger = logging.getLogger(__name__)

_LOCK = ".lock"


@contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary name next to a file; rename it to the file if the body succeeds.

    The name is unique, so that concurrent writers do not mix their contents. After an error, the
    temporary file is removed and the file is unchanged.

    Args:
        path: of the file.
        suffix: end of the temporary name, for writers that check it.

    Raises:
        OSError: if the file cannot be renamed.
    """
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}.{unique}.partial{suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file with a text.

    Raises:
        OSError: if the file is not writable; an existing file is unchanged.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of killed writers; no other process may write to the folder.

    Raises:
        OSError: if a file cannot be removed.
    """
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


class FolderLock:
    """Reserves a folder for the process, as a context manager; the process may nest locks.

    The lock ends with the process, even if it is killed, and child processes do not inherit it. A
    folder that is not writable is not locked.

    Args:
        folder: created if it does not exist.
        remedy: end of the error message if another process holds the lock.
    """

    _held: ClassVar[dict[Path, int]] = {}  # locks of this process, by folder

    def __init__(self, folder: Path, *, remedy: str) -> None:
        self._folder = folder
        self._remedy = remedy
        self._key = folder.absolute()
        self._file: TextIO | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Raises:
            ConfigError: if another process holds it; the message names that process.
        """
        depth = self._held.get(self._key, 0)
        if depth == 0:
            self._take()
        self._held[self._key] = depth + 1
        return self

    def __exit__(self, *error: object) -> None:
        self._held[self._key] -= 1
        if self._held[self._key] == 0:
            del self._held[self._key]
            if self._file is not None:
                self._file.close()  # the file stays: another process may be waiting to open it

    def _take(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / _LOCK).open("a+", encoding="utf-8")
        except OSError:  # nothing can be written, so there is nothing to protect
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            with self._file:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
            raise ConfigError(f"{self._folder}: in use by {holder}; {self._remedy}") from error
        except OSError as error:  # some network file systems
            logger.warning("%s: cannot be locked (%s)", self._folder, error)
            return
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        command = " ".join(shlex.join(sys.orig_argv).split())[:200]
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()} since {since} ({command})\n")
        self._file.flush()
