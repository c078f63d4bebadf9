"""The examination of a dataset before a training."""

from collections.abc import Callable
from pathlib import Path

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.splits import Splits
from rtdetrv2_pytorch.src.doctor import cache
from rtdetrv2_pytorch.src.doctor.data_page import write_page
from rtdetrv2_pytorch.src.doctor.data_report import REPORT_HTML, DataReport
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.resources import cache_folder

from .progress import TrainingProgress


def examine_for_training(
    name: str, splits: Splits, cfg: YAMLConfig, progress: TrainingProgress
) -> None:
    """Examine the dataset of a run, and use the pixel range that fits it.

    Raises:
        DatasetError: if it cannot be used for training.
        ConfigError: if the output folder is not writable.
    """
    values = cfg.yaml_cfg
    options = Options.of_model(
        values,
        pixel_range=cfg.settings.pixel_range,
        cache=cache_folder(cache.FOLDER),
    )
    progress.headline("Examining", name)
    report, paths = examine_folder(name, splits, options, cfg.output_dir, show=progress.show)
    progress.examined(report, paths)
    if report.refusals:
        raise DatasetError(f"{report.refusals[0]}; {report.refusals[0].kind.remedy}")
    if report.pixel_range and cfg.settings.pixel_range is None:
        low, high = report.pixel_range
        values["pixel_range"] = [low, high]
        progress.notice(
            f"pixel_range = [{low:g}, {high:g}]: these values of images with more than 8 bits "
            f"become 0 and 255, as shown in {REPORT_HTML}"
        )


def examine_folder(
    name: str,
    splits: Splits,
    options: Options,
    output: Path,
    *,
    show: Callable[[str, int, int | None], None],
) -> tuple[DataReport, list[Path]]:
    """Examine a dataset, and write data_report.json and data_report.html to the output folder.

    Args:
        name: of the dataset, for the report.
        splits: of the dataset.
        options: of the examination.
        output: folder for the report; it is created.
        show: receives the activity, and the number of finished and of all images.

    Returns:
        The report and the paths of its files.

    Raises:
        ConfigError: if the folder is not writable.
    """
    report = examine(
        name,
        splits.train,
        splits.val,
        options,
        others=splits.findings,
        on_progress=lambda done, total: show("examining images", done, total),
    )
    show("writing the data report", 0, None)
    try:
        output.mkdir(parents=True, exist_ok=True)
        return report, [report.write_json(output), write_page(report, output)]
    except OSError as error:
        raise ConfigError(
            f"{output}: could not write the data report ({error.strerror}); choose another folder"
        ) from error
