"""Many short epochs: neither memory nor open files grow (200 epochs: benchmarks/long_run.py)."""

import json
import subprocess
import sys

import pytest

from benchmarks.long_run import slope
from tests.conftest import ROOT


def test_the_slope_is_the_growth_per_epoch():
    assert slope([5.0, 5.5, 6.0, 6.5]) == pytest.approx(0.5)
    assert slope([3.0, 3.0, 3.0]) == pytest.approx(0.0)


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow():
    # A separate process: the heap of this one contains memory of earlier tests.
    program = [sys.executable, "-m", "benchmarks.long_run", "--epochs", "24", "--settled", "10"]
    run = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["epochs"] == 24
    assert result["pss_mib_settled"] > 100  # model and optimizer state
    assert result["growth_mib_per_epoch"] < 0.5, result
    assert result["files_most"] <= result["files_settled"]
