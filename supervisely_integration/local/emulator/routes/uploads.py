"""Multipart forms: read to the disk, however many and large their files are."""

from contextlib import AbstractAsyncContextManager

from fastapi import Request
from starlette.datastructures import FormData

_MAX_PARTS = 100_000
_MAX_FIELD_BYTES = 1 << 20


def parsed_form(request: Request) -> AbstractAsyncContextManager[FormData]:
    """The form of a request; its files lie in temporary files until the end."""
    return request.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD_BYTES)
