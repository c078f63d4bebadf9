"""Experiments for the page: folders in Team Files with an experiment_info.json."""

import json
import posixpath
from typing import Any

from ..emulator.storage.sql.errors import NotFoundError
from ..emulator.store import TEAM_ID, Store
from .scalars import best_metrics, curves_of, read_scalars

ROOT = "/experiments"
_INFO = "experiment_info.json"
_MAX_BYTES = 1 << 20  # of a text file
_TEXTS = frozenset({".json", ".yaml", ".yml", ".txt", ".log", ".jsonl", ".md", ".csv", ".lnk"})
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg"})
_EVENTS = "tfevents"


def experiments(store: Store) -> list[dict[str, Any]]:
    """Return all experiments, newest first."""
    by_folder: dict[str, list[dict[str, Any]]] = {}
    infos = {}
    for record in store.files.entries(TEAM_ID, ROOT):
        by_folder.setdefault(_folder_of(record["path"]), []).append(record)
        if record["name"] == _INFO:
            infos[posixpath.dirname(record["path"])] = record
    found = [_summary(store, info, by_folder.get(folder, [info])) for folder, info in infos.items()]
    return sorted(found, key=lambda each: (each["createdAt"], each["id"]), reverse=True)


def experiment(store: Store, file_id: int) -> dict[str, Any]:
    """Return an experiment with its curves, parameters and files.

    Args:
        store: of the instance.
        file_id: id of its experiment_info.json or of another of its files; an app's page links
            to the SDK's report.

    Raises:
        NotFoundError: if there is no such experiment.
    """
    info = store.files.info(file_id)
    if info["name"] != _INFO:
        above = store.files.entries(TEAM_ID, f"{_folder_of(info['path'])}/{_INFO}")
        info = above[0] if above else info
    if info["name"] != _INFO or not info["path"].startswith(f"{ROOT}/"):
        raise NotFoundError("experiment", file_id)
    folder = posixpath.dirname(info["path"])
    files = store.files.entries(TEAM_ID, folder)
    content = _read_json(store, info)
    scalars = _scalars(store, files)
    named = str(content.get("hyperparameters") or "hyperparameters.yaml")
    return {
        **_summary(store, info, files),
        "info": content,
        "curves": curves_of(scalars),
        "hyperparameters": _read_text(store, files, f"{folder}/{named}"),
        "files": [_file(record, folder) for record in files],
    }


def _folder_of(path: str) -> str:
    """The experiment folder of a file: /experiments/<project>/<task>."""
    return "/".join(path.split("/")[:4])


def _summary(store: Store, info: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
    content = _read_json(store, info)
    metrics = content.get("evaluation_metrics")
    is_measured = isinstance(metrics, dict) and bool(metrics)
    return {
        "id": info["id"],
        "folder": posixpath.dirname(info["path"]),
        "createdAt": info["createdAt"],
        "name": str(content.get("experiment_name") or posixpath.basename(_folder_of(info["path"]))),
        "model": str(content.get("model_name") or ""),
        "framework": str(content.get("framework_name") or ""),
        "projectId": content.get("project_id"),
        "taskId": content.get("task_id"),
        "trainSize": content.get("train_size"),
        "valSize": content.get("val_size"),
        "metrics": metrics if is_measured else best_metrics(_scalars(store, files)),
        "metricsFrom": "evaluation" if is_measured else "logs",
        "isReadable": bool(content),
        "size": sum(record["size"] for record in files),
    }


def _scalars(store: Store, files: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    events = [record for record in files if _EVENTS in record["name"]]
    return read_scalars([store.files.contents(record) for record in events])


def _file(record: dict[str, Any], folder: str) -> dict[str, Any]:
    suffix = posixpath.splitext(record["name"])[1].lower()
    kind = "text" if suffix in _TEXTS else "image" if suffix in _IMAGES else "binary"
    name = record["path"].removeprefix(f"{folder}/")
    return {"id": record["id"], "name": name, "size": record["size"], "kind": kind}


def _read_json(store: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Content of an experiment_info.json; empty if unreadable."""
    if record["size"] > _MAX_BYTES:
        return {}
    try:
        content = json.loads(store.files.contents(record).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_text(store: Store, files: list[dict[str, Any]], path: str) -> str:
    record = next((each for each in files if each["path"] == path), None)
    if record is None or record["size"] > _MAX_BYTES:
        return ""
    try:
        return store.files.contents(record).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
