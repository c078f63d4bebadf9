"""A checkpoint overfitted to four images, trained once for all test processes."""

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import CONFIGS, SMALL_BACKBONE, SMALL_HEAD

SIZE_HW = [96, 128]  # non-square, as the images
_COPIES = 22  # of each training image per epoch

_OPS = [
    {"type": "Resize", "size": SIZE_HW},
    {"type": "SanitizeBoundingBoxes"},
    {"type": "ConvertPILImage"},
    {"type": "ConvertBoxes", "fmt": "cxcywh", "normalize": True},
]
# So that rounding in bfloat16 does not change which objects get a query.
_MORE_QUERIES: dict[str, Any] = {"RTDETRTransformerv2": {"num_queries": 100}}
_RECIPE: dict[str, Any] = {
    **merge(merge(SMALL_HEAD, SMALL_BACKBONE), _MORE_QUERIES),
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


def overfitted_checkpoint(tmp_path_factory) -> tuple[Path, Path]:
    """Train RT-DETRv2-S with a small head on four images; the processes of a test run share it.

    Returns:
        The best checkpoint, and a COCO folder whose validation split is the four images.
    """
    root = tmp_path_factory.getbasetemp()
    if root.name.startswith("popen-"):  # a worker of pytest-xdist
        root = root.parent
    folder = root / "overfitted"
    with FileLock(root / "overfitted.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            _train(folder)
            (folder / "done").touch()
    return folder / "output" / "best.pth", folder / "digits"


def _train(folder: Path) -> None:
    data = make_digits_dataset(folder / "digits", num_train=4, num_val=1)
    ann_file = data / "annotations" / "instances_train.json"
    four = json.loads(ann_file.read_text())
    images = {"img_folder": str(data / "train")}
    (data / "annotations" / "instances_val.json").write_text(json.dumps(four))
    (data / "val").rename(data / "unused")
    (data / "val").symlink_to(data / "train", target_is_directory=True)
    repeated = folder / "repeated.json"
    repeated.write_text(json.dumps(_repeated(four)))
    overrides = merge(
        _RECIPE,
        {
            "PResNet": {"pretrained": False},
            "output_dir": str(folder / "output"),
            "train_dataloader": {"dataset": {**images, "ann_file": str(repeated)}},
            "val_dataloader": {"dataset": {**images, "ann_file": str(ann_file)}},
            "batch_size": 4,
            "num_workers": 0,
        },
    )
    config = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
    DetSolver(YAMLConfig(config, **overrides)).fit()


def _repeated(content: dict[str, Any]) -> dict[str, Any]:
    """Return `_COPIES` copies of all images under new ids."""
    images, annotations = [], []
    for copy in range(_COPIES):
        shift = 1000 * copy
        images += [{**image, "id": image["id"] + shift} for image in content["images"]]
        annotations += [
            {**a, "id": a["id"] + 100 * shift, "image_id": a["image_id"] + shift}
            for a in content["annotations"]
        ]
    return {**content, "images": images, "annotations": annotations}
