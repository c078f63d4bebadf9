"""Verify an export: compare its detections with those of PyTorch on the same images.

In float32 every confident detection must have a counterpart with the same score and box. In half
precision and INT8, where scores change slightly, the AP is compared instead. In all, the file's
answers must not depend on the batch.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..misc.boxes import iou_and_giou
from ..misc.errors import ExportError, extra
from ..misc.files import write_text
from ..misc.text import counted, without_non_finite
from ..structures import DetectionTensors
from .accuracy import ClassAP, ap_losses, class_ap, evaluation
from .comparison_images import ComparisonImages
from .predictor import Predictor
from .runtimes import Runtime

logger = logging.getLogger(__name__)

PARITY_FILE = "parity.json"
BATCH = 7  # odd, so that errors of memory layout show
CONFIDENT = 0.3  # detections with higher scores are compared one by one
MAX_SCORE_DIFFERENCE, MAX_BOX_DIFFERENCE_PX = 1e-3, 0.5  # float32
MAX_AP_DIFFERENCE = 1e-3  # float32; for others see `accuracy`
# Half precision without annotations: minimum fraction of confident detections that have a
# counterpart with at least this IoU and at most this score difference.
MIN_SHARE_HALF, MIN_IOU_HALF, MAX_SCORE_DIFFERENCE_HALF = 0.98, 0.9, 0.05
_BATCH_1_IMAGES = 16  # images that are also run with batch size 1
_TOP_DETECTIONS = 10  # compared per image if no detection is confident
_REMEDIES = {
    "fp32": "please report this with the versions of torch and the runtime",
    "fp16": "export in fp32",
    "int8": "export with fp16, or in fp32",
}
MIN_SCORE = 1e-6  # excludes only detections removed by NMS in the graph

OnProgress = Callable[[str, int, int], None]  # activity, images done, images in total


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How an INT8 file was made; its AP is in the report."""

    scheme: str  # layers in INT8 before the search
    float_layers: Sequence[str]  # that the search added to those in float32
    num_int8_layers: int
    calibration_images: str  # description
    openvino_ap: float | None  # on the same images as the AP of the report; None: not installed
    trials: Sequence[str]  # of the search: one sentence each


@dataclass(frozen=True)
class ParityReport:
    """Result of a comparison; `failures` is empty if the export passed."""

    file: str  # name of the exported file
    runtime: str  # that ran the file
    reference: str  # runtime that it was compared with
    precision: str  # of the file
    images: str  # description
    sizes_wh: Sequence[tuple[int, int]]  # distinct ones of the images
    batch_sizes: Sequence[int]  # that were run
    compared: str  # how the detections were selected
    num_detections: int  # of both runtimes
    max_score_difference: float  # of a detection and its counterpart
    max_box_difference_px: float  # of a box edge
    matched_share: float  # fraction with a counterpart within the half-precision limits
    # The same three of the file against itself: in a batch, and one image repeated in a batch,
    # against batch size 1.
    batch_score_difference: float
    batch_box_difference_px: float
    batch_matched_share: float
    ap_pytorch: float | None  # of the reference, on the annotated images
    ap_exported: float | None
    ap_trained: float | None  # of PyTorch as trained, if the sampling or size is another
    class_ap: ClassAP
    failures: Sequence[str]  # one sentence per exceeded limit
    quantization: Quantization | None = None  # of an INT8 file

    @property
    def reference_name(self) -> str:
        """Name of the reference in sentences."""
        return "PyTorch" if self.reference == "pytorch" else self.reference

    def __str__(self) -> str:
        """One line for the log."""
        ap = ""
        if self.ap_exported is not None:
            ap = f"; AP {self.ap_exported:.4f}, {self.reference_name} {self.ap_pytorch:.4f}"
        return (
            f"{self.file}: {self.runtime} against {self.reference_name} on {self.images}: "
            f"{counted(self.num_detections, 'detection')} {self.compared}, scores differ by up to "
            f"{self.max_score_difference:.1e}, boxes by {self.max_box_difference_px:.1e} pixels{ap}"
        )


@dataclass
class _Differences:
    """Maximum differences, and the number of detections with a counterpart."""

    score: float = 0.0
    box_px: float = 0.0
    num_detections: int = 0
    num_matched: int = 0

    @property
    def matched_share(self) -> float:
        """Fraction of the detections that have a counterpart; 1 without detections."""
        return self.num_matched / self.num_detections if self.num_detections else 1.0

    def add(self, one: DetectionTensors, other: DetectionTensors, lowest: float) -> None:
        """Compare the detections of one image in both directions."""
        for mine, theirs in ((one, other), (other, one)):
            for scores, boxes, ious in _counterparts(mine, theirs, lowest):
                self.num_detections += len(scores)
                self.score = max(self.score, float(scores.max()))
                self.box_px = max(self.box_px, float(boxes.max()))
                self.num_matched += int(
                    ((scores <= MAX_SCORE_DIFFERENCE_HALF) & (ious >= MIN_IOU_HALF)).sum()
                )


