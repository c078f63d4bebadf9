"""Write a checkpoint for `transformers`."""

from pathlib import Path

from ..interchange.folders import write_folder
from .detector import load_network
from .export import Source


def export_transformers(source: Source, folder: Path) -> None:
    """Write a folder that `from_pretrained` of `RTDetrV2ForObjectDetection` reads.

    `config.json` also holds thresholds, pixel range and number of detections for this package.

    Args:
        source: what to write; its images are not used.
        folder: to write to; files of an earlier model are replaced.

    Raises:
        ConfigError: naming what `transformers` cannot hold, or if the folder is not writable.
        CheckpointError: if the checkpoint is not usable.
    """
    cfg, card = load_network(
        source.checkpoint,
        config=source.config,
        class_names=source.class_names,
        sampling=source.sampling,
    )
    measured = {"overall": card.threshold, "per_class": dict(card.class_thresholds)}
    write_folder(
        folder,
        cfg,
        class_names=card.class_names,
        input_size_hw=card.input_size_hw,
        own={
            "thresholds": measured if card.threshold is not None else None,
            "pixel_range": card.pixel_range,
            "num_top_queries": card.num_detections,
        },
    )
