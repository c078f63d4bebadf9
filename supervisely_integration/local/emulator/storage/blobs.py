"""File contents, stored once under the hash of their bytes.

A blob is written to a temporary file, synced and renamed, so every final file is complete, also
after a crash.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from rtdetrv2_pytorch.src.data.images.opening import ImageFileError, open_image

from .sql.database import Database, dumps, timestamp, timestamp_in
from .sql.errors import InvalidRequestError

Source = Path | bytes | BinaryIO  # a local file, its contents, or an open file

CHUNK_BYTES = 1 << 20
_RESERVATION = timedelta(
    hours=1
)  # longer than the time between a query for known hashes and the upload
_UNUSED = """reserved_until <= ? AND NOT EXISTS (SELECT 1 FROM files f WHERE f.hash = blobs.hash)
    AND NOT EXISTS (SELECT 1 FROM images i WHERE i.hash = blobs.hash)"""
_MIMES = {"MPO": "image/jpeg"}  # JPEGs of some phones; the SDK would rename them to .mpo


class Incoming:
    """A blob that is being written, to be passed to `Blobs.keep`.

    Use it as a context manager; a blob that is not kept is removed. Its file is locked until then,
    so that a process that starts removes only what killed processes left.
    """

    def __init__(self, folder: Path) -> None:
        self.path, handle = _create_locked(folder)
        self.size = 0
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._sha = hashlib.sha256()

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append to the blob."""
        self._file.write(chunk)
        self._sha.update(chunk)
        self.size += len(chunk)

    def write_from(self, source: Source) -> None:
        """Append a whole source."""
        if isinstance(source, bytes):
            self.write(source)
        elif isinstance(source, Path):
            with source.open("rb") as file:
                self.write_from(file)
        else:
            shutil.copyfileobj(source, self, CHUNK_BYTES)

    def flush(self) -> None:
        """Flush the written bytes, so that they are readable at `path`."""
        self._file.flush()

    def finish(self) -> str:
        """Sync the bytes to disk; return their hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return base64.b64encode(self._sha.digest()).decode()


class Blobs:
    """The folder of blobs, and the table that tracks their use.

    Args:
        database: of the instance.
        folder: of the files; created if it does not exist.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def incoming(self) -> Incoming:
        """Create a new blob."""
        return Incoming(self._incoming)

    def path(self, hash_: str) -> Path:
        """Return the file of the contents with this hash.

        Raises:
            InvalidRequestError: if it is not the base64 form of a SHA-256.
        """
        try:
            digest = base64.b64decode(hash_, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise InvalidRequestError(f"{hash_!r} is not a base64 SHA-256 hash")
        name = digest.hex()
        return self._folder / name[:2] / name

    def keep(self, incoming: Incoming, *, reserve: bool = False) -> str:
        """Give a written blob its final name; return its hash.

        Call it in the transaction that adds a reference to the blob, or with `reserve`.

        Args:
            incoming: the written blob.
            reserve: whether to keep the blob for a while without a reference.
        """
        hash_ = incoming.finish()
        target = self.path(hash_)
        until = timestamp_in(_RESERVATION) if reserve else timestamp()
        with self._database.transaction() as connection:
            if not target.exists():
                if not target.parent.exists():
                    target.parent.mkdir(exist_ok=True)
                    _sync(self._folder)
                incoming.path.replace(target)
                _sync(target.parent)
            connection.execute(
                "INSERT INTO blobs (hash, size, reserved_until) VALUES (?, ?, ?) ON CONFLICT (hash)"
                " DO UPDATE SET reserved_until = max(reserved_until, excluded.reserved_until)",
                (hash_, incoming.size, until),
            )
        return hash_

    def keep_image(self, incoming: Incoming, *, name: str, reserve: bool = False) -> str:
        """Keep a blob that must be an image, with its size and type.

        Raises:
            InvalidRequestError: if it cannot be decoded as an image.
        """
        width, height, mime = _describe_image(incoming, name)
        with self._database.transaction() as connection:
            hash_ = self.keep(incoming, reserve=reserve)
            connection.execute(
                "UPDATE blobs SET width = ?, height = ?, mime = ? WHERE hash = ?",
                (width, height, mime, hash_),
            )
        return hash_

    def reserve_known_images(self, hashes: Sequence[str]) -> list[str]:
        """Return the hashes that are stored images, and reserve them for a while."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT hash FROM blobs WHERE width NOT NULL"
                " AND hash IN (SELECT value FROM json_each(?))",
                (dumps(list(hashes)),),
            )
            # A crash in `sweep` may have removed the file, but not the row.
            known = {row["hash"] for row in rows if self.path(row["hash"]).exists()}
            connection.executemany(
                "UPDATE blobs SET reserved_until = ? WHERE hash = ?",
                [(timestamp_in(_RESERVATION), hash_) for hash_ in known],
            )
        return [hash_ for hash_ in hashes if hash_ in known]

    def sweep(self, hashes: Iterable[str]) -> None:
        """Remove those of the blobs that are unreferenced.

        Call it after the transaction of the removal is committed: if the process is killed here, an
        unused blob remains, but no blob is missing.
        """
        for hash_ in set(hashes):
            with self._database.transaction() as connection:
                unused = connection.execute(
                    f"DELETE FROM blobs WHERE hash = ? AND {_UNUSED}", (hash_, timestamp())
                ).rowcount
                if unused:
                    self.path(hash_).unlink(missing_ok=True)

    def sweep_all(self) -> None:
        """Remove all unreferenced blobs, and files without a row."""
        unused = self._database.rows(f"SELECT hash FROM blobs WHERE {_UNUSED}", (timestamp(),))
        self.sweep(row["hash"] for row in unused)
        for folder in self._folder.iterdir():
            if folder != self._incoming:
                self._remove_unknown(folder)

    def _remove_unknown(self, folder: Path) -> None:
        with self._database.transaction():  # `keep` creates files in a transaction
            for path in folder.iterdir():
                hash_ = base64.b64encode(bytes.fromhex(path.name)).decode()
                if self._database.row("SELECT 1 FROM blobs WHERE hash = ?", (hash_,)) is None:
                    path.unlink()

    def remove_unfinished(self) -> None:
        """Remove the partial uploads of processes that were killed."""
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _create_locked(folder: Path) -> tuple[Path, int]:
    """Create a file and lock it; again if another process removed it in between."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder)  # mode 0600
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return Path(name), handle
        os.close(handle)


def _describe_image(incoming: Incoming, name: str) -> tuple[int, int, str]:
    incoming.flush()
    try:
        with open_image(incoming.path, name=name) as image:
            mime = _MIMES.get(image.format or "") or Image.MIME.get(image.format or "")
            return image.width, image.height, mime or "application/octet-stream"
    except ImageFileError as error:
        raise InvalidRequestError(str(error)) from error


def _sync(folder: Path) -> None:
    """Sync a folder, so that a rename in it is durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
