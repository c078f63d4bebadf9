"""A training in a separate process that kills or stops itself at a chosen moment."""

import io
import os
import random
import signal
import threading

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents


def kill_process():
    os.kill(os.getpid(), signal.SIGKILL)


class KillTimer(TrainingEvents):
    """Tracks the epoch, and kills the process during an evaluation or after a random delay.

    The kind `SIGTERM`, `SIGINT` or `SIGHUP` sends this signal after the first step instead.
    """

    def __init__(self, kind, epoch, rng):
        self.kind, self.fatal_epoch = kind, epoch
        self.delay = rng.uniform(0.02, 0.4)  # about the duration of an epoch
        self.fatal_batch = rng.randrange(2)
        self.is_fatal = False

    def epoch_started(self, epoch, num_steps):
        self.is_fatal = epoch == self.fatal_epoch
        if self.is_fatal and self.kind == "anytime":
            threading.Timer(self.delay, kill_process).start()

    def step_finished(self, report):
        if self.is_fatal and report.step == 0 and self.kind in signal.Signals.__members__:
            signal.raise_signal(signal.Signals[self.kind])

    def evaluation_step_finished(self, step, num_steps):
        if self.is_fatal and self.kind == "evaluation" and step == self.fatal_batch + 1:
            kill_process()


def train(path, resume, kind, epoch, seed, place=None):
    """Train or resume a run; kill the process in the given epoch at the given kind of moment.

    `place` chooses the file and how many of its bytes are written before the kill; a negative
    number counts from the end, None writes all. Default: random.
    """
    torch.set_num_threads(1)
    rng = random.Random(seed)
    timer = KillTimer(kind, epoch, rng)
    save, step = torch.save, torch.optim.AdamW.step
    fatal_file = rng.choice(["last.pth", "checkpoint"])
    fraction = rng.random()
    if place is not None:
        fatal_file, end = place
    steps_left = [rng.randrange(3)]

    def save_partially(content, file):
        is_fatal = timer.is_fatal and kind == "write"
        if is_fatal and file.name.rpartition("/")[2].startswith(f".{fatal_file}"):
            complete = io.BytesIO()
            save(content, complete)
            size = int(fraction * complete.tell()) if place is None else end
            file.write(complete.getvalue()[:size])
            file.flush()
            kill_process()
        save(content, file)

    def step_partially(self, *args, **options):
        result = step(self, *args, **options)
        if timer.is_fatal and kind == "step":
            if not steps_left[0]:
                kill_process()  # after the weights, before EMA and schedule
            steps_left[0] -= 1
        return result

    torch.save, torch.optim.AdamW.step = save_partially, step_partially
    DetSolver(YAMLConfig(path, resume=resume), events=timer).fit()
