"""Copies from Team Files to the local disk."""

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..emulator.storage.errors import InvalidRequestError, NotFoundError
from ..emulator.storage.team_files import normalize
from ..emulator.store import TEAM_ID, Store
from ..emulator.streaming import read_chunks


@dataclass(frozen=True)
class FileCopy:
    """A file to copy.

    Args:
        source: local file with the contents.
        target: of the copy.
        size: in bytes.
    """

    source: Path
    target: Path
    size: int

    def run(self, on_bytes: Callable[[int], None]) -> None:
        """Copy the file; the target is created when the copy is complete.

        Args:
            on_bytes: called with the number of bytes copied since the last call.

        Raises:
            OSError: if the target is not writable.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        partial = self.target.with_name(f".{self.target.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                for chunk in read_chunks(self.source):
                    file.write(chunk)
                    on_bytes(len(chunk))
            partial.replace(self.target)
        finally:
            partial.unlink(missing_ok=True)


def plan_copy(store: Store, remote: str, local: Path) -> list[FileCopy]:
    """Return the copies for a file, or for a folder with everything in it.

    Like `cp -r`: into `local` if that is a folder, else under that name.

    Raises:
        NotFoundError: if the path does not exist.
        InvalidRequestError: if a target is a folder.
    """
    path = normalize(remote)
    entries = store.files.entries(TEAM_ID, path)
    if not entries:
        raise NotFoundError("Team Files path", remote)
    base = local / posixpath.basename(path) if local.is_dir() else local
    copies = []
    for entry in entries:
        inside = entry["path"].removeprefix(path).lstrip("/")
        target = base / inside if inside else base
        if target.is_dir():
            raise InvalidRequestError(f"{target} is a folder; use another name")
        copies.append(FileCopy(store.files.contents(entry), target, entry["size"]))
    return copies
