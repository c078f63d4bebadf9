"""Responses that stream files in bounded memory."""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from .storage.blobs import CHUNK_BYTES

HASH_HEADER = "x-content-checksum-sha256"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Part:
    """A part of a multipart response.

    Args:
        name: the SDK finds the part's owner by it.
        contents: a file, or bytes.
        mime: type of the contents.
        hash_: of the contents, or None.
    """

    name: str
    contents: Path | bytes
    mime: str
    hash_: str | None = None


def file_response(
    path: Path, request: Request, *, mime: str, hash_: str, name: str | None = None
) -> Response:
    """A file, or the range of it that the request asks for.

    Args:
        path: of the file.
        request: may have a `Range` with one range; one that makes no sense is ignored, as
            RFC 9110 wants it.
        mime: type of the contents.
        hash_: of the whole file; async downloads of the SDK check it.
        name: file name for a browser to save it under.
    """
    size = path.stat().st_size
    headers = {HASH_HEADER: hash_, "accept-ranges": "bytes"}
    if name is not None:
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    status, first, last = 200, 0, size - 1
    wanted = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if wanted is not None and any(wanted.groups()):
        first, last = _resolve(wanted[1], wanted[2], size)
        if first >= size or last < first:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        status = 206
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    headers["content-length"] = str(last - first + 1)
    return StreamingResponse(
        read_chunks(path, first, last - first + 1), status, headers, media_type=mime
    )


def _resolve(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:  # the last n bytes
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last) if last else size - 1, size - 1)


def read_chunks(path: Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """The bytes of a file, in pieces."""
    with path.open("rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if length is None else length
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def multipart_response(parts: Sequence[Part]) -> StreamingResponse:
    """Several files in one response."""
    boundary = secrets.token_hex(16)
    return StreamingResponse(
        _multipart(parts, boundary), media_type=f"multipart/form-data; boundary={boundary}"
    )


def json_part(name: str, value: Any) -> Part:
    """A part that holds JSON."""
    return Part(name, json.dumps(value).encode(), "application/json")


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
