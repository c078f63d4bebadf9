"""Fixtures of all tests: a tiny dataset, the BCCD dataset, the GPU."""

import gc
import os
import sys
from pathlib import Path

# Write bytecode, also where the environment forbids it: dozens of processes, of tests and workers,
# import torch and the SDK, which takes up to three times as long without it.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

# One thread per process, including processes started by tests: more threads do not help tiny
# tensors, and sums do not depend on the number of processors.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from tests.order import spread
from tests.skips import forbidden_skips

sys.dont_write_bytecode = False
gc.disable()  # until all modules are imported and all tests collected
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "rtdetrv2_pytorch" / "configs" / "rtdetrv2"


@pytest.fixture(autouse=True)
def seeded():
    """Seed torch and use one thread in each test."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Seed torch before shared fixtures, so that each process builds the same networks."""
    if fixturedef.scope != "function":
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Return a folder of all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def traces(shared_folder):
    """Share the results of ONNX exporters; see `tests/traces.py`."""
    from tests.traces import shared_traces

    with shared_traces(shared_folder / "traces"):
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Return six training and four validation images of the sample dataset."""
    return make_digits_dataset(tmp_path_factory.mktemp("digits"), num_train=6, num_val=4)


def bccd_folder() -> Path | None:
    """Return the BCCD dataset of blood cells, which is not part of the project, if it is there."""
    folder = Path(os.environ.get("BCCD_DIR", ROOT.parent / "shared" / "data" / "bccd"))
    return folder if (folder / "coco").is_dir() else None


@pytest.fixture(scope="session")
def bccd() -> Path:
    """Return the folder of BCCD."""
    folder = bccd_folder()
    if folder is None:
        pytest.skip("no BCCD folder: set BCCD_DIR to the data set's folder")
    return folder


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """Return a CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device("cuda")


def pytest_collection_finish() -> None:
    """Exclude all imported modules and tests from garbage collection, which reads every object."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # collections take a tenth of the time of exports
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with long tests, if several workers share the tests."""
    if count := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        items[:] = spread(items, int(count))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and forbidden_skips(terminal.stats.get("skipped", [])):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    for line in forbidden_skips(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"FORBIDDEN SKIP {line}", red=True)
