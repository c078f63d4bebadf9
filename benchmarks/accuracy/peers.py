"""Public trainers as baselines: each in an environment of its own, scored by our evaluator.

A peer is a script in `peer_scripts`, which imports only its own package. It trains for a number of
minutes that includes its predictions on the validation images, and writes the predictions of every
evaluation as a COCO results file.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rtdetrv2.analysis.timing import OtherProcesses, machine
from rtdetrv2_pytorch.src.data.splits import Split

from .datasets import WORK
from .processes import RunError, log_tail, run_logged
from .results import ROOT, Point, Result
from .scoring import score_predictions

if TYPE_CHECKING:
    from .jobs import Experiment, Job

SCRIPTS = Path(__file__).parent / "peer_scripts"
_TORCH = ("torch==2.10.0", "torchvision==0.25.0")  # as in requirements.txt


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A public trainer.

    Attributes:
        about: for the page.
        environment: name of its environment.
        packages: to install there.
        script: in `peer_scripts`.
        settings: passed to the script.
    """

    about: str
    environment: str
    packages: Sequence[str]
    script: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_TRANSFORMERS = ("transformers==5.23.0", "accelerate==1.15.0", "albumentations==2.0.8", "scipy")
_LIBREYOLO = ("libreyolo==1.6.0",)

PEERS = {
    "transformers": Peer(
        about="`transformers` 5.23.0, settings and augmentation of its object detection script: "
        "AdamW, learning rate 5e-5 with linear decay, batch size 8",
        environment="transformers",
        packages=_TRANSFORMERS,
        script="transformers_script.py",
        settings={"learning_rate": 5e-5, "weight_decay": 1e-4, "batch": 8, "max_grad_norm": 1.0},
    ),
    "transformers-our-rate": Peer(
        about="`transformers` 5.23.0, the same with our learning rate, batch size and clipping",
        environment="transformers",
        packages=_TRANSFORMERS,
        script="transformers_script.py",
        settings={"learning_rate": 5e-4, "weight_decay": 1e-4, "batch": 4, "max_grad_norm": 0.1},
    ),
    "libreyolo": Peer(
        about="`libreyolo` 1.6.0, `LibreRTDETRv2(size='r18')`, its default settings: AdamW, "
        "constant learning rate 1e-4, backbone 5e-6, EMA 0.9999, batch size 4",
        environment="libreyolo",
        packages=_LIBREYOLO,
        script="libreyolo_script.py",
    ),
    "libreyolo-our-rate": Peer(
        about="`libreyolo` 1.6.0, the same with our learning rate for all parameters",
        environment="libreyolo",
        packages=_LIBREYOLO,
        script="libreyolo_script.py",
        settings={"lr0": 5e-4, "lr_backbone": 5e-4},
    ),
}


def run(
    job: "Job", experiment: "Experiment", minutes: float, on_progress: Callable[[float], None]
) -> Result:
    """Train a peer and score its predictions; an interrupted run starts again.

    Args:
        job: the run.
        experiment: its options.
        minutes: of training and evaluation.
        on_progress: called with the finished part, 0..1.

    Raises:
        RunError: if the environment cannot be built or the training fails.
        RTDETRError: if the data set cannot be used.
    """
    peer, folder = PEERS[job.recipe], job.folder(experiment)
    python = build_environment(peer)
    splits = job.dataset.splits()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = {
        "train": _files(splits.train),
        "val": _files(splits.val),
        "size": job.dataset.size,
        "seed": job.seed,
        "minutes": minutes,
        "evaluations": job.dataset.epochs,
        "device": experiment.device,
        "settings": peer.settings,
        "output": str(folder),
    }
    (folder / "request.json").write_text(json.dumps(request))
    script = str(SCRIPTS / peer.script)

    def on_poll() -> None:
        stamps = read_stamps(folder)
        on_progress(min(stamps[-1]["minutes"] / minutes, 1.0) if stamps else 0.0)

    facts, log = machine(torch.device(experiment.device)), folder.with_name(f"{job.name}.log")
    with (others := OtherProcesses()):
        run_logged([str(python), script, str(folder / "request.json")], log, on_poll=on_poll)
    stamps = read_stamps(folder)
    if not stamps:
        raise RunError(f"{peer.script} wrote no predictions; see {log}")
    points, best = scored(folder, splits.val, stamps)
    result = Result(
        dataset=job.dataset.name,
        recipe=job.recipe,
        seed=job.seed,
        kind="peer",
        settings={"size": job.dataset.size, "minutes": round(minutes, 3), **peer.settings},
        run={"packages": list(peer.packages), **stamps[-1]["run"]},
        command=["python", f"benchmarks/accuracy/peer_scripts/{peer.script}", "request.json"],
        machine=facts,
        steps=stamps[-1]["steps"],
        curve=points,
        best=best,
        other_cores=round(others.cores(), 2),
        log=log_tail(log),
    )
    shutil.rmtree(folder)
    return result


def build_environment(peer: Peer) -> Path:
    """Install the packages of a peer with uv, once; return its Python.

    Raises:
        RunError: if uv is missing or the installation fails.
    """
    folder = ROOT / f".venv-peer-{peer.environment}"
    python, marker = folder / "bin" / "python", folder / ".packages"
    wanted = "\n".join([*_TORCH, *peer.packages])
    if marker.is_file() and marker.read_text() == wanted:
        return python
    own = ROOT / ".uv" / "bin" / "uv"
    uv = str(own) if own.is_file() else shutil.which("uv")
    if uv is None:
        raise RunError("uv is missing; run 'make uv'")
    log = WORK / f"{peer.environment}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        for command in (
            [uv, "venv", "--allow-existing", "--python", ">=3.11,<3.13", str(folder)],
            [uv, "pip", "install", "--python", str(python), *_TORCH, *peer.packages],
        ):
            with log.open("ab") as output:
                subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        end = "\n".join(log_tail(log))
        raise RunError(f"cannot install {', '.join(peer.packages)}:\n{end}") from error
    log.unlink()
    marker.write_text(wanted)
    return python


def read_stamps(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations that a peer has written so far."""
    path = folder / "evaluations.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def scored(
    folder: Path, split: Split, stamps: Sequence[Mapping[str, Any]]
) -> tuple[list[Point], dict[str, float]]:
    """Score the predictions of all evaluations; return them and the metrics of the best."""
    points, best = [], {"AP": -1.0}
    for stamp in stamps:
        rows = json.loads((folder / stamp["predictions"]).read_text())
        metrics = score_predictions(split, rows).as_dict()
        points.append(Point.of(metrics, minutes=stamp["minutes"], epoch=stamp["epoch"]))
        best = max(best, Point.summary(metrics), key=lambda each: each["AP"])
    return points, best


def _files(split: Split) -> dict[str, str]:
    return {"ann_file": str(split.ann_file.resolve()), "images": str(split.img_folder.resolve())}
