"""Input of a training report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.yaml_config import YAMLConfig
from ..data.annotation_arrays import Annotations
from ..data.metrics.evaluator import Evaluation


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """Input of a report."""

    folder: Path  # output directory, where the report is written
    config: Mapping[str, Any]  # resolved
    evaluation: Evaluation | None  # metrics of the best weights, if any
    annotations: Annotations  # of the validation split
    img_folder: Path  # of the validation split
    train_img_folder: Path | None = None
    train_boxes: Sequence[int] = ()  # per class


def report_source(cfg: YAMLConfig, folder: Path, evaluation: Evaluation | None) -> ReportSource:
    """Collect the input of a report; `folder` is the output directory of the run."""
    train, val = cfg.train_dataset, cfg.val_dataset
    objects = train.annotations.labels[train.annotations.iscrowd == 0]
    boxes = np.bincount(objects, minlength=len(train.annotations.categories))
    return ReportSource(
        folder=folder,
        config=cfg.yaml_cfg,
        evaluation=evaluation,
        annotations=val.annotations,
        img_folder=val.img_folder,
        train_img_folder=train.img_folder,
        train_boxes=boxes.tolist(),
    )
