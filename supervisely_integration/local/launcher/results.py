"""The result of a training: the experiment in Team Files."""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdetrv2.terminal.console import print_detail, print_headline, print_notice, print_path
from rtdetrv2.terminal.next_steps import print_commands
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.report.training_report import REPORT

from ...task_status import EVALUATION_REPORT
from ..emulator.storage.sql.listing import Listing
from ..emulator.store import TEAM_ID, Store, StoreError
from .app_log import AppError
from .app_process import AppProcess
from .selection import EXPORTS

Json = dict[str, Any]

_LINKED_FROM_BYTES = 1 << 20


def find_experiment(store: Store, task_id: int) -> Json:
    """Return `experiment_info.json` of a task.

    Raises:
        FileNotFoundError: if the task has no experiment, or files of the experiment are missing.
    """
    records = store.files.entries(TEAM_ID, "/experiments")
    found = [
        record
        for record in records
        if record["name"] == "experiment_info.json"
        and record["path"].split("/")[-2].startswith(f"{task_id}_")
    ]
    if not found:
        raise FileNotFoundError(f"task {task_id} left no experiment in Team Files")
    info: Json = json.loads(store.files.contents(found[-1]).read_text(encoding="utf-8"))
    folder = info["artifacts_dir"].rstrip("/")
    files = [*info["checkpoints"], info["app_state"], info["model_meta"], info["hyperparameters"]]
    present = {record["path"] for record in records}
    missing = [name for name in files if f"{folder}/{name}" not in present]
    if missing:
        raise FileNotFoundError(f"{folder}: the experiment lacks {', '.join(missing)}")
    return info


def finish_task(store: Store, task_id: int, code: int, app: AppProcess) -> Json:
    """Set the final status of a training; return its `experiment_info.json`.

    Args:
        store: of the instance.
        task_id: of the training.
        code: exit code of the app.
        app: the app, whose training has ended.

    Raises:
        AppError: if there is no complete experiment.
    """
    if code != 0:
        error = app.app_log.failure(code)
        store.tasks.set_status(task_id, "error", error=str(error))
        if error.name != ConfigError.__name__:  # another download would fail, too
            options = shlex.join(["--task", str(task_id), "--root", str(store.root)])
            error.resume_command = f"python -m supervisely_integration.local train {options}"
        raise error
    try:
        info = find_experiment(store, task_id)
    except (FileNotFoundError, StoreError) as error:
        store.tasks.set_status(task_id, "stopped")
        raise AppError(f"no experiment: {error}", app.log_file) from error
    store.tasks.set_status(task_id, "finished")
    return info


def show_experiment(
    store: Store,
    info: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    app: AppProcess,
    console: Console,
) -> None:
    """Print the metrics of an experiment, its missing parts, its files and the next commands."""
    metrics = info["evaluation_metrics"]
    if metrics:
        print_detail(
            console,
            f"evaluation: mAP {metrics['mAP']:.3f}, AP50 {metrics['AP50']:.3f}, "
            f"F1 {metrics['f1']:.3f} at confidence {metrics['f1_optimal_conf']:.2f}",
        )
        print_detail(
            console,
            "its F1 is the mean over IoU 0.5 to 0.95, the F1 of training is at IoU 0.5; AP "
            "differs, too: see docs/benchmark.md",
        )
    for line in _missing((state or {}).get("options", {}), info, app.app_log.missing()):
        print_notice(console, line)
    folder = info["artifacts_dir"].rstrip("/")
    print_headline(console, "In Team Files", "of the instance")
    print_path(console, f"{folder}/")
    if store.files.entries(TEAM_ID, f"{folder}/{REPORT}"):
        print_path(console, f"{folder}/{REPORT}")
    for name in EXPORTS.values():
        if name in info["export"]:
            print_path(console, f"{folder}/{info['export'][name]}")
    print_headline(console, "The log")
    print_path(console, app.log_file)
    try:
        local = write_experiment(store, folder)
        image = _example_image(store, info["project_id"], local)
    except OSError as error:
        print_notice(console, f"The experiment was not written to a folder: {error}")
        return
    print_headline(console, "On disk")
    print_path(console, local)
    print_commands(
        console,
        report=local / REPORT,
        best=local / "checkpoints" / info["best_checkpoint"],
        image=image,
        data=None,
    )


def write_experiment(store: Store, folder: str) -> Path:
    """Write an experiment of Team Files to the same path below the root of the instance.

    Large files are hard links to the stored contents where the file system allows it, so that
    they use no space. Small files, which a person may edit, are copies.

    Raises:
        OSError: if a file cannot be written.
    """
    for record in store.files.entries(TEAM_ID, folder):
        _place(store.files.contents(record), _on_disk(store, record["path"]))
    return _on_disk(store, folder)


def _on_disk(store: Store, path: str) -> Path:
    return store.root / path.lstrip("/")


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.stat().st_size >= _LINKED_FROM_BYTES:
        with suppress(OSError):  # some file systems have no hard links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _example_image(store: Store, project_id: int, folder: Path) -> Path | None:
    """Copy an image of the project to the folder of an experiment."""
    images = store.images.page(Listing(per_page=1), projectId=project_id)["entities"]
    if not images:
        return None
    source, info = store.images.contents(images[0]["id"])
    target = folder / "example" / Path(info["name"]).name
    _place(source, target)
    return target


def _missing(
    options: Mapping[str, Any], info: Mapping[str, Any], reasons: Mapping[str, str]
) -> list[str]:
    """Return the requested parts that are missing in the experiment, with the reasons."""
    parts = {
        runtime: f"no export for {runtime}"
        for runtime in EXPORTS.values()
        if options.get("export", {}).get(runtime) and runtime not in info["export"]
    }
    if options.get("model_benchmark", {}).get("enable") and not info["evaluation_metrics"]:
        parts[EVALUATION_REPORT] = "no evaluation report"
    return [
        f"{text}; {' '.join(reasons.get(part, 'see the log').split())}"
        for part, text in parts.items()
    ]
