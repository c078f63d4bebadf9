"""Measure growth of memory and open files over many short epochs.

    python -m benchmarks.long_run --epochs 200

PSS (/proc/*/smaps_rollup) divides shared pages among their processes. It is summed over the parent
and its workers for anonymous and shared memory. File pages, such as torch's libraries, are
excluded, because their share changes when other processes start or end. malloc_trim excludes unused
memory of the parent's allocator, which varies by a hundred MiB.
"""

import argparse
import ctypes
import gc
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import EpochReport, TrainingEvents
from tests.tiny import tiny_config


class Meter(TrainingEvents):
    """Measure after every epoch."""

    def __init__(self) -> None:
        self.pss_mib: list[float] = []
        self.files: list[int] = []

    def epoch_finished(self, report: EpochReport) -> None:
        """Read memory and files of this process and its children."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        processes = [os.getpid(), *children(os.getpid())]
        self.pss_mib.append(sum(pss_mib(process) for process in processes))
        self.files.append(sum(open_files(process) for process in processes))


def children(process: int) -> list[int]:
    """Return the running child processes."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def pss_mib(process: int) -> float:
    """Return the proportional set size in MiB without file pages."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def open_files(process: int) -> int:
    """Return the number of file descriptors."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def slope(values: list[float]) -> float:
    """Return the growth per epoch by least squares."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def run(folder: Path, epochs: int) -> Meter:
    """Train a small network with two workers per loader.

    Args:
        folder: output directory.
        epochs: number of epochs, with two steps and an evaluation each.
    """
    data = make_digits_dataset(folder / "data", num_train=4, num_val=2)
    meter = Meter()
    cfg = tiny_config(
        folder / "out",
        data,
        RTDETRTransformerv2={"num_layers": 1},
        eval_spatial_size=[64, 64],
        epoches=epochs,
        num_workers=2,
        checkpoint_freq=0,
        report=True,
        pictures=True,
    )
    DetSolver(cfg, events=meter).fit()
    return meter


def main() -> None:
    """Print memory and open files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--settled", type=int, default=20, help="epochs before the measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        meter = run(Path(name), arguments.epochs)
    rest = meter.pss_mib[arguments.settled :]
    result = {
        "epochs": arguments.epochs,
        "pss_mib_settled": round(rest[0], 1),
        "pss_mib_end": round(rest[-1], 1),
        "growth_mib_per_epoch": round(slope(rest), 3),
        "files_settled": meter.files[arguments.settled],
        "files_most": max(meter.files[arguments.settled :]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
