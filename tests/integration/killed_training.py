"""Trains a YAML file in a process that kills itself with SIGKILL in the middle of something."""

import io
import multiprocessing
import os
import random
import signal
import threading

import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents

KINDS = ("step", "write", "evaluation", "anytime")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Clock(TrainingEvents):
    """Knows the epoch; starts the timer of a death at any time."""

    def __init__(self, kind, epoch, rng):
        self.kind, self.fatal_epoch = kind, epoch
        self.delay = rng.uniform(0.02, 0.6)  # an epoch with its evaluation takes about as long
        self.fatal_batch = rng.randrange(2)
        self.is_fatal = False

    def epoch_started(self, epoch, num_steps):
        self.is_fatal = epoch == self.fatal_epoch
        if self.is_fatal and self.kind == "anytime":
            threading.Timer(self.delay, die).start()

    def evaluation_step_finished(self, step, num_steps):
        if self.is_fatal and self.kind == "evaluation" and step == self.fatal_batch + 1:
            die()


def train(path, resume, kind, epoch, seed):
    """Go on with a run; die in the given epoch while doing what `kind` says, or never."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    clock = Clock(kind, epoch, rng)
    save, step = torch.save, torch.optim.AdamW.step
    fatal_file = rng.choice(["best.pth", "last.pth", "checkpoint"])
    share = rng.random()
    steps_left = [rng.randrange(3)]

    def part_of_it(content, file):
        # Not every epoch is the best; there the last file takes its place.
        fatal = (".last.pth",) if fatal_file == "best.pth" else ()
        is_the_one = clock.is_fatal and kind == "write"
        is_the_one &= file.name.rpartition("/")[2].startswith((f".{fatal_file}", *fatal))
        if is_the_one:
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: int(share * whole.tell())])
            file.flush()
            die()
        save(content, file)

    def half_a_step(self, *args, **options):
        result = step(self, *args, **options)
        if clock.is_fatal and kind == "step":
            if not steps_left[0]:
                die()  # weights have moved; average and schedule have not
            steps_left[0] -= 1
        return result

    torch.save, torch.optim.AdamW.step = part_of_it, half_a_step
    DetSolver(YAMLConfig(path, resume=resume), events=clock).fit()


def launch(*args):
    """Exit code of `train` in a process of its own, forked where all modules are loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=train, args=args)
    process.start()
    process.join()
    return process.exitcode
