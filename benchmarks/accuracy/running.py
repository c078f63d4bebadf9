"""Run all missing runs one after the other, with a progress line."""

from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from rtdetrv2.analysis.timing import machine
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.misc.text import counted

from . import ours, peers, results
from .jobs import Experiment, Job, budget_minutes, estimates, left_minutes
from .processes import RunError
from .recipes import REFERENCE
from .results import Result

Runner = Callable[[Job, Experiment, Callable[[float], None]], Result]


def run_one(job: Job, experiment: Experiment, on_progress: Callable[[float], None]) -> Result:
    """Run a recipe or a peer.

    Raises:
        RunError: if it fails, or a peer has no time yet.
        RTDETRError: if the data set cannot be used.
    """
    if not job.is_peer:
        return ours.run(job, experiment, on_progress)
    facts = machine(torch.device(experiment.device))
    minutes = budget_minutes(job.dataset, results.load_all(experiment.results), facts)
    if minutes is None:
        raise RunError(
            f"run '{REFERENCE}' first on {facts['device']} with "
            f"{counted(int(facts['threads']), 'thread')}: peers train for its minutes"
        )
    return peers.run(job, experiment, minutes, on_progress)


def run_all(
    jobs: Sequence[Job], experiment: Experiment, console: Console, runner: Runner = run_one
) -> int:
    """Run every job without a result, and write its result.

    Args:
        jobs: in order.
        experiment: their options.
        console: to print to.
        runner: runs one job.

    Returns:
        The number of failed runs; they are repeated by the next call.
    """
    done = {job.name for job in jobs if job.path(experiment).is_file()}
    failed = 0
    with _progress(console) as bar:
        for job in [job for job in jobs if job.name not in done]:
            minutes = estimates(jobs, results.load_all(experiment.results))
            show = _Shown(bar, jobs, minutes, done, job)
            try:
                result = runner(job, experiment, show)
            except (RunError, RTDETRError) as error:
                failed += 1
                console.print(f"{job.name} failed: {error}", style="red", markup=False)
            else:
                results.save(result, job.path(experiment))
                best = result.best
                console.print(
                    f"{job.name}: AP {best['AP']:.3f}, AP50 {best['AP50']:.3f}, "
                    f"{result.minutes:.1f} minutes",
                    highlight=False,
                )
            done.add(job.name)
    return failed


class _Shown:
    """Shows the progress of a run.

    Args:
        bar: the progress line.
        jobs: all runs.
        minutes: of each run, estimated.
        done: names of the runs before it.
        job: the run.
    """

    def __init__(
        self,
        bar: Progress,
        jobs: Sequence[Job],
        minutes: dict[str, float],
        done: set[str],
        job: Job,
    ) -> None:
        self._bar, self._minutes = bar, minutes
        self._left = left_minutes(jobs, minutes, done, 0.0)
        self._job = job
        self._total = sum(minutes.values())
        self._number = f"{len(done) + 1} of {len(jobs)}"
        self(0.0)

    def __call__(self, share: float) -> None:
        """Show that this part of the run is finished, 0..1."""
        left = self._left - share * self._minutes[self._job.name]
        self._bar.update(
            TaskID(0),
            description=f"{self._number}: {self._job.name}",
            total=self._total,
            completed=self._total - left,
            left=_duration(left),
        )


def _duration(minutes: float) -> str:
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("about {task.fields[left]} left"),
    )
    bar = Progress(*columns, console=console, transient=True)
    bar.add_task("", total=None, left="?")
    return bar
