"""A network and dataset with training steps of a tenth of a second on a CPU."""

from pathlib import Path
from typing import Any

import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge

CONFIGS = Path(__file__).parents[1] / "rtdetrv2_pytorch" / "configs"

NETWORK: dict[str, Any] = {
    "PResNet": {"pretrained": False},
    "HybridEncoder": {"hidden_dim": 32, "nhead": 2, "dim_feedforward": 32, "expansion": 0.5},
    "RTDETRTransformerv2": {
        "hidden_dim": 32,
        "nhead": 2,
        "feat_channels": [32, 32, 32],
        "dim_feedforward": 32,
        "num_layers": 2,
        "num_queries": 12,
        "num_denoising": 8,
    },
    "RTDETRPostProcessor": {"num_top_queries": 20},
}

# Without the last stage, which has three quarters of the weights, a training takes half the time.
SMALL_BACKBONE: dict[str, Any] = {
    "PResNet": {"num_stages": 3, "return_idx": [0, 1, 2]},
    "HybridEncoder": {"in_channels": [64, 128, 256], "feat_strides": [4, 8, 16]},
    "RTDETRTransformerv2": {"feat_strides": [4, 8, 16]},
}

# The published backbone, for trainings with the published checkpoints or losses.
WHOLE_BACKBONE: dict[str, Any] = {
    "PResNet": {"num_stages": 4, "return_idx": [1, 2, 3]},
    "HybridEncoder": {"in_channels": [128, 256, 512], "feat_strides": [8, 16, 32]},
    "RTDETRTransformerv2": {"feat_strides": [8, 16, 32]},
}

# Small, but able to overfit a few images.
SMALL_HEAD: dict[str, Any] = {
    "HybridEncoder": {"hidden_dim": 64, "nhead": 2, "dim_feedforward": 32, "expansion": 0.5},
    "RTDETRTransformerv2": {
        "hidden_dim": 64,
        "nhead": 2,
        "feat_channels": [64, 64, 64],
        "dim_feedforward": 32,
        "num_layers": 2,
        "num_queries": 30,
        "num_denoising": 8,
    },
    "RTDETRPostProcessor": {"num_top_queries": 50},
}


def data_section(data: Path, batch_size: int = 2) -> dict[str, Any]:
    """Return sections of both loaders for the digits in `data`, without workers."""
    return {
        f"{split}_dataloader": {
            "dataset": {
                "img_folder": str(data / split),
                "ann_file": str(data / "annotations" / f"instances_{split}.json"),
            },
            "total_batch_size": batch_size,
            "num_workers": 0,
        }
        for split in ("train", "val")
    }


def tiny_values(output: Path, data: Path) -> dict[str, Any]:
    """Return overrides that make the published recipe tiny."""
    run = {
        "output_dir": str(output),
        "eval_spatial_size": [64, 96],
        "epoches": 2,
        "device": "cpu",
        "use_amp": False,
        "seed": 7,
        "print_freq": 1,
        # Report and pictures have their own tests.
        "report": False,
        "pictures": False,
    }
    return merge(merge(merge(NETWORK, SMALL_BACKBONE), data_section(data)), run)


def tiny_config(output: Path, data: Path, **overrides: Any) -> YAMLConfig:
    """Return the published S recipe with the tiny overrides."""
    values = merge(tiny_values(output, data), overrides)
    return YAMLConfig(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", **values)


def tiny_file(path: Path, output: Path, data: Path, **overrides: Any) -> Path:
    """Write the tiny configuration to a YAML file."""
    values = merge(tiny_values(output, data), overrides)
    values["__include__"] = [str(CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml")]
    path.write_text(yaml.safe_dump(values))
    return path
