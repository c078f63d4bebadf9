"""Run Python code in processes that form a process group over loopback."""

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 240
_PRELOADED = [
    "rtdetrv2.terminal.training_view",
    "tests.integration.killed_training",
    "tests.frozen",
]


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fork(function: Any, *args: Any) -> BaseProcess:
    """Start a function in a process forked from one that has imported torch and the engine."""
    process = _context().Process(target=function, args=args)
    process.start()
    return process


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def forked_launch(config: LaunchConfig, _executable: str) -> Callable[..., Any]:
    """Replaces `elastic_launch` for a module run by Python: forks the ranks instead."""
    return lambda _m, *arguments: launch_forked(config, _run_module, *arguments)


def launch_forked(config: LaunchConfig, function: Callable[..., Any], *arguments: str) -> None:
    """Call a function in all ranks, as torchrun runs a program."""
    config.start_method = "forkserver"
    _context()  # what it has imported
    elastic_launch(config, function)(*arguments)


def _run_module(module: str, *arguments: str) -> None:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run_ranks(script: str, count: int = 2) -> list:
    """Run a script that prints a JSON value as its last line; returns the values by rank."""
    results = end_ranks(script, count)
    for code, _, errors in results:
        assert code == 0, errors
    return [json.loads(output.splitlines()[-1]) for _, output, _ in results]


def end_ranks(script: str, count: int = 2) -> list[tuple[int, str, str]]:
    """Run a script; returns exit status, output and errors by rank."""
    common = {
        **environment(),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(rank)) for rank in range(count)]
        for folder in folders:
            folder.mkdir()
        processes = [
            fork(_run, script, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, str(folder))
            for rank, folder in enumerate(folders)
        ]
        try:
            for process in processes:
                process.join(_TIMEOUT_S)
                assert process.exitcode is not None, "a rank did not end"
        finally:
            for process in processes:
                process.kill()
        return [
            (process.exitcode, (folder / "out").read_text(), (folder / "err").read_text())
            for process, folder in zip(processes, folders, strict=True)
        ]


def _run(script: str, variables: dict[str, str], folder: str) -> None:
    os.environ.update(variables)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    exec(compile(script, "rank.py", "exec"), {"__name__": "__main__"})


def environment() -> dict[str, str]:
    """Return the environment of a rank without GPU, with one thread."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
