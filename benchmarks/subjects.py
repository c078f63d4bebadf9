"""Subjects of the benchmark. Each returns the times of both sides and their ratios."""

import contextlib
import io
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.augmentation import augmentation, one_thread, write_pictures
from benchmarks.handover import hand_over
from benchmarks.runtimes import random_checkpoint, runtimes
from benchmarks.serving import serving
from benchmarks.steps import (
    MODELS,
    config,
    our_step,
    random_batch,
    random_targets,
    their_network,
    their_step,
)
from rtdetrv2.analysis.timing import every_turn, ratio, summary, take_turns
from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.augment.sample import Sample
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.data.metrics.evaluator import CocoEvaluator
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.runtimes import OpenVINORuntime
from rtdetrv2_pytorch.src.misc.errors import ConfigError

Result = dict[str, Any]


def training_step(device: torch.device, size: int = 320, batch: int = 4, boxes: int = 8) -> Result:
    """Compare training steps with transformers, in float32 and with bfloat16 autocast."""
    images, targets = random_batch(size, batch, boxes)
    ways: dict[str, Callable[[], Any]] = {}
    for precision in ("float32", "bfloat16"):
        common: dict[str, Any] = {"precision": precision, "device": device}
        ways[f"ours {precision}"] = our_step("r18", images, targets, **common)
        ways[f"transformers {precision}"] = their_step(
            their_network("r18", device), images, targets, **common
        )
    times = take_turns(ways, device)
    return {
        "what": f"training step, r18, {size} px, batch {batch}, {boxes} boxes per image",
        "seconds": times,
        "ratios": {
            "ours float32 vs transformers float32": ratio(
                times, "transformers float32", "ours float32"
            ),
            "ours bfloat16 vs transformers bfloat16": ratio(
                times, "transformers bfloat16", "ours bfloat16"
            ),
            "ours bfloat16 vs transformers float32": ratio(
                times, "transformers float32", "ours bfloat16"
            ),
        },
    }


def losses(device: torch.device, batch: int = 16, boxes: int = 30) -> Result:
    """Compare matching and losses of three decoder layers, forward and backward."""
    from transformers.loss.loss_rt_detr import RTDetrLoss

    from tests.transformers_map import build_theirs

    generator = torch.Generator().manual_seed(0)
    targets = random_targets(batch, boxes, generator)
    groups = 100 // boxes
    noisy = 2 * boxes * groups
    shapes = {"matching": 300, "denoising": noisy}
    leaves = {
        name: [
            (
                (torch.randn(batch, q, 80, generator=generator) - 4).to(device).requires_grad_(),
                (torch.rand(batch, q, 4, generator=generator) * 0.3 + 0.2)
                .to(device)
                .requires_grad_(),
            )
            for _ in range(4 if name == "matching" else 3)
        ]
        for name, q in shapes.items()
    }
    matching = [{"pred_logits": a, "pred_boxes": b} for a, b in leaves["matching"]]
    denoising = [{"pred_logits": a, "pred_boxes": b} for a, b in leaves["denoising"]]
    start = torch.arange(groups)[:, None] * 2 * boxes
    positive = [(start + torch.arange(boxes)).flatten() for _ in range(batch)]

    criterion = config().criterion.to(device)
    ours = {
        **matching[0],
        "aux_outputs": matching[1:3],
        "enc_aux_outputs": matching[3:],
        "enc_meta": {"class_agnostic": False},
        "dn_aux_outputs": denoising,
        "dn_meta": {
            "dn_positive_idx": positive,
            "dn_num_group": groups,
            "dn_num_split": [noisy, 300],
        },
    }
    their_loss = RTDetrLoss(build_theirs("r18vd_120e").config).to(device)
    labels = [
        {"class_labels": t["labels"].to(device), "boxes": t["boxes"].to(device)} for t in targets
    ]
    # transformers uses other names, and "logits" for the logits.
    renamed = [{"logits": m["pred_logits"], "pred_boxes": m["pred_boxes"]} for m in matching]
    renamed_dn = [{"logits": m["pred_logits"], "pred_boxes": m["pred_boxes"]} for m in denoising]
    theirs = {
        **renamed[0],
        "auxiliary_outputs": renamed[1:],
        "dn_auxiliary_outputs": renamed_dn,
        "denoising_meta_values": {
            "dn_positive_idx": [p.to(device) for p in positive],
            "dn_num_group": groups,
            "dn_num_split": [noisy, 300],
        },
    }

    def run_ours() -> None:
        sum(criterion(ours, targets).values()).backward()  # type: ignore[union-attr]

    def run_theirs() -> None:
        sum(their_loss(theirs, labels).values()).backward()

    times = take_turns({"ours": run_ours, "transformers": run_theirs}, device)
    return {
        "what": f"matching and losses, forward, backward, batch {batch}, {boxes} boxes per image",
        "seconds": times,
        "ratios": {"ours vs transformers": ratio(times, "transformers", "ours")},
    }


