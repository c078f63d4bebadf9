"""Checkpoints that really learned something, in seconds."""

import json
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import CONFIGS, SMALL_HEAD

SIZE_HW = [96, 128]  # non-square, as the images
_COPIES = 20  # of each training image in an epoch: they are learned by heart

_OPS = [
    {"type": "Resize", "size": SIZE_HW},
    {"type": "SanitizeBoundingBoxes"},
    {"type": "ConvertPILImage"},
    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
]
_RECIPE: dict[str, Any] = {
    **SMALL_HEAD,
    "epoches": 4,
    "eval_spatial_size": SIZE_HW,
    "use_ema": False,
    "device": "cpu",
    "use_amp": False,
    "seed": 7,
    "report": False,
    "pictures": False,
    "optimizer": {"type": "AdamW", "lr": 0.001, "params": []},
    "lr_scheduler": {"type": "MultiStepLR", "milestones": [3]},
    "lr_warmup_scheduler": {"type": "LinearWarmup", "warmup_duration": 5},
    "train_dataloader": {
        "collate_fn": {"scales": None},
        "dataset": {"transforms": {"ops": _OPS, "policy": {"name": "default", "ops": []}}},
    },
}


def train_by_heart(folder: Path, config: str, backbone: str) -> tuple[Path, Path]:
    """Train a published network with a small head on four images, which it is evaluated on, too.

    Args:
        folder: gets everything.
        config: name of the recipe.
        backbone: section of its backbone.

    Returns:
        The best checkpoint, and a COCO folder whose validation split are the four images.
    """
    data = make_digits_dataset(folder / "digits", num_train=4, num_val=1)
    ann_file = data / "annotations" / "instances_train.json"
    four = json.loads(ann_file.read_text())
    images = {"img_folder": str(data / "train")}
    (data / "annotations" / "instances_val.json").write_text(json.dumps(four))
    (data / "val").rename(data / "unused")
    (data / "val").symlink_to(data / "train", target_is_directory=True)
    often = folder / "often.json"
    often.write_text(json.dumps(_repeated(four)))
    overrides = merge(
        _RECIPE,
        {
            backbone: {"pretrained": False},
            "output_dir": str(folder / "output"),
            "train_dataloader": {"dataset": {**images, "ann_file": str(often)}},
            "val_dataloader": {"dataset": {**images, "ann_file": str(ann_file)}},
            "batch_size": 4,
            "num_workers": 0,
        },
    )
    result = DetSolver(YAMLConfig(CONFIGS / "rtdetrv2" / f"{config}.yml", **overrides)).fit()
    return result.checkpoints["best"], data


def _repeated(content: dict[str, Any]) -> dict[str, Any]:
    """The same images again and again, under new ids."""
    images, annotations = [], []
    for copy in range(_COPIES):
        shift = 1000 * copy
        images += [{**image, "id": image["id"] + shift} for image in content["images"]]
        annotations += [
            {**a, "id": a["id"] + 100 * shift, "image_id": a["image_id"] + shift}
            for a in content["annotations"]
        ]
    return {**content, "images": images, "annotations": annotations}
