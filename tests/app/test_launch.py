"""The configurations of .vscode/launch.json start; a process that has imported torch is forked."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from supervisely_integration.paths import ROOT
from tests.app.preloaded import server
from tests.app.real_app import make_project
from tests.ranks import free_port

LAUNCH = {
    c["name"]: c for c in json.loads((ROOT / ".vscode/launch.json").read_text())["configurations"]
}


def start(name, cwd, log, *more, environment=None, replace=None):
    """Run a configuration like the editor, without the debugger."""
    launch = LAUNCH[name]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if "envFile" in launch:
        file = Path(launch["envFile"].replace("${workspaceFolder}", str(ROOT)))
        lines = [line for line in file.read_text().splitlines() if "=" in line and line[0] != "#"]
        env |= {k: v.strip('"') for k, v in (line.split("=", 1) for line in lines)}
    env |= {k: v.replace("${workspaceFolder}", str(ROOT)) for k, v in launch["env"].items()}
    args = [(replace or {}).get(arg, arg) for arg in launch["args"]]
    env |= environment or {}
    log.touch()
    return server().start(launch["module"], [*args, *more], cwd=cwd, env=env, log=log)


def wait_for(process, condition, log):
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture
def end():
    """Kill the processes of a test."""
    processes = []
    yield processes.append
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_launch_configuration_starts_the_training_app(instance, tmp_path, end):
    project_id = make_project(instance.store, tmp_path / "digits", name="launched")
    port, log = free_port(), tmp_path / "log"
    environment = {
        "SERVER_ADDRESS": instance.address,
        "API_TOKEN": instance.token,
        "PROJECT_ID": str(project_id),
        "DEBUG_APP_DIR": str(tmp_path / "app_data"),
        "SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK": "1",
    }
    process = start(
        "Uvicorn Train", ROOT, log, environment=environment, replace={"8000": str(port)}
    )
    end(process)

    def is_alive():
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(process, is_alive, log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as page:
        page.get("/")
        assert "RT-DETRv2-S" in page.post("/sly/data").text
        page.post("/sly/shutdown", json={})
    assert process.wait(240) == 0


@pytest.mark.slow
def test_command_line_training(tmp_path, end):
    log = tmp_path / "log"
    few = ("-u", "RTDETRTransformerv2.num_layers=1", "-u", "eval_spatial_size=[64,64]")
    process = start("Command-line training", tmp_path, log, "--device", "cpu", *few)
    end(process)
    wait_for(process, lambda: "step=1/" in log.read_text(), log)
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0, log.read_text()[-3000:]
    assert (tmp_path / "output" / "sample_digits" / "last.pth").is_file()


def test_launch_configuration_collects_tests(tmp_path, end):
    log = tmp_path / "log"
    process = start("Tests", ROOT, log, "--collect-only", replace={"tests/unit": "tests/unit/misc"})
    end(process)
    assert process.wait(180) == 0, log.read_text()[-3000:]
    assert "tests collected" in log.read_text()