def input_pipeline(device: torch.device, images: int = 60) -> Result:
    """Compare the published augmentations of one 640x480 image to 640x640, one thread."""
    with one_thread(), tempfile.TemporaryDirectory() as name:
        paths = write_pictures(Path(name), images)
        times = take_turns(_pipelines(paths), device, rounds=5, warmup=1)
    for result in times.values():
        for key in result:
            result[key] /= images
    return {
        "what": "input pipeline, one 640x480 JPEG to 640x640, one thread, seconds per image",
        "seconds": times,
        "ratios": {"ours vs PIL and torchvision": ratio(times, "PIL and torchvision", "ours")},
    }


def _pipelines(paths: list[Path]) -> dict[str, Callable[[], None]]:
    boxes = np.array([[50.0, 60, 200, 300], [300, 100, 600, 400], [400, 50, 480, 90]])
    labels = np.array([1, 2, 3])
    cfg = config()
    values = cfg.yaml_cfg["train_dataloader"]["dataset"]["transforms"]
    compose = cfg.sections().construct(values, "transforms")

    def ours() -> None:
        for i, path in enumerate(paths):
            image = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)
            sample = Sample(image, boxes.copy(), labels.copy(), np.ones(3))
            compose(sample, random.Random(i), 0)

    plain = v2.Compose(
        [
            v2.RandomPhotometricDistort(p=0.5),
            v2.RandomZoomOut(fill=0),
            v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.RandomHorizontalFlip(),
            v2.Resize((640, 640)),
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def theirs() -> None:
        for i, path in enumerate(paths):
            torch.manual_seed(i)
            image = Image.open(path).convert("RGB")
            target = {
                "boxes": tv_tensors.BoundingBoxes(
                    torch.from_numpy(boxes), format="XYXY", canvas_size=(480, 640)
                ),
                "labels": torch.from_numpy(labels),
            }
            plain(image, target)

    return {"ours": ours, "PIL and torchvision": theirs}


def inference(device: torch.device, size: int = 640, batch: int = 1) -> Result:
    """Evaluation forward pass of r18: ours as trained, deployed and exported, and transformers'.

    Exported models run from pixels to boxes, the others from floats to logits.
    """
    images = torch.rand(batch, 3, size, size, device=device)
    model = config(eval_spatial_size=[size, size]).model.eval().to(device)
    deployed = config(eval_spatial_size=[size, size]).model.to(device).deploy()
    deployed = deployed.to(memory_format=torch.channels_last)
    theirs = their_network("r18", device).eval()

    def run(call: Callable[[], Any], precision: str) -> Callable[[], None]:
        def way() -> None:
            enabled = precision == "bfloat16"
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled):
                call()

        return way

    last = images.contiguous(memory_format=torch.channels_last)
    ways = {
        "ours float32": run(lambda: model(images), "float32"),
        "ours deployed float32": run(lambda: deployed(last), "float32"),
        "ours deployed bfloat16": run(lambda: deployed(last), "bfloat16"),
        "transformers float32": run(lambda: theirs(pixel_values=images), "float32"),
        "transformers bfloat16": run(lambda: theirs(pixel_values=images), "bfloat16"),
    }
    if device.type == "cpu":
        ways |= _exported(size, batch)
    # Threads of OpenVINO spin after their work.
    samples = every_turn(ways, device, warmup=2, pause_s=0.3)
    times = {name: summary(seconds) for name, seconds in samples.items()}
    ours = [name for name in ways if name.startswith("ours ")]
    return {
        "what": f"inference, r18, {size} px, batch {batch}",
        "seconds": times,
        "ratios": {
            f"{name} vs transformers float32": ratio(times, "transformers float32", name)
            for name in ours
        },
    }


def _exported(size: int, batch: int) -> dict[str, Callable[[], Any]]:
    """Return the network as an ONNX file in OpenVINO, with pre- and postprocessing."""
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    sizes_wh = torch.full((batch, 2), size)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_checkpoint(Path(folder, "model.pth"), MODELS["r18"][0], size)
        file = Path(folder, "model.onnx")
        write_onnx(*load_detector(checkpoint), file)
        cpu, threads = torch.device("cpu"), torch.get_num_threads()
        opened = {"float32": OpenVINORuntime(file, cpu, threads)}
        with contextlib.suppress(ConfigError):  # not supported by all CPUs
            opened["bfloat16"] = OpenVINORuntime(file, cpu, threads, bfloat16=True)
    return {
        f"ours OpenVINO {precision}": partial(runtime, pixels, sizes_wh)
        for precision, runtime in opened.items()
    }


def evaluation(device: torch.device, images: int = 5000) -> Result:
    """Compare COCO metrics of 96 detections per image with pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    table = CategoryTable.mscoco()
    records, detections = [], {}
    for image_id in range(1, images + 1):
        corner = rng.uniform(0, 500, (8, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(10, 140, (8, 2))), axis=1)
        labels = rng.integers(0, 80, 8)
        size = boxes[:, 2:] - boxes[:, :2]
        records.append(
            ImageRecord("", image_id, (640, 640), boxes, labels, size.prod(1), np.zeros(8, int))
        )
        found = np.repeat(boxes, 12, axis=0) + rng.normal(0, 12, (96, 4))
        detections[image_id] = {
            "boxes": torch.from_numpy(found),
            "labels": torch.from_numpy(np.repeat(labels, 12)),
            "scores": torch.from_numpy(rng.uniform(0, 1, 96)),
        }
    annotations = Annotations(records, table)
    evaluator = CocoEvaluator(annotations=annotations, iou_types=["bbox"])

    def ours() -> None:
        evaluator.cleanup()
        evaluator.update(detections)  # type: ignore[arg-type]
        evaluator.accumulate()
        evaluator.summarize()
        evaluator.result()  # including operating points, which pycocotools does not compute

    rows = []
    for image_id, found in detections.items():
        for box, label, score in zip(*(found[k].tolist() for k in found), strict=True):
            x1, y1, x2, y2 = box
            rows.append([image_id, x1, y1, x2 - x1, y2 - y1, score, table.evaluation_ids[label]])

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = annotations.to_coco()
            coco.createIndex()
            measured = COCOeval(coco, coco.loadRes(np.array(rows)), "bbox")
            measured.evaluate()
            measured.accumulate()
            measured.summarize()

    times = take_turns({"ours": ours, "pycocotools": theirs}, device, rounds=3, warmup=1)
    return {
        "what": f"COCO metrics of {images} images, 96 detections each, 80 classes",
        "seconds": times,
        "ratios": {"ours vs pycocotools": ratio(times, "pycocotools", "ours")},
    }


SUBJECTS: dict[str, Callable[..., Result]] = {
    "training_step": training_step,
    "losses": losses,
    "input_pipeline": input_pipeline,
    "augmentation": augmentation,
    "hand_over": hand_over,
    "inference": inference,
    "evaluation": evaluation,
    "runtimes": runtimes,
    "serving": serving,
}
