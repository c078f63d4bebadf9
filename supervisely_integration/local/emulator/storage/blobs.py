"""File contents, stored once under the hash of their bytes.

A blob is written to a temporary name, synced and renamed, so a name on disk always stands for
complete contents, also after a crash.
"""

import base64
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from .database import Database, dumps, timestamp, timestamp_in
from .errors import InvalidRequestError

Source = Path | bytes | BinaryIO  # a local file, contents, or a file that is open

CHUNK_BYTES = 1 << 20
_RESERVATION = timedelta(hours=1)  # longer than any pause between "do you have it?" and "use it"
_UNUSED = """reserved_until <= ? AND NOT EXISTS (SELECT 1 FROM files f WHERE f.hash = blobs.hash)
    AND NOT EXISTS (SELECT 1 FROM images i WHERE i.hash = blobs.hash)"""
_UNFINISHED_AFTER_S = 24 * 3600
_MIMES = {"MPO": "image/jpeg"}  # JPEGs of some phones; the SDK would rename the files to .mpo


class Incoming:
    """A blob on its way in: write it, then hand it to `Blobs.keep`; or drop it.

    Use it as a context manager; what was not kept is removed.
    """

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
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
        """Append all of a source."""
        if isinstance(source, bytes):
            self.write(source)
        elif isinstance(source, Path):
            with source.open("rb") as file:
                self.write_from(file)
        else:
            shutil.copyfileobj(source, self, CHUNK_BYTES)

    def flush(self) -> None:
        """Make what was written readable at `path`."""
        self._file.flush()

    def finish(self) -> str:
        """Make the bytes durable; returns their hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return base64.b64encode(self._sha.digest()).decode()


class Blobs:
    """The folder of blobs and the table that knows who uses them.

    Args:
        database: of the instance.
        folder: where the files lie; created.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def incoming(self) -> Incoming:
        """Start a new blob."""
        return Incoming(self._incoming)

    def path(self, hash_: str) -> Path:
        """Where the contents with this hash lie.

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
        """Give a written blob its final name; returns its hash.

        Call it in the transaction that adds the reference to it, or with `reserve`.

        Args:
            incoming: the written blob.
            reserve: keep it for a while though nothing refers to it yet.
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
        """`keep`, for a blob that has to be an image; its size and type are noted.

        Raises:
            InvalidRequestError: if it cannot be read as an image.
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
        """Those of the hashes that are images of this instance; they stay for a while."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT hash FROM blobs WHERE width NOT NULL"
                " AND hash IN (SELECT value FROM json_each(?))",
                (dumps(list(hashes)),),
            )
            # A crash in `sweep` may have removed the file and not the row.
            known = {row["hash"] for row in rows if self.path(row["hash"]).exists()}
            connection.executemany(
                "UPDATE blobs SET reserved_until = ? WHERE hash = ?",
                [(timestamp_in(_RESERVATION), hash_) for hash_ in known],
            )
        return [hash_ for hash_ in hashes if hash_ in known]

    def sweep(self, hashes: Iterable[str]) -> None:
        """Remove those of the blobs that nothing refers to.

        The transaction of the removal has to be committed before: if the process dies here, a blob
        too many is left, never one too few.
        """
        for hash_ in set(hashes):
            with self._database.transaction() as connection:
                unused = connection.execute(
                    f"DELETE FROM blobs WHERE hash = ? AND {_UNUSED}", (hash_, timestamp())
                ).rowcount
                if unused:
                    self.path(hash_).unlink(missing_ok=True)

    def sweep_all(self) -> None:
        """`sweep` every blob, and remove files that no finished transaction knows."""
        unused = self._database.rows(f"SELECT hash FROM blobs WHERE {_UNUSED}", (timestamp(),))
        self.sweep(row["hash"] for row in unused)
        for folder in self._folder.iterdir():
            if folder != self._incoming:
                self._remove_unknown(folder)

    def _remove_unknown(self, folder: Path) -> None:
        with self._database.transaction():  # the lock: `keep` puts files down in a transaction
            for path in folder.iterdir():
                hash_ = base64.b64encode(bytes.fromhex(path.name)).decode()
                if self._database.row("SELECT 1 FROM blobs WHERE hash = ?", (hash_,)) is None:
                    path.unlink()

    def remove_unfinished(self) -> None:
        """Remove what uploads left behind that a crash ended long ago."""
        for path in self._incoming.iterdir():
            age_s = datetime.now(UTC).timestamp() - path.stat().st_mtime
            if age_s > _UNFINISHED_AFTER_S:
                path.unlink(missing_ok=True)


def _describe_image(incoming: Incoming, name: str) -> tuple[int, int, str]:
    incoming.flush()
    try:
        with Image.open(incoming.path) as image:
            mime = _MIMES.get(image.format or "") or Image.MIME.get(image.format or "")
            return image.width, image.height, mime or "application/octet-stream"
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InvalidRequestError(
            f"{name}: cannot be read as an image ({error}); convert it to JPEG or PNG"
        ) from error


def _sync(folder: Path) -> None:
    """Make a rename in this folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
