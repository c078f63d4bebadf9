"""`YAMLConfig`: a configuration file, checked when it is opened, built when it is used."""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.tensorboard import SummaryWriter

from ..data.categories import CategoryTable
from ..data.dataset import DetectionDataset
from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import CocoEvaluator
from ..misc import distributed
from ..misc.devices import checked_device, named_device
from ..misc.errors import ConfigError
from ..misc.limits import MAX_NETWORK_ELEMENTS, Blueprint
from ..optim.ema import ModelEMA
from ..optim.param_groups import group_parameters
from ..optim.warmup import LinearWarmup
from . import yaml_files
from .build import Sections, convert, suggest
from .catalog import ALIASES, COMPONENTS, SHARED, SLOTS
from .fitting import drop_leftovers, fit_epochs, fit_image_sizes
from .settings import SETTING_NAMES, Settings
from .yaml_files import Layer, get

logger = logging.getLogger(__name__)

_TRAIN_DATASET = ("train_dataloader", "dataset")
_BACKBONES = ("PResNet", "HGNetv2")


class YAMLConfig:
    """A run, described by a YAML file and overrides.

    The constructor reads and checks everything and builds nothing: a typo fails here, before data
    or GPU are touched. Each part is built when it is first used, kept, and can be replaced by
    assignment (`cfg.model = mine`). `yaml_cfg` may be edited before a part is built; it is checked
    again then.

    Args:
        path: the file.
        tuning: checkpoint (path or URL) whose fitting weights to start from.
        resume: checkpoint to go on from, exactly.
        **overrides: merged on top of the file; nested dicts for nested keys.

    Raises:
        ConfigError: naming the first thing that is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tuning: str | None = None,
        resume: str | None = None,
        **overrides: Any,
    ) -> None:
        own = yaml_files.plain(yaml_files.rename_keys(overrides))
        own |= {k: v for k, v in (("tuning", tuning), ("resume", resume)) if v is not None}
        self._open(Path(path), yaml_files.read_layers(path), own)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], *, name: str) -> "YAMLConfig":
        """Open a configuration that is not in a file, such as the one in a checkpoint.

        Args:
            values: what a file would say; includes are not followed.
            name: of where they come from, for messages.

        Raises:
            ConfigError: naming the first thing that is wrong.
        """
        own: dict[str, Any] = yaml_files.plain(yaml_files.rename_keys(values))
        cfg = cls.__new__(cls)
        cfg._open(Path(name), [Layer(name, own, own.get("epoches"))], {})
        return cfg

    def _open(self, path: Path, layers: list[Layer], own: dict[str, Any]) -> None:
        self.path = path
        inherited = yaml_files.merge_layers(layers).get("epoches")
        layers.append(Layer("overrides", own, own.get("epoches", inherited)))
        self.layers = layers
        self.yaml_cfg: dict[str, Any] = yaml_files.merge_layers(layers)
        tuning, resume = own.get("tuning"), own.get("resume")
        if resume is not None and tuning is None:
            self.yaml_cfg.pop("tuning", None)  # a recipe's starting point, long left behind
        if tuning is not None and resume is None:
            self.yaml_cfg.pop("resume", None)  # of the run that wrote the file
        self.notes = [
            note
            for fit in (drop_leftovers, fit_image_sizes, fit_epochs)
            for note in fit(self.yaml_cfg, layers)
        ]
        self.check()

    # Settings

    @property
    def settings(self) -> Settings:
        """The run-wide scalars, checked."""
        hints = Settings.__annotations__
        values = {
            k: convert(v, hints[k], k)
            for k, v in self.yaml_cfg.items()
            if k in SETTING_NAMES and not (v is None and k in ("seed", "device"))
        }
        return Settings(**values)

    @property
    def output_dir(self) -> Path:
        """Folder for checkpoints and logs."""
        return Path(self.settings.output_dir)

    @property
    def epoches(self) -> int:
        """Length of the run."""
        return self.settings.epoches

    @cached_property
    def device(self) -> torch.device:
        """Where to train."""
        name = self.settings.device
        return checked_device(name or ("cuda" if torch.cuda.is_available() else "cpu"))

    # Checks

    def check(self) -> None:
        """Check all settings and sections.

        Raises:
            ConfigError: naming the first key or value that is wrong.
        """
        known = {*SETTING_NAMES, *SLOTS, *SHARED, *COMPONENTS, *ALIASES}
        for key in self.yaml_cfg:
            if key not in known:
                owners = [f"{name}.{key}" for name in self._sections().owners_of(key)]
                hint = f"; did you mean {' or '.join(owners)}?" if owners else suggest(key, known)
                raise ConfigError(f"{self.path.name}: unknown key {key!r}{hint}")
        if self.settings.device is not None:
            named_device(self.settings.device)
        sections = self._sections()
        for conflict in sections.conflicts():
            logger.warning(conflict)
        for name, section in self.yaml_cfg.items():
            if ALIASES.get(name, name) in COMPONENTS and section is not None:
                if not isinstance(section, dict):
                    raise ConfigError(f"{name} = {section!r}: give a mapping of its keys")
                sections.check_section(name, section)
        for slot in SLOTS:
            description = self._slot(slot)
            if description is not None:
                sections.check(description, slot, given=("params", "epochs"))
        sections.parameter_rules(self._slot("optimizer"), self._parameter_rules())
        self._check_policies()
        self._check_training_boxes()

    def _parameter_rules(self) -> Any:
        return get(self.yaml_cfg, ("optimizer", "params"))

    def _check_policies(self) -> None:
        for slot in ("train_dataloader", "val_dataloader"):
            path = (slot, "dataset", "transforms", "policy", "ops")
            for name in get(self.yaml_cfg, path) or ():
                if name not in COMPONENTS:
                    hint = suggest(str(name), COMPONENTS)
                    raise ConfigError(f"{'.'.join(path)}: unknown operation {name!r}{hint}")

    def _check_training_boxes(self) -> None:
        ops = get(self.yaml_cfg, ("train_dataloader", "dataset", "transforms", "ops"))
        last = next((op for op in ops or [] if op.get("type") == "ConvertBoxes"), None)
        if ops and (not last or last.get("fmt") != "cxcywh" or not last.get("normalize")):
            raise ConfigError(
                "train_dataloader.dataset.transforms.ops: must end with "
                "{type: ConvertBoxes, fmt: cxcywh, normalize: true}; the losses need boxes 0..1"
            )

    def _sections(self, values: Mapping[str, Any] | None = None) -> Sections:
        shared = {
            key: convert(self.yaml_cfg[key], hint, key)
            for key, hint in SHARED.items()
            if self.yaml_cfg.get(key) is not None
        }
        return Sections(self.yaml_cfg if values is None else values, shared)

    def _slot(self, slot: str) -> Any:
        """The description of a part, without keys that are for the run to interpret."""
        description = self.yaml_cfg.get(slot)
        if not isinstance(description, dict):
            return description
        description = dict(description)
        if slot == "optimizer":
            description.pop("params", None)  # rules for groups, applied by `optimizer`
        if slot.endswith("_dataloader"):
            settings = self.settings
            if settings.batch_size is not None:
                description.pop("total_batch_size", None)
            for key in ("batch_size", "num_workers"):
                if getattr(settings, key) is not None:
                    description[key] = getattr(settings, key)
        if slot in ("ema", "scaler") and "type" not in description:
            description["type"] = {"ema": "ModelEMA", "scaler": "GradScaler"}[slot]
        return description

    def _build(self, slot: str, **given: Any) -> Any:
        description = self._slot(slot)
        if description is None:
            raise ConfigError(f"{self.path.name}: {slot!r} is not configured")
        return self._sections().construct(description, slot, **given)

    # Classes

    @cached_property
    def categories(self) -> CategoryTable | None:
        """The table of classes of the training data; None where there is no such data here.

        `num_classes` and `remap_mscoco_category` follow from it, unless they were chosen beside
        the data or after it: then they have to agree.
        """
        dataset = get(self.yaml_cfg, _TRAIN_DATASET) or {}
        annotations = Path(dataset.get("root", ""), dataset.get("ann_file") or "")
        if not annotations.is_file():
            return None
        # Without the shared values: they follow from this data set, not the other way round.
        self.train_dataset = Sections(self.yaml_cfg, {}).construct(
            dataset, "train_dataloader.dataset", unreadable="replace", **self._of_the_run()
        )
        table = self.train_dataset.categories
        chosen_at = max(
            yaml_files.last_setter(self.layers, (*_TRAIN_DATASET, key))
            for key in ("ann_file", "root", "label_file")
        )
        facts = {"num_classes": len(table), "remap_mscoco_category": table.is_mscoco}
        for key, fact in facts.items():
            value = self.yaml_cfg.get(key)
            if yaml_files.last_setter(self.layers, (key,)) < chosen_at:
                self.yaml_cfg[key] = fact
            elif key == "num_classes" and value != fact:
                names = ", ".join(table.names[:5]) + (", ..." if fact > 5 else "")
                raise ConfigError(
                    f"num_classes = {value}, but {annotations} has {fact} classes ({names}); "
                    "leave num_classes out, it is read from the data"
                )
            elif value and not fact:
                raise ConfigError(
                    f"remap_mscoco_category = {value}, but {annotations} does not have COCO's own "
                    "80 categories; leave it out, or set it to false"
                )
        return table

    @property
    def class_names(self) -> list[str] | None:
        """Names in label order, where the data is here to tell."""
        return list(self.categories.names) if self.categories else None

    # Parts

    @cached_property
    def model(self) -> nn.Module:
        """The network; without its ImageNet weights where a checkpoint is going to replace them."""
        _ = self.categories
        if self.settings.tuning or self.settings.resume:
            self.yaml_cfg = self._without_pretrained()
        self.draw_model()
        return self._build("model")

    def _without_pretrained(self) -> dict[str, Any]:
        return {
            key: {**value, "pretrained": False}
            if key in _BACKBONES and isinstance(value, dict)
            else value
            for key, value in self.yaml_cfg.items()
        }

    def draw_model(self, max_elements: int = MAX_NETWORK_ELEMENTS) -> nn.Module:
        """The network with shapes and no memory: a few words may describe one that fits nowhere.

        Args:
            max_elements: that all tensors made for it may have together.

        Raises:
            ConfigError: if they have more.
        """
        sections = self._sections(self._without_pretrained())
        with Blueprint(max_elements):
            drawn: nn.Module = sections.construct(self._slot("model"), "model")
        return drawn

    @cached_property
    def criterion(self) -> nn.Module:
        """The losses."""
        _ = self.categories
        return self._build("criterion")

    @cached_property
    def postprocessor(self) -> nn.Module:
        """From predictions to detections."""
        _ = self.categories
        return self._build("postprocessor")

    @cached_property
    def optimizer(self) -> Optimizer:
        """The optimizer, over the parameters of `model` in the groups that the file asks for."""
        rules = self._sections().parameter_rules(self._slot("optimizer"), self._parameter_rules())
        try:
            groups = group_parameters(self.model, rules)
        except ValueError as error:
            raise ConfigError(f"optimizer.params: {error}") from error
        return self._build("optimizer", params=groups)

    @cached_property
    def lr_scheduler(self) -> LRScheduler:
        """The epoch-wise schedule of the learning rate."""
        return self._build("lr_scheduler", optimizer=self.optimizer, epochs=self.epoches)

    @cached_property
    def lr_warmup_scheduler(self) -> LinearWarmup | None:
        """The warm-up on top of it, if there is one."""
        if self.yaml_cfg.get("lr_warmup_scheduler") is None:
            return None
        return self._build("lr_warmup_scheduler", lr_scheduler=self.lr_scheduler)

    @cached_property
    def ema(self) -> ModelEMA | None:
        """The moving average of `model`'s weights, if the run uses one."""
        if not self.settings.use_ema:
            return None
        return self._build("ema", model=self.model)

    @cached_property
    def scaler(self) -> GradScaler | None:
        """The loss scaler, if the run uses mixed precision and one is configured."""
        if not self.settings.use_amp or self.yaml_cfg.get("scaler") is None:
            return None
        return self._build("scaler", device_type=self.device.type)

    @cached_property
    def train_dataset(self) -> DetectionDataset:
        """The training images."""
        if self.categories is not None:
            return self.train_dataset  # built while the classes were read
        return self._dataset("train_dataloader", unreadable="replace")

    @cached_property
    def val_dataset(self) -> DetectionDataset:
        """The validation images."""
        return self._dataset("val_dataloader", unreadable="skip")

    def _dataset(self, slot: str, **given: Any) -> DetectionDataset:
        table = self.categories
        description = get(self.yaml_cfg, (slot, "dataset"))
        if description is None:
            raise ConfigError(f"{self.path.name}: '{slot}.dataset' is not configured")
        dataset: DetectionDataset = self._sections().construct(
            description, f"{slot}.dataset", categories=table, **self._of_the_run(), **given
        )
        found, wanted = len(dataset.categories), self.yaml_cfg.get("num_classes", 80)
        if table is None and found != wanted:  # without training data to read them from
            raise ConfigError(
                f"num_classes = {wanted}, but {slot}.dataset has {found} classes; set num_classes "
                "to that of the weights and use data of those classes, or name the training "
                "split's annotations (train_dataloader.dataset.ann_file)"
            )
        return dataset

    def _of_the_run(self) -> dict[str, Any]:
        """What data sets take from the run, unless their section says otherwise."""
        return {"seed": self.settings.seed, "cache": self.settings.cache}

    @cached_property
    def train_dataloader(self) -> DataLoader:
        """Augmented batches for training."""
        return self._loader("train_dataloader", self.train_dataset)

    @cached_property
    def val_dataloader(self) -> DataLoader:
        """Batches for validation."""
        return self._loader("val_dataloader", self.val_dataset)

    def _loader(self, slot: str, dataset: DetectionDataset) -> DataLoader:
        sections, seed = self._sections(), self.settings.seed
        description = self._slot(slot)
        description.pop("dataset")
        collate = description.pop("collate_fn", "BatchImageCollateFunction")
        collate_fn = sections.construct(collate, f"{slot}.collate_fn", seed=seed)
        return sections.construct(
            description, slot, dataset=dataset, collate_fn=collate_fn, seed=seed
        )

    @cached_property
    def evaluator(self) -> CocoEvaluator:
        """COCO metrics of the validation split."""
        return self._build(
            "evaluator",
            annotations=self.val_dataset.annotations,
            labels_are_category_ids=bool(self.yaml_cfg.get("remap_mscoco_category")),
        )

    @cached_property
    def writer(self) -> SummaryWriter | None:
        """TensorBoard, on the main rank."""
        if not distributed.is_main():
            return None
        folder = self.settings.summary_dir or self.output_dir / "summary"
        return SummaryWriter(str(folder))
