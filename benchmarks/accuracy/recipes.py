"""Candidate recipes: values of the configuration that differ from the trainer's own rules.

`no-paste` is what `rtdetrv2 train` chooses, without pasted objects. Every other recipe changes one
thing in it; "lr-1e-3+cosine" combines two of them. The default of a data set is one of them. Steps,
images per step and image size belong to the data set, so no recipe may set them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from rtdetrv2_pytorch.src.data.augment.presets import PRESETS

REFERENCE = "no-paste"
_REFERENCE_VALUES = {"balanced_paste": 0}

_FIXED = (
    *("epoches", "epochs", "batch_size", "grad_accum_steps", "eval_spatial_size", "seed"),
    *("train_dataloader.total_batch_size", "train_dataloader.batch_size"),
)
_STRONG_UNTIL = "train_dataloader.dataset.transforms.policy.epoch"
_WARMUP = "lr_warmup_scheduler.warmup_duration"


@dataclass(frozen=True)
class OfSteps:
    """A fraction of the optimizer steps of the run."""

    fraction: float


@dataclass(frozen=True)
class OfEpochs:
    """A fraction of the epochs of the run."""

    fraction: float


@dataclass(frozen=True)
class EmaDecay:
    """The decay of an EMA that averages over a fraction of the optimizer steps."""

    fraction: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A candidate.

    Attributes:
        about: what it changes, for the page.
        update: values of the configuration by key, as for `rtdetrv2 train -u`.
        needs_weights: whether it is only sensible with pretrained weights.
        repeats_rare: whether images of rare classes are repeated in fewer epochs, with the
            threshold that the doctor recommends; only where classes are out of balance.
        average: number of epochs whose weights are averaged after the training, those with the
            highest AP; 0: the weights of the best epoch.
    """

    about: str
    update: Mapping[str, Any] = field(default_factory=dict)
    needs_weights: bool = False
    repeats_rare: bool = False
    average: int = 0

    def __post_init__(self) -> None:
        fixed = sorted(set(self.update) & set(_FIXED))
        if fixed:
            raise ValueError(f"recipe '{self.about}' sets {fixed}, which belong to the data set")

    def resolved(self, *, epochs: int, steps: int) -> dict[str, Any]:
        """Return the values for a run of this length.

        Args:
            epochs: of the run.
            steps: optimizer steps of the run.
        """
        return {key: _resolve(value, epochs, steps) for key, value in self.update.items()}


def _resolve(value: Any, epochs: int, steps: int) -> Any:
    match value:
        case OfSteps(fraction):
            return max(1, round(fraction * steps))
        case OfEpochs(fraction):
            return max(1, round(fraction * epochs))
        case EmaDecay(fraction):
            return round(1 - 1 / max(2, fraction * steps), 6)
    return value


def _ema(fraction: float) -> dict[str, Any]:
    return {"ema.decay": EmaDecay(fraction), "ema.warmups": OfSteps(fraction)}


def _flat_cosine(**options: float) -> dict[str, Any]:
    return {"lr_scheduler": {"type": "FlatCosineLR", **options}}


def _backbone_rate(lr: float) -> dict[str, Any]:
    """Return the parameter groups of S with an own learning rate for its backbone."""
    groups = [
        {"params": "^(?=.*backbone)(?!.*(?:norm|bn)).*$", "lr": lr},
        {"params": "^(?=.*(?:norm|bn)).*$", "weight_decay": 0.0},
    ]
    return {"optimizer.params": groups}


def _classification(loss: str, weight: float, **options: float) -> dict[str, Any]:
    """Return another classification loss than the varifocal one."""
    section = "RTDETRCriterionv2"
    return {
        f"{section}.losses": [loss, "boxes"],
        f"{section}.weight_dict.loss_{loss}": weight,
        **{f"{section}.{name}": value for name, value in options.items()},
    }


def _frozen(stages: int) -> dict[str, Any]:
    return {"PResNet.freeze_at": stages, "PResNet.freeze_norm": True}


