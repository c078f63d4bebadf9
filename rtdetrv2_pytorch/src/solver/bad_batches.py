"""What a batch looked like that made the losses something else than numbers."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DetectionDataset
from ..misc import distributed
from ..structures import Target
from .observers import finite

logger = logging.getLogger(__name__)

FOLDER = "bad_batches"
_MOST_FILES = 20


class BadBatches:
    """Writes one JSON file per bad batch, so that its images can be looked at.

    Args:
        output_dir: of the run; files come into a folder of it.
        dataset: knows the names of the files.
    """

    def __init__(self, output_dir: Path, dataset: DetectionDataset) -> None:
        self.folder = output_dir / FOLDER
        self._annotations = dataset.annotations

    def write(
        self,
        error: Exception,
        targets: Sequence[Target],
        *,
        losses: Mapping[str, float],
        **place: Any,
    ) -> None:
        """Write what is known, unless there are enough files, or it cannot be written.

        Args:
            error: what was found.
            targets: of the batch, boxes cxcywh 0..1 as augmented.
            losses: terms, where it came to them.
            place: epoch, step, precision, ...: written as they are.
        """
        name = "epoch{epoch:04d}_step{step:06d}".format(**place)
        path = self.folder / f"{name}_rank{distributed.rank()}.json"
        content = {
            "error": str(error),
            **place,
            # As text: JSON has no word for what is not finite, which is what matters here.
            "losses": {k: v if math.isfinite(v) else str(v) for k, v in losses.items()},
            "images": [self._describe(target) for target in targets],
        }
        try:
            self.folder.mkdir(exist_ok=True)
            if len(list(self.folder.glob("*.json"))) >= _MOST_FILES:
                return
            path.write_text(json.dumps(finite(content), indent=1), encoding="utf-8")
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
