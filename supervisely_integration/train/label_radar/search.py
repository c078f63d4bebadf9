"""Search the data of a finished training for annotation errors."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtdetrv2.analysis.radar.radar import (
    RadarOptions,
    RadarResult,
    RadarStopped,
    find_label_errors,
)
from rtdetrv2.training.progress import TrainingProgress
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.misc.files import write_text
from rtdetrv2_pytorch.src.report.training_report import write_report
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundErrors:
    """The result of the search."""

    result: RadarResult

    def write(self, folder: Path, original_name: Callable[[str], str]) -> Path:
        """Write the list with the original names of the images to a folder.

        Returns:
            The report of the run, in the folder of the run, with the list.
        """
        content = json.loads(self.result.path.read_text(encoding="utf-8"))
        for each in content["suspicions"]:
            each["file_name"] = original_name(each["file_name"])
        write_text(folder / self.result.path.name, json.dumps(content))
        return write_report(self.result.source)


def search_labels(
    run_dir: Path, device: str, events: TrainingEvents, stop: StopFlag
) -> FoundErrors | None:
    """Search both splits of a training; None after a failure or a stop, which are logged.

    The training is complete in any case.

    Args:
        run_dir: folder of the run.
        device: for the networks that have not seen the labels.
        events: follow their trainings.
        stop: stops the search at the next training batch.
    """
    logger.info("Label radar: training networks that have not seen the labels")
    try:
        return FoundErrors(
            find_label_errors(
                run_dir,
                RadarOptions(device=device),
                progress=TrainingProgress(),
                followers=[events],
                stop=stop,
            )
        )
    except RadarStopped as error:
        logger.warning("Label radar: %s", error)
    except (RTDETRError, OSError) as error:
        logger.error("The label radar failed; the training is complete without it: %s", error)
    return None
