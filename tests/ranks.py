"""Run Python code in several processes with a process group over the loopback interface."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(script: str, count: int = 2) -> list:
    """Run a script that prints a JSON value as its last line; return the values in rank order."""
    results = end_ranks(script, count)
    for code, _, errors in results:
        assert code == 0, errors
    return [json.loads(output.splitlines()[-1]) for _, output, _ in results]


def end_ranks(script: str, count: int = 2) -> list[tuple[int, str, str]]:
    """Run a script and return exit status, stdout and stderr of each rank."""
    common = {
        **environment(),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        results = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, results, strict=True)]


def environment() -> dict[str, str]:
    """Return the environment of a rank without GPU and with one thread."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
