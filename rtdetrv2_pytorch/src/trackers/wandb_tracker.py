"""Weights & Biases. `WANDB_PROJECT`, `WANDB_MODE=offline` and other variables are respected."""

import os
from collections.abc import Mapping
from pathlib import Path

from .tracker import PROJECT, Axis, FileKind, RunInfo


class WandbTracker:
    """A run of Weights & Biases; its files are in `wandb` of the output folder.

    Args:
        folder: output folder of the training.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        self._wandb = wandb
        self._folder = folder

    def start(self, info: RunInfo) -> str:
        """See `Tracker`."""
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=info.name,
            dir=str(self._folder),
            config=dict(info.config),
            id=info.resumed_id,
            resume="allow" if info.resumed_id else None,
            # Without its tables and its copy of the console, which has a live line.
            settings=self._wandb.Settings(console="off", quiet=True),
        )
        # A resumed training can repeat steps, which W&B's own step counter would drop.
        for axis in ("step", "epoch"):
            self._run.define_metric(axis, hidden=True)
        for name in ("train/*", "train_terms/*", "speed/*"):
            self._run.define_metric(name, step_metric="step")
        for name in ("val/*", "val_AP/*", "time/*", "images/*"):
            self._run.define_metric(name, step_metric="epoch")
        return str(self._run.id)

    def log(self, values: Mapping[str, float], axis: Axis, number: int) -> None:
        """See `Tracker`."""
        self._run.log({**values, axis: number})

    def log_image(self, tag: str, path: Path, epoch: int) -> None:
        """See `Tracker`."""
        self._run.log({f"images/{tag}": self._wandb.Image(str(path)), "epoch": epoch})

    def log_file(self, path: Path, kind: FileKind) -> None:
        """See `Tracker`."""
        if kind == "report":
            self._run.log(
                {"report": self._wandb.Html(path.read_text(encoding="utf-8"), inject=False)}
            )
            return
        artifact = self._wandb.Artifact(
            f"run-{self._run.id}-{path.stem}", type="model" if kind == "checkpoint" else kind
        )
        artifact.add_file(str(path))
        self._run.log_artifact(artifact, aliases=["latest", path.stem])

    def finish(self, *, is_complete: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if is_complete else 1)
