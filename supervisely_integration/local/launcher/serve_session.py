"""Run a serving app: instance, app and model in one command."""

import contextlib
import json
import signal
from pathlib import Path

import httpx
from rich.console import Console

from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import LiveLine, print_headline, print_path
from rtdetrv2_pytorch.src.misc.errors import CheckpointError

from ...paths import SERVE, SERVE_MANIFEST
from ..emulator.store import TEAM_ID, Store
from ..instance import LocalInstance
from .app_log import AppError
from .app_process import AppProcess, check_port

_MODULE_ID = 2


def run(
    console: Console,
    log: CommandLog,
    *,
    root: Path,
    checkpoint: str | None,
    runtime: str,
    device: str | None,
    port: int,
) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status.

    Raises:
        RTDETRError: if there is no checkpoint, or the app cannot serve it.
    """
    check_port(port)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Also SIGINT: shells ignore it for background processes.
        signal.signal(number, signal.default_int_handler)
    with LocalInstance(root) as instance, contextlib.suppress(KeyboardInterrupt):
        checkpoint = checkpoint or latest_checkpoint(instance.store)
        print_headline(console, "Serving", f"{checkpoint} with {runtime}")
        task_id, app = _start(port, instance)
        log.open(app.log_file)  # one log for both processes
        try:
            with app:
                with LiveLine(console) as line:
                    line.show("waiting for the app")
                    app.wait_until_ready()
                    line.show("loading the model")
                    deploy(app, instance, checkpoint, runtime, device)
                print_path(console, app.address)
                print_path(console, app.log_file)
                app.wait()
        finally:
            instance.store.tasks.set_status(task_id, "stopped")
    return 0


def _start(port: int, instance: LocalInstance) -> tuple[int, AppProcess]:
    """Create a task, and start its app."""
    store = instance.store
    name = json.loads(SERVE_MANIFEST.read_text(encoding="utf-8"))["name"]
    address = f"http://127.0.0.1:{port}"
    task_id = store.tasks.create(
        app={"id": _MODULE_ID, "name": name, "version": "local", "address": address}
    )
    app = AppProcess(
        server_address=instance.address,
        token=instance.token,
        data_dir=store.root / "tasks" / str(task_id),
        task_id=task_id,
        port=port,
        environment={"APP_NAME": name},
        app_dir=SERVE,
        variable="model",
    )
    store.tasks.set_status(task_id, "started")
    return task_id, app


def latest_checkpoint(store: Store) -> str:
    """Return the best checkpoint of the latest experiment.

    Raises:
        CheckpointError: if there is no experiment.
    """
    infos = [
        record
        for record in store.files.entries(TEAM_ID, "/experiments")
        if record["name"] == "experiment_info.json"
    ]
    if not infos:
        raise CheckpointError("no experiment in Team Files; train one, or use --checkpoint")
    latest = max(infos, key=lambda record: (record["updatedAt"], record["id"]))
    info = json.loads(store.files.contents(latest).read_text(encoding="utf-8"))
    return f"{info['artifacts_dir'].rstrip('/')}/checkpoints/{Path(info['best_checkpoint']).name}"


def deploy(
    app: AppProcess, instance: LocalInstance, checkpoint: str, runtime: str, device: str | None
) -> None:
    """Deploy a checkpoint in the app, as the platform does.

    Raises:
        AppError: with the app's answer, if deployment fails.
    """
    if Path(checkpoint).is_file():
        checkpoint = str(Path(checkpoint).resolve())
    params = {
        "model_source": "Custom models",
        "model_files": {"checkpoint": checkpoint},
        "model_info": {},
        "device": device,
        "runtime": runtime,
    }
    body = {
        "state": {"deploy_params": params},
        "context": {"outside_request": True},
        "api_token": instance.token,
        "server_address": instance.address,
    }
    answer = httpx.post(f"{app.address}/deploy_from_api", json=body, timeout=None)
    if answer.status_code != httpx.codes.OK:
        try:
            reason = answer.json()["message"]
        except (ValueError, KeyError):
            reason = answer.text
        raise AppError(f"{checkpoint}: deployment failed: {reason}", app.log_file)