RECIPES = {
    REFERENCE: Recipe(
        about="what `rtdetrv2 train` chooses, without pasted objects", update=_REFERENCE_VALUES
    ),
    # Learning rate; default: from random weights on a CPU 5e-4, or 2e-4 with fewer than 10 boxes
    # per batch (decision 0032); otherwise 1e-4
    **{
        f"lr-{name}": Recipe(about=f"learning rate {name}", update={"optimizer.lr": float(name)})
        for name in ("1e-4", "2e-4", "5e-4", "1e-3")
    },
    "warmup-1": Recipe(about="warm-up 1 % of the run", update={_WARMUP: OfSteps(0.01)}),
    "warmup-15": Recipe(about="warm-up 15 % of the run", update={_WARMUP: OfSteps(0.15)}),
    "cosine": Recipe(
        about="cosine decay from the first epoch", update=_flat_cosine(flat_fraction=0.0)
    ),
    "flat-80": Recipe(
        about="constant learning rate for 80 % of the run",
        update=_flat_cosine(flat_fraction=0.8),
    ),
    "decay-to-0": Recipe(
        about="decay to 0.5 % of the learning rate, not 5 %",
        update=_flat_cosine(min_fraction=0.005),
    ),
    # EMA; default: 5 % of the run
    "ema-2": Recipe(about="EMA over 2 % of the run", update=_ema(0.02)),
    "ema-10": Recipe(about="EMA over 10 % of the run", update=_ema(0.1)),
    # Augmentation; default: none and pasted objects in short trainings from random weights on a CPU
    # (decisions 0033, 0035), horizontal flips in other trainings on a CPU, strong on a GPU until
    # the last epochs
    "mirrored": Recipe(about="images mirrored at random", update={"augmentation": None}),
    "strong-50": Recipe(
        about="strong augmentation in the first half", update={_STRONG_UNTIL: OfEpochs(0.5)}
    ),
    "strong-80": Recipe(
        about="strong augmentation until 80 % of the run", update={_STRONG_UNTIL: OfEpochs(0.8)}
    ),
    **{
        f"augment-{name}": Recipe(
            about=f"`augmentation: {name}` until the last epoch", update={"augmentation": name}
        )
        for name in PRESETS
    },
    # Dense supervision, rare classes
    "dense": Recipe(about="`recipe: dense`", update={"recipe": "dense"}),
    "repeat-rare": Recipe(
        about="images of rare classes repeated, in about as many steps", repeats_rare=True
    ),
    "paste-balanced": Recipe(
        about="`balanced_paste: 0.5`: objects of all classes pasted equally often",
        update={"balanced_paste": 0.5},
    ),
    # Loss
    "mal": Recipe(
        about="matchability-aware loss, gamma 1.5", update=_classification("mal", 1.0, gamma=1.5)
    ),
    "focal": Recipe(
        about="focal loss with weight 2, alpha 0.25, gamma 2",
        update=_classification("focal", 2.0, alpha=0.25, gamma=2.0),
    ),
    # Optimization
    "clip-1": Recipe(about="gradients clipped at norm 1, not 0.1", update={"clip_max_norm": 1.0}),
    "weight-decay": Recipe(
        about="weight decay 0.01, not 0.0001", update={"optimizer.weight_decay": 0.01}
    ),
    "beta2-98": Recipe(
        about="second moment of AdamW over 50 steps (0.98), not 1000",
        update={"optimizer.betas": [0.9, 0.98]},
    ),
    "denoising-200": Recipe(
        about="200 denoising queries, not 100",
        update={"RTDETRTransformerv2.num_denoising": 200},
    ),
    # Layer-wise rates
    **{
        f"backbone-lr-{name}": Recipe(
            about=f"learning rate {name} of the backbone", update=_backbone_rate(float(name))
        )
        for name in ("1e-5", "1e-4")
    },
    "backbone-frozen-0": Recipe(
        about="stem and batch norms of the backbone frozen", update=_frozen(0), needs_weights=True
    ),
    "backbone-frozen-2": Recipe(
        about="stem, two stages and batch norms of the backbone frozen",
        update=_frozen(2),
        needs_weights=True,
    ),
    # Weight averaging
    "average-3": Recipe(
        about="mean of the weights of the three best epochs",
        update={"checkpoint_freq": 1},
        average=3,
    ),
    "published": Recipe(
        about="the COCO recipe, warm-up and EMA fitted: constant rate 1e-4, strong augmentation",
        update={
            "optimizer.lr": 1e-4,
            "lr_scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.1},
            _STRONG_UNTIL: OfEpochs(0.975),
        },
    ),
}


def find_recipe(name: str) -> Recipe:
    """Return a recipe, or a combination of recipes joined by "+", with the reference's values.

    Raises:
        ValueError: if a name is unknown, or two recipes set the same key.
    """
    parts = name.split("+")
    unknown = [part for part in parts if part not in RECIPES]
    if unknown:
        raise ValueError(f"unknown recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    found = [RECIPES[part] for part in parts]
    keys = [key for each in found for key in each.update]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"recipe {name}: {', '.join(twice)} is set twice")
    return Recipe(
        about="; ".join(each.about for each in found),
        update=_REFERENCE_VALUES
        | {key: value for each in found for key, value in each.update.items()},
        needs_weights=any(each.needs_weights for each in found),
        repeats_rare=any(each.repeats_rare for each in found),
        average=max(each.average for each in found),
    )


def assignments(values: Mapping[str, Any]) -> list[str]:
    """Return the values as `key=value` for `rtdetrv2 train -u`."""
    return [f"{key}={_as_yaml(value)}" for key, value in values.items()]


def _as_yaml(value: Any) -> str:
    """Return a value in one line of YAML, in which 1e-05 of JSON would be a string."""
    text = yaml.safe_dump({"v": value}, default_flow_style=True, width=1_000_000)
    return text.strip().removeprefix("{v: ").removesuffix("}")