def check_parity(
    exported: Runtime,
    reference: Runtime,
    comparison: ComparisonImages,
    *,
    file: str,
    trained: Runtime | None = None,
    on_progress: OnProgress | None = None,
) -> ParityReport:
    """Compare an exported detector with its source detector, by default in float32 PyTorch.

    `trained` is PyTorch as trained, if the sampling or input size is another one. `on_progress`
    is called after each batch.
    """
    card = exported.card
    batch = min(BATCH, exported.max_batch_size or BATCH)
    singles = range(min(_BATCH_1_IMAGES, len(comparison.images)))
    runs = 3 if trained is not None else 2
    progress = _Progress(on_progress, runs * len(comparison.images) + len(singles) + batch)
    with float32_throughout():
        wanted = progress.detect(reference, comparison.images, batch, card.nms_iou)
        together = progress.detect(exported, comparison.images, batch)
        one_by_one = progress.detect(exported, [comparison.images[i] for i in singles], 1)
        busiest = max(singles, key=lambda place: _num_confident(one_by_one[place]))
        repeated = progress.detect(exported, [comparison.images[busiest]] * batch, batch)
        intended = None
        if trained is not None:
            intended = progress.detect(trained, comparison.images, batch, card.nms_iou)

    before, after = evaluation(wanted, comparison), evaluation(together, comparison)
    as_trained = evaluation(intended, comparison) if intended else None
    is_confident = any((each["scores"] > CONFIDENT).any() for each in (*wanted, *together))
    differences = _Differences()
    for places, found in ((range(len(together)), together), (singles, one_by_one)):
        for place, detections in zip(places, found, strict=True):
            lowest = CONFIDENT if is_confident else _top_detections_threshold(wanted[place])
            differences.add(wanted[place], detections, lowest)
    within = _Differences()
    in_batches = [*enumerate(together[: len(singles)]), *((busiest, each) for each in repeated)]
    for place, detections in in_batches:
        alone = one_by_one[place]
        within.add(
            alone, detections, CONFIDENT if is_confident else _top_detections_threshold(alone)
        )
    report = ParityReport(
        file=file,
        runtime=exported.kind,
        reference=reference.kind,
        precision=card.precision,
        images=comparison.origin,
        sizes_wh=comparison.sizes_wh,
        batch_sizes=sorted({1, batch}),
        compared=f"above {CONFIDENT}"
        if is_confident
        else f"(none above {CONFIDENT}: the top {_TOP_DETECTIONS} of each image)",
        num_detections=differences.num_detections,
        max_score_difference=differences.score,
        max_box_difference_px=differences.box_px,
        matched_share=differences.matched_share,
        batch_score_difference=within.score,
        batch_box_difference_px=within.box_px,
        batch_matched_share=within.matched_share,
        ap_pytorch=None if before is None else before.stats["AP"],
        ap_exported=None if after is None else after.stats["AP"],
        ap_trained=None if as_trained is None else as_trained.stats["AP"],
        class_ap=class_ap(before, after) if before and after else {},
        failures=(),
    )
    return replace(report, failures=_failures(report))


def _failures(report: ParityReport) -> list[str]:
    is_exact = report.precision == "fp32"
    failures = []
    if report.ap_pytorch is not None and report.ap_exported is not None:
        loss = report.ap_pytorch - report.ap_exported
        if is_exact and abs(loss) > MAX_AP_DIFFERENCE:
            failures.append(
                f"AP {report.ap_exported:.4f} instead of {report.ap_pytorch:.4f} (limit: "
                f"a difference of {MAX_AP_DIFFERENCE})"
            )
        elif not is_exact:
            classes = report.class_ap if report.precision == "int8" else {}
            failures += ap_losses(report.ap_pytorch, report.ap_exported, classes)
    elif not is_exact and report.matched_share < MIN_SHARE_HALF:
        failures.append(
            f"{report.matched_share:.1%} of the detections have a counterpart (limit: "
            f"{MIN_SHARE_HALF:.0%} with IoU {MIN_IOU_HALF} and scores within "
            f"{MAX_SCORE_DIFFERENCE_HALF})"
        )
    if is_exact and report.max_score_difference > MAX_SCORE_DIFFERENCE:
        failures.append(
            f"scores differ by {report.max_score_difference:.2g} (limit: {MAX_SCORE_DIFFERENCE})"
        )
    if is_exact and report.max_box_difference_px > MAX_BOX_DIFFERENCE_PX:
        failures.append(
            f"boxes differ by {report.max_box_difference_px:.2g} pixels (limit: "
            f"{MAX_BOX_DIFFERENCE_PX})"
        )
    is_stable = report.batch_matched_share >= MIN_SHARE_HALF
    if is_exact:
        is_stable = (
            report.batch_score_difference <= MAX_SCORE_DIFFERENCE
            and report.batch_box_difference_px <= MAX_BOX_DIFFERENCE_PX
        )
    if not is_stable:
        failures.append(
            "the answer for an image depends on its batch: scores differ by "
            f"{report.batch_score_difference:.2g} and boxes by "
            f"{report.batch_box_difference_px:.2g} pixels from those with batch size 1, "
            f"{report.batch_matched_share:.1%} of the detections are equal"
        )
    return failures


