"""Multipart forms: read to the disk, however many and large their files are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData

_MAX_PARTS = 100_000
_MAX_FIELD_BYTES = 1 << 20


@asynccontextmanager
async def parsed_form(request: Request) -> AsyncIterator[FormData]:
    """The form of a request; its files lie in temporary files until the end."""
    async with request.form(
        max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        yield form
