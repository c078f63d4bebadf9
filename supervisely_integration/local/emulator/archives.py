"""Tar archives that are streamed while they are made."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .streaming import read_chunks


def tar_chunks(members: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """A tar archive of files, in pieces.

    Args:
        members: name in the archive and local file of each.
    """
    for name, path in members:
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from read_chunks(path, 0, info.size)
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
