"""Files that describe batches with a non-finite loss."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.dataset import DetectionDataset
from ..misc import distributed
from ..misc.text import without_non_finite
from ..structures import StepBatch, Target

logger = logging.getLogger(__name__)

FOLDER = "bad_batches"
_MAX_FILES = 20


class BadBatches:
    """Writes a JSON file for each batch with a non-finite loss.

    Args:
        output_dir: output directory of the run; the files go to a folder in it.
        dataset: provides the file names of the images.
    """

    def __init__(self, output_dir: Path, dataset: DetectionDataset) -> None:
        self.folder = output_dir / FOLDER
        self._annotations = dataset.annotations

    def write(
        self, batch: StepBatch, error: Exception, *, losses: Mapping[str, float], precision: str
    ) -> None:
        """Write the images, boxes and losses of a batch, up to `_MAX_FILES` files per run.

        Args:
            batch: the batch, boxes cxcywh 0..1 after augmentation.
            error: the error that the batch raised.
            losses: loss terms, if they were computed.
            precision: dtype of the forward pass.
        """
        name = f"epoch{batch.epoch:04d}_step{batch.step:06d}_rank{distributed.rank()}.json"
        content = {
            "error": str(error),
            "epoch": batch.epoch,
            "step": batch.step,
            "global_step": batch.global_step,
            "precision": precision,
            "size_hw": list(batch.size_hw),
            # Non-finite terms as text: JSON has no NaN.
            "losses": {k: v if math.isfinite(v) else str(v) for k, v in losses.items()},
            "images": [self._describe(target) for target in batch.targets],
        }
        path = self.folder / name
        try:
            self.folder.mkdir(exist_ok=True)
            if len(list(self.folder.glob("*.json"))) >= _MAX_FILES:
                return
            path.write_text(json.dumps(without_non_finite(content), indent=1), encoding="utf-8")
        except OSError as problem:
            logger.warning("%s: cannot be written (%s)", path, problem)
            return
        logger.warning("the batch is described in %s", path)

    def _describe(self, target: Target) -> dict[str, Any]:
        index = int(target["idx"])
        return {
            "image_id": int(target["image_id"]),
            "file_name": self._annotations[index].file_name,
            "boxes_cxcywh": target["boxes"].tolist(),
            "labels": target["labels"].tolist(),
        }
