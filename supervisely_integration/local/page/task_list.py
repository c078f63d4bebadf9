"""Tasks for the page, with the progress bars of their apps."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..emulator.storage.sql.listing import Listing
from ..emulator.store import Store

_SHOWN = 20
_RUNNING = frozenset({"queued", "consumed", "started", "deployed", "terminating"})
_STATUS_LINE = "Status: "


def recent_tasks(store: Store) -> list[dict[str, Any]]:
    """Return the latest tasks, newest first."""
    page = store.tasks.page(Listing(is_descending=True, per_page=_SHOWN))
    return [_task(store, record) for record in page["entities"]]


def _task(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    is_running = record["status"] in _RUNNING
    data = store.tasks.content(record["id"])["data"] if is_running else {}
    meta = record["meta"]
    app = meta.get("app") or {}
    return {
        "id": record["id"],
        "name": str(app.get("name") or record["type"]),
        "description": record["description"],
        "status": record["status"],
        "isRunning": is_running,
        "error": record["error"],
        "createdAt": record["createdAt"],
        "startedAt": record["startedAt"],
        "finishedAt": record["finishedAt"],
        "address": _address(app.get("address")),
        "statusLine": _status_line(data),
        "bars": list(_bars(data)),
    }


def _address(value: Any) -> str | None:
    """The address of an app's own page, if it is an HTTP address."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return value if parts and parts.scheme in ("http", "https") and parts.netloc else None


def _status_line(data: Mapping[str, Any]) -> str:
    """The app's status: the last text on its page that begins with "Status:"."""
    texts = [v.get("text") for v in data.values() if isinstance(v, dict)]
    lines = [t for t in texts if isinstance(t, str) and t.startswith(_STATUS_LINE)]
    return lines[-1].removeprefix(_STATUS_LINE) if lines else ""


def _bars(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Progress widgets of the SDK that have started and not finished."""
    for name, value in data.items():
        if not isinstance(value, dict) or not {"percent", "message", "status"} <= value.keys():
            continue
        percent = value["percent"]
        if isinstance(percent, bool) or not isinstance(percent, int | float):
            continue
        has_begun = bool(value.get("info")) or percent > 0
        if has_begun and value["status"] != "success" and percent < 100:
            yield {
                "id": name,
                "message": str(value["message"] or ""),
                "percent": max(0, min(100, percent)),
                "info": str(value.get("info") or ""),
            }
