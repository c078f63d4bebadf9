"""Responses that stream files in bounded memory."""

import re
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.responses import FileResponse, StreamingResponse

from .storage.blobs import CHUNK_BYTES

HASH_HEADER = "x-content-checksum-sha256"
_RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)")


@dataclass(frozen=True)
class Part:
    """A part of a multipart response.

    Args:
        name: by which the SDK finds the owner of the part.
        contents: a file, or bytes.
        mime: type of the contents.
        hash_: of the contents; None leaves it out.
    """

    name: str
    contents: Path | bytes
    mime: str
    hash_: str | None = None


def file_response(
    path: Path, request: Request, *, mime: str, hash_: str, name: str | None = None
) -> FileResponse:
    """Send a file, or the range of it that the request asks for.

    Args:
        path: of the file.
        request: may have a `Range` header with one range; an invalid one is ignored, as in
            RFC 9110.
        mime: type of the contents.
        hash_: of the whole file; asynchronous downloads of the SDK check it.
        name: file name under which a browser saves it.
    """
    if not _RANGE.fullmatch(request.headers.get("range", "")):  # `FileResponse` would answer 400
        headers = request.scope["headers"]
        request.scope["headers"] = [each for each in headers if each[0] != b"range"]
    return FileResponse(
        path, 200, {HASH_HEADER: hash_}, mime, filename=name, stat_result=path.stat()
    )


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def multipart_response(parts: Sequence[Part]) -> StreamingResponse:
    """Send several files in one response."""
    boundary = secrets.token_hex(16)
    return StreamingResponse(
        _multipart(parts, boundary), media_type=f"multipart/form-data; boundary={boundary}"
    )


def tar_chunks(members: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """Yield a tar archive of files in chunks.

    Args:
        members: name in the archive and local file of each.
    """
    for name, path in members:
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from read_chunks(path)
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _multipart(parts: Sequence[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        head = [
            f"--{boundary}",
            f'Content-Disposition: form-data; name="{part.name}"; filename="{part.name}"',
            f"Content-Type: {part.mime}",
            *([f"{HASH_HEADER}: {part.hash_}"] if part.hash_ else []),
        ]
        yield ("\r\n".join(head) + "\r\n\r\n").encode()
        if isinstance(part.contents, bytes):
            yield part.contents
        else:
            yield from read_chunks(part.contents)
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
