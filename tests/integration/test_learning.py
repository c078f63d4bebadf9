"""The network learns: four images, from random weights, within 150 optimizer steps."""

import json
from pathlib import Path

import pytest

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.misc.seeding import seed_everything
from rtdetrv2_pytorch.src.solver.loop import evaluate
from rtdetrv2_pytorch.src.solver.progress import EpochProgress
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import train_step
from tests.conftest import bccd_folder
from tests.tiny import CONFIGS

STEPS, CHECK_EVERY = 150, 10


def learn(tmp_path: Path, images: Path, annotations: Path, *, side: int) -> tuple[float, int]:
    """Train the published S network on one batch of four; returns AP50 and steps taken."""
    size = [side, side]
    dataset = {"img_folder": str(images), "ann_file": str(annotations)}
    ops = [
        {"type": "Resize", "size": size},
        {"type": "SanitizeBoundingBoxes"},
        {"type": "ConvertPILImage"},
        {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
    ]
    overrides = {
        "PResNet": {"pretrained": False},
        "RTDETRTransformerv2": {"num_queries": 100},  # thrice the objects of an image
        "eval_spatial_size": size,
        "output_dir": str(tmp_path),
        "device": "cpu",
        "use_amp": True,
        "use_ema": False,
        "optimizer": {"lr": 0.0005},
        "lr_warmup_scheduler": {"warmup_duration": 10},
        "train_dataloader": {
            "dataset": {
                **dataset,
                "transforms": {"ops": ops, "policy": {"name": "default", "ops": []}},
            }
        },
        "val_dataloader": {"dataset": dataset},
        "batch_size": 4,
        "num_workers": 0,
    }
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", **overrides)
    seed_everything(0)
    run = TrainingRun.create(cfg)
    batch = next(iter(cfg.train_dataloader))
    progress = EpochProgress(epoch=0, num_steps=STEPS)
    ap50 = 0.0
    while progress.step < STEPS and ap50 < 0.9:
        run.model.train()
        run.criterion.train()
        for _ in range(CHECK_EVERY):
            seed_everything(0, progress.step)
            train_step(run, *batch, progress)
            progress.step += 1
        result = evaluate(
            run.model,
            cfg.criterion,
            cfg.postprocessor,
            cfg.val_dataloader,
            cfg.evaluator,
            device=run.device,
            precision=run.amp.precision,
        )
        ap50 = result.stats["AP50"]
    return ap50, progress.step


def four_cells(bccd: Path, folder: Path) -> tuple[Path, Path]:
    """Return the first four validation images of BCCD: blood cells, up to thirty in an image."""
    split = find_splits(bccd, folder).val
    content = json.loads(split.ann_file.read_text())
    content["images"] = content["images"][:4]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    annotations = folder / "four.json"
    annotations.write_text(json.dumps(content))
    return split.img_folder, annotations


@pytest.mark.slow
def test_four_images_are_learned(tmp_path):
    """Photos of BCCD, the harder ones, or generated images where BCCD is missing."""
    if (bccd := bccd_folder()) is not None:
        images, side = four_cells(bccd, tmp_path), 160
    else:
        data = make_digits_dataset(tmp_path / "data", num_train=4, num_val=1)
        images, side = (data / "train", data / "annotations" / "instances_train.json"), 128
    ap50, steps = learn(tmp_path, *images, side=side)
    assert ap50 >= 0.9, f"AP50 {ap50:.3f} after {steps} steps"
