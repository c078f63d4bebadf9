"""Run an app as a process, as an agent of the platform does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ...paths import DEMO, ROOT, TRAIN
from ...task_status import STATUS_FILE
from ..emulator.ecosystem import training_app
from .app_log import AppError, AppLog

STOP_SIGNAL = signal.SIGTERM  # as `docker stop`


def is_port_free(port: int) -> bool:
    """Return whether a port of the loopback interface is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_port(port: int) -> None:
    """Check that an app can listen on a port.

    Raises:
        ConfigError: if the port is in use.
    """
    if not is_port_free(port):
        raise ConfigError(
            f"port {port} is in use, perhaps by another app; stop that one, or use another --port"
        )


def _copy_demo(current_dir: Path) -> None:
    """Copy the demos to the folder that the SDK reads; on the platform, it is the repository."""
    shutil.copytree(
        DEMO,
        current_dir / DEMO.relative_to(ROOT),
        ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )


class AppProcess:
    """The process of an app that uses an instance.

    Args:
        server_address: of the instance.
        token: of the instance.
        data_dir: working directory, kept between launches of a task.
        port: of the app.
        project_id: of the training data; None for serving.
        task_id: of the task; None starts the app in development mode, as from an editor.
        app_state: settings in the SDK's format; None shows the page and waits.
        environment: additional variables.
        app_dir: folder of the app's `main.py`.
        variable: of `main.py`, whose `app` is the server.
    """

    def __init__(
        self,
        *,
        server_address: str,
        token: str,
        data_dir: Path,
        port: int,
        project_id: int | None = None,
        task_id: int | None = None,
        app_state: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        app_dir: Path = TRAIN,
        variable: str = "train",
    ) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.log_file = data_dir / "app.log"
        data_dir.mkdir(parents=True, exist_ok=True)
        variables = {
            "SERVER_ADDRESS": server_address,
            "API_TOKEN": token,
            "TEAM_ID": "1",
            "WORKSPACE_ID": "1",
            "APP_NAME": training_app()["name"],
            "SLY_APP_DATA_DIR": str(data_dir),
            "APPS_CACHE_DIR": str(data_dir / "cache"),
            # Cached images are named by id, which is not unique across instances.
            "SMART_CACHE_CONTAINER_DIR": str(data_dir / "smart_cache"),
            "PYTHONPATH": str(ROOT),
            "SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK": "1",  # the instance has no HTTPS
            # Store no copy of the page for ended tasks, which the instance does not show.
            "_SUPERVISELY_OFFLINE_FILES_UPLOADED": "True",
        }
        if project_id is not None:
            variables["PROJECT_ID"] = str(project_id)
        if task_id is not None:
            variables |= {
                "ENV": "production",
                "TASK_ID": str(task_id),
                "SUPERVISELY_TASK_ID": str(task_id),  # read by `api.task_id`
            }
        if app_state is not None:
            variables["modal.state.guiState"] = json.dumps(app_state)
        _copy_demo(data_dir)
        (data_dir / STATUS_FILE).unlink(missing_ok=True)  # of an earlier launch
        self.log_file.touch(mode=0o600)
        self._output = self.log_file.open("ab")
        self.app_log = AppLog(self.log_file, self._output.tell())
        self.process = self._start(
            [
                *("uvicorn", f"main:{variable}.app"),
                *("--host", "127.0.0.1", "--port", str(port), "--ws", "websockets"),
                *("--app-dir", str(app_dir)),
            ],
            {**os.environ, **variables, **(environment or {})},
        )

    def _start(self, module: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start a module with its arguments."""
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=self.data_dir,
            env=environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> "AppProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def wait_until_ready(self, timeout_s: float = 240) -> None:
        """Wait until the page answers.

        Raises:
            AppError: if the app ends before, or the timeout expires.
        """
        import httpx  # takes as long to import as everything that --help needs

        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.app_log.failure(self.process.returncode)
            try:
                if httpx.get(f"{self.address}/livez", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AppError(f"the app is not ready after {timeout_s:.0f} s", self.log_file)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the process ends; return the exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """Stop the app gracefully."""
        if self.process.poll() is None:
            self.process.send_signal(STOP_SIGNAL)

    def kill(self) -> None:
        """Kill the app and its child processes."""
        if self.process.poll() is None or self._is_group_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._output.close()

    def _is_group_alive(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True
