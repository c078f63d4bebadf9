"""Components that YAML files can name. To add one, add an import and a line, and its role."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..data.augment import (
    box_transforms,
    cropping,
    degradation,
    geometric,
    mixing,
    photometric,
    transform,
)
from ..data.augment.compose import Compose
from ..data.augment.mosaic import Mosaic
from ..data.coco_dataset import CocoDetection
from ..data.loading.collate import BatchImageCollateFunction
from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import CocoEvaluator
from ..data.voc_dataset import VOCDetection
from ..misc.ranges import ImageSide, PositiveInt
from ..nn.hgnetv2 import HGNetv2
from ..nn.presnet import PResNet
from ..optim import factories
from ..optim.ema import ModelEMA
from ..optim.warmup import LinearWarmup
from ..zoo.rtdetr.criterion import RTDETRCriterionv2
from ..zoo.rtdetr.decoder import RTDETRTransformerv2
from ..zoo.rtdetr.hybrid_encoder import HybridEncoder
from ..zoo.rtdetr.matcher import HungarianMatcher
from ..zoo.rtdetr.postprocessor import RTDETRPostProcessor
from ..zoo.rtdetr.rtdetr import RTDETR

# Name in YAML -> constructor; its signature is the schema of the section.
COMPONENTS: dict[str, Callable[..., Any]] = {
    "RTDETR": RTDETR,
    "PResNet": PResNet,
    "HGNetv2": HGNetv2,
    "HybridEncoder": HybridEncoder,
    "RTDETRTransformerv2": RTDETRTransformerv2,
    "RTDETRCriterionv2": RTDETRCriterionv2,
    "HungarianMatcher": HungarianMatcher,
    "RTDETRPostProcessor": RTDETRPostProcessor,
    "AdamW": factories.adamw,
    "Adam": factories.adam,
    "SGD": factories.sgd,
    "MultiStepLR": factories.multi_step_lr,
    "CosineAnnealingLR": factories.cosine_annealing_lr,
    "FlatCosineLR": factories.flat_cosine_lr,
    "OneCycleLR": factories.one_cycle_lr,
    "LambdaLR": factories.lambda_lr,
    "LinearWarmup": LinearWarmup,
    "ModelEMA": ModelEMA,
    "GradScaler": factories.LossScaler,
    "DataLoader": DataLoader,
    "CocoDetection": CocoDetection,
    "VOCDetection": VOCDetection,
    "BatchImageCollateFunction": BatchImageCollateFunction,
    "CocoEvaluator": CocoEvaluator,
    "Compose": Compose,
    "EmptyTransform": transform.EmptyTransform,
    "RandomPhotometricDistort": photometric.RandomPhotometricDistort,
    "RandomZoomOut": geometric.RandomZoomOut,
    "RandomIoUCrop": cropping.RandomIoUCrop,
    "SanitizeBoundingBoxes": box_transforms.SanitizeBoundingBoxes,
    "RandomHorizontalFlip": geometric.RandomHorizontalFlip,
    "RandomVerticalFlip": geometric.RandomVerticalFlip,
    "RandomQuarterTurn": geometric.RandomQuarterTurn,
    "RandomAffine": geometric.RandomAffine,
    "RandomCrop": cropping.RandomCrop,
    "Resize": geometric.Resize,
    "PadToSize": geometric.PadToSize,
    "Mosaic": Mosaic,
    "MixUp": mixing.MixUp,
    "CopyPaste": mixing.CopyPaste,
    "RandomGrayscale": photometric.RandomGrayscale,
    "RandomBlur": degradation.RandomBlur,
    "RandomNoise": degradation.RandomNoise,
    "RandomJPEG": degradation.RandomJPEG,
    "Normalize": photometric.Normalize,
    "ConvertPILImage": transform.ConvertPILImage,
    "ConvertBoxes": box_transforms.ConvertBoxes,
}

# Alternative names in users' files.
ALIASES = {"BatchImageCollateFuncion": "BatchImageCollateFunction"}

# Components of RT-DETR v1, which public files of the same format name.
V1_COMPONENTS = frozenset({"RTDETRTransformer", "RTDETRCriterion", "SetCriterion"})

# Parts of a run with their types: each is the name of a component, or {type: name, ...}.
SLOTS: dict[str, type] = {
    "model": nn.Module,
    "criterion": nn.Module,
    "postprocessor": nn.Module,
    "optimizer": Optimizer,
    "lr_scheduler": LRScheduler,
    "lr_warmup_scheduler": LinearWarmup,
    "ema": ModelEMA,
    "scaler": GradScaler,
    "train_dataloader": DataLoader,
    "val_dataloader": DataLoader,
    "evaluator": CocoEvaluator,
}

BACKBONES = ("PResNet", "HGNetv2")

# Components for a slot or parameter whose type says too little: all of them are modules.
ROLES: dict[str, tuple[str, ...]] = {
    "model": ("RTDETR",),
    "criterion": ("RTDETRCriterionv2",),
    "postprocessor": ("RTDETRPostProcessor",),
    "backbone": BACKBONES,
    "encoder": ("HybridEncoder",),
    "decoder": ("RTDETRTransformerv2",),
}

# Top-level values that every component with a parameter of that name receives, with their types.
SHARED: dict[str, Any] = {
    "num_classes": PositiveInt,
    "eval_spatial_size": tuple[ImageSide, ImageSide] | None,
    "use_focal_loss": bool,
    "remap_mscoco_category": bool,
    "num_top_queries": PositiveInt,
}

# Parameters that the run provides; a section may not contain them.
FROM_THE_RUN = frozenset(
    {"params", "optimizer", "model", "lr_scheduler", "annotations", "categories", "pixel_range"}
    | {"repeat_threshold"}
)


def random_backbones() -> dict[str, dict[str, Any]]:
    """Return the values with which each backbone starts from random weights."""
    return {name: {"pretrained": False} for name in BACKBONES}
