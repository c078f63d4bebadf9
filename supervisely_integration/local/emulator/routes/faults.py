"""Switching faults on and off while an instance runs; not a method of the platform."""

from dataclasses import fields as fields_of
from typing import Any

from fastapi import APIRouter, Request

from ..faults import SWITCH, Fault, Faults
from ..public_api import API
from ..storage.errors import InvalidRequestError
from .common import Fields, Json, items

router = APIRouter()
_NAMES = {field.name for field in fields_of(Fault)}


@router.post(f"{API}/{SWITCH}")
def switch_faults(request: Request, fields: Fields) -> Json:
    """Take these faults instead of those that have not happened; answers how many have."""
    faults: Faults = request.app.state.faults
    if "faults" in fields:
        faults.replace([_fault(entry) for entry in items(fields, "faults")])
    return {"injected": dict(faults.injected)}


def _fault(entry: Any) -> Fault:
    if not isinstance(entry, dict) or not set(entry) <= _NAMES or "kind" not in entry:
        raise InvalidRequestError(f"{entry!r}: a fault has {', '.join(sorted(_NAMES))}")
    try:
        return Fault(**entry)
    except TypeError as error:
        raise InvalidRequestError(f"{entry!r}: {error}") from error