def _num_confident(detections: DetectionTensors) -> int:
    return int((detections["scores"] > CONFIDENT).sum())


def _top_detections_threshold(detections: DetectionTensors) -> float:
    scores = detections["scores"][:_TOP_DETECTIONS]
    return float(scores[-1]) - 1e-9 if len(scores) else CONFIDENT


def _counterparts(
    mine: DetectionTensors, theirs: DetectionTensors, lowest: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pair confident detections of one side with any of the other, one to one per class.

    Yields:
        Per class, [n] each: score difference, maximum difference of a box edge in pixels, IoU.
        Differences are infinite for detections without a counterpart.
    """
    with extra("onnx"):
        from scipy.optimize import linear_sum_assignment

    confident = mine["scores"] > lowest
    for label in mine["labels"][confident].unique():
        a, b = confident & (mine["labels"] == label), theirs["labels"] == label
        scores = (mine["scores"][a, None] - theirs["scores"][b]).abs().double().numpy()
        corners = (mine["boxes"][a][:, None] - theirs["boxes"][b]).abs().double()
        boxes = corners.amax(-1).numpy()
        overlaps, _ = iou_and_giou(mine["boxes"][a][:, None], theirs["boxes"][b])
        cost = np.maximum(scores / MAX_SCORE_DIFFERENCE, boxes / MAX_BOX_DIFFERENCE_PX)
        rows, columns = linear_sum_assignment(cost)
        missing = len(cost) - len(rows)
        yield (
            np.append(scores[rows, columns], [math.inf] * missing),
            np.append(boxes[rows, columns], [math.inf] * missing),
            np.append(overlaps.double().numpy()[rows, columns], [0.0] * missing),
        )


class _Progress:
    """Run detectors and report progress."""

    def __init__(self, on_progress: OnProgress | None, total: int) -> None:
        self._on_progress, self._done, self._total = on_progress, 0, total

    def detect(
        self,
        runtime: Runtime,
        images: Sequence[np.ndarray],
        batch: int,
        nms_iou: float | None = None,
    ) -> list[DetectionTensors]:
        """Return all detections of all images."""
        predictor = Predictor(runtime, batch)
        found: list[DetectionTensors] = []
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            found += predictor.predict(some, MIN_SCORE, nms_iou)[0]
            self._done += len(some)
            if self._on_progress is not None:
                self._on_progress(f"comparing {runtime.kind}", self._done, self._total)
        return found


@contextmanager
def float32_throughout() -> Iterator[None]:
    """Disable TF32, which reduces float32 products to 10 bits of mantissa."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


def save_parity(report: ParityReport, folder: Path) -> None:
    """Add a report to the `parity.json` of a directory."""
    path = folder / PARITY_FILE
    _write_reports(path, _read_reports(path) | {report.file: without_non_finite(asdict(report))})


def remove_parity(file: Path) -> None:
    """Remove the report of a removed file from `parity.json`."""
    path = file.with_name(PARITY_FILE)
    reports = _read_reports(path)
    if reports.pop(file.name, None) is not None:
        _write_reports(path, reports)


def _read_reports(path: Path) -> dict[str, Any]:
    try:
        reports = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # missing or damaged
    return reports if isinstance(reports, dict) else {}


def _write_reports(path: Path, reports: Mapping[str, Any]) -> None:
    if not reports:
        path.unlink()
        return
    write_text(path, json.dumps(reports, indent=1))


def raise_if_failed(report: ParityReport) -> None:
    """Raise if an export failed the comparison.

    Raises:
        ExportError: with the exceeded limits and a remedy.
    """
    logger.log(logging.ERROR if report.failures else logging.INFO, "%s", report)
    if not report.failures:
        return
    remedy, tried = _REMEDIES[report.precision], ""
    if report.quantization is not None:
        tried = f"Tried: {'. '.join(report.quantization.trials)}. "
    raise ExportError(
        f"{report.file}: results on {report.images} differ from "
        f"{report.reference_name}: "
        f"{'; '.join(report.failures)}. {tried}The file was removed; {remedy}"
    )
