"""Train a YAML file in a process that kills itself with SIGKILL at a given moment.

Usage: python killed_training.py FILE MOMENT, where MOMENT is step, evaluation, write or never.
"""

import os
import signal
import sys

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import SilentEvents


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(SilentEvents):
    """Dies in the second epoch."""

    def __init__(self, moment):
        self.moment = moment
        self.epoch = -1

    def epoch_started(self, epoch, num_steps):
        self.epoch = epoch

    def step_finished(self, report):
        if self.moment == "step" and (report.epoch, report.step) == (1, 1):
            die()

    def evaluation_step_finished(self, step, num_steps):
        if self.moment == "evaluation" and self.epoch == 1:
            die()


def main(path, moment):
    events = Killer(moment)
    save = torch.save

    def half_of_it(content, file):
        if moment == "write" and events.epoch == 1 and ".last.pth" in file.name:
            file.write(b"PK half a checkpoint")
            file.flush()
            die()
        save(content, file)

    torch.save = half_of_it
    cfg = YAMLConfig(path)
    DetSolver(cfg, events=events).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
