"""`YAMLConfig`: a run described by a YAML file, checked when opened and built on first use."""

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

from ..data.categories import CategoryTable
from ..data.dataset import DetectionDataset
from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import CocoEvaluator
from ..misc import distributed
from ..misc.devices import checked_device, named_device
from ..misc.errors import ConfigError, extra
from ..misc.limits import MAX_NETWORK_ELEMENTS, LimitedMetaDevice
from ..optim.ema import ModelEMA
from ..optim.param_groups import group_parameters
from ..optim.warmup import LinearWarmup
from . import yaml_files
from .build import Sections, convert, suggest
from .catalog import ALIASES, BACKBONES, COMPONENTS, SHARED, SLOTS
from .checks import check_transforms
from .error_places import OVERRIDES, located
from .fitting import fit_batch_size, fit_classes, fit_layers, fit_phases
from .settings import SETTING_NAMES, Settings
from .yaml_files import Layer, get

logger = logging.getLogger(__name__)

_DEFAULT_TYPES = {"ema": "ModelEMA", "scaler": "GradScaler"}


class YAMLConfig:
    """A run described by a YAML file and overrides.

    The constructor reads and checks everything and builds nothing, so that errors appear before
    data and GPU are used. Each part is built on first use, kept, and can be replaced by assignment
    (`cfg.model = mine`). `yaml_cfg` may be edited before a part is built; it is checked again then.

    Args:
        path: the file.
        tuning: checkpoint (path or URL) to fine-tune.
        resume: checkpoint of the run to resume.
        **overrides: merged over the file; nested dicts for nested keys.

    Raises:
        ConfigError: naming the first invalid key or value.
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
            values: content of a YAML file; includes are ignored.
            name: of the source, for error messages.

        Raises:
            ConfigError: naming the first invalid key or value.
        """
        own, cfg = yaml_files.plain(yaml_files.rename_keys(values)), cls.__new__(cls)
        cfg._open(Path(name), [Layer(name, own, own.get("epoches"))], {})
        return cfg

    def _open(self, path: Path, layers: list[Layer], own: dict[str, Any]) -> None:
        self.path, self.layers = path, layers
        inherited = yaml_files.merge_layers(layers).get("epoches")
        layers.append(Layer(OVERRIDES, own, own.get("epoches", inherited)))
        self.yaml_cfg: dict[str, Any] = yaml_files.merge_layers(layers)
        self._has_classes = False
        tuning, resume = own.get("tuning"), own.get("resume")
        if resume is not None and tuning is None:
            self.yaml_cfg.pop("tuning", None)  # of the base configuration
        if tuning is not None and resume is None:
            self.yaml_cfg.pop("resume", None)  # of the run that wrote the file
        with located(layers):
            self.notes = fit_layers(self.yaml_cfg, layers)
            self.check()

    # Settings

    @property
    def settings(self) -> Settings:
        """The settings of the run, checked."""
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
        """Number of epochs."""
        return self.settings.epoches

    @cached_property
    def device(self) -> torch.device:
        """Device to train on."""
        name = self.settings.device
        return checked_device(name or ("cuda" if torch.cuda.is_available() else "cpu"))

    # Checks

    def check(self) -> None:
        """Check all settings and sections.

        Raises:
            ConfigError: naming the first invalid key or value.
        """
        known = {*SETTING_NAMES, *SLOTS, *SHARED, *COMPONENTS, *ALIASES}
        for key in self.yaml_cfg:
            if key not in known:
                owners = [f"{name}.{key}" for name in self.sections().owners_of(key)]
                owners = [yaml_files.SYNONYMS[key]] if key in yaml_files.SYNONYMS else owners
                hint = f"; did you mean {' or '.join(owners)}?" if owners else suggest(key, known)
                raise ConfigError(f"unknown key {key!r}{hint}")
        if self.settings.device is not None:
            named_device(self.settings.device)
        sections = self.sections()
        for conflict in sections.conflicts():
            logger.warning(conflict)
        for name, section in self.yaml_cfg.items():
            if ALIASES.get(name, name) in COMPONENTS and section is not None:
                if not isinstance(section, dict):
                    raise ConfigError(f"{name} = {section!r}: give a mapping of its keys")
                sections.check_section(name, section)
        for slot, kind in SLOTS.items():
            description = self._slot(slot)
            if description is not None:
                sections.check(description, slot, kind=kind, given=("params", "epochs"))
        sections.parameter_rules(self._slot("optimizer"), self._parameter_rules())
        check_transforms(self.yaml_cfg)

    def _parameter_rules(self) -> Any:
        return get(self.yaml_cfg, ("optimizer", "params"))

    # Sections

    def sections(self, values: Mapping[str, Any] | None = None) -> Sections:
        """Return the sections of the configuration, or of other values, with its shared values."""
        shared = {
            key: convert(self.yaml_cfg[key], hint, key)
            for key, hint in SHARED.items()
            if self.yaml_cfg.get(key) is not None
        }
        return Sections(self.yaml_cfg if values is None else values, shared)

    def _slot(self, slot: str) -> Any:
        """Return the description of a part, with the settings of the run applied to it."""
        description = self.yaml_cfg.get(slot)
        if not isinstance(description, dict):
            return description
        description = dict(description)
        if slot == "optimizer":
            description.pop("params", None)  # rules for parameter groups, see `optimizer`
        if slot.endswith("_dataloader"):
            settings = self.settings
            if settings.batch_size is not None:
                description.pop("total_batch_size", None)
            sizes = {key: getattr(settings, key) for key in ("batch_size", "num_workers")}
            description |= {key: value for key, value in sizes.items() if value is not None}
        if slot in _DEFAULT_TYPES:
            given = {key: value for key, value in description.items() if value is not None}
            description = {"type": _DEFAULT_TYPES[slot], **given}
        return description

    def _build(self, slot: str, **given: Any) -> Any:
        description = self._slot(slot)
        if description is None:
            raise ConfigError(f"{self.path.name}: {slot!r} is not configured; add it")
        with located(self.layers):
            return self.sections().construct(description, slot, **given)

    # Classes

    @cached_property
    def categories(self) -> CategoryTable | None:
        """Classes of the training data; None if its annotation file does not exist."""
        return self.train_dataset.categories if self._train_annotations().is_file() else None

    @property
    def class_names(self) -> list[str] | None:
        """Class names in label order; None if the training data does not exist."""
        return list(self.categories.names) if self.categories else None

    def _train_annotations(self) -> Path:
        dataset = get(self.yaml_cfg, ("train_dataloader", "dataset")) or {}
        return Path(dataset.get("root", ""), dataset.get("ann_file") or "")

    def _resolve_classes(self) -> None:
        """Set the values of `yaml_cfg` that depend on the classes of the training data, once."""
        if not self._has_classes:
            self._has_classes = True
            if self.categories is not None:
                annotations = self._train_annotations()
                with located(self.layers):
                    fit_classes(self.yaml_cfg, self.layers, self.categories, annotations)

    # Network

    @cached_property
    def model(self) -> nn.Module:
        """The network. Pretrained backbone weights are skipped if a checkpoint replaces them."""
        self._resolve_classes()
        if self.settings.tuning or self.settings.resume:
            self.yaml_cfg = self._without_pretrained()
        self.build_meta_model()
        return self._build("model")

    def _without_pretrained(self) -> dict[str, Any]:
        return {
            key: {**value, "pretrained": False}
            if key in BACKBONES and isinstance(value, dict)
            else value
            for key, value in self.yaml_cfg.items()
        }

    def build_meta_model(self, max_elements: int = MAX_NETWORK_ELEMENTS) -> nn.Module:
        """Build the network on the meta device, to check its size before memory is allocated.

        Args:
            max_elements: limit for the elements of all its tensors together.

        Raises:
            ConfigError: if the network is larger.
        """
        sections = self.sections(self._without_pretrained())
        with LimitedMetaDevice(max_elements):
            model: nn.Module = sections.construct(self._slot("model"), "model")
        return model

    @cached_property
    def criterion(self) -> nn.Module:
        """The loss functions."""
        self._resolve_classes()
        return self._build("criterion")

    @cached_property
    def postprocessor(self) -> nn.Module:
        """Converts predictions to detections."""
        self._resolve_classes()
        return self._build("postprocessor")

    # Optimization

    @cached_property
    def optimizer(self) -> Optimizer:
        """The optimizer, with the parameter groups of `optimizer.params`."""
        rules = self.sections().parameter_rules(self._slot("optimizer"), self._parameter_rules())
        with located(self.layers):
            try:
                groups = group_parameters(self.model, rules)
            except ValueError as error:
                raise ConfigError(f"optimizer.params: {error}") from error
        return self._build("optimizer", params=groups)

    @cached_property
    def lr_scheduler(self) -> LRScheduler:
        """The learning rate schedule, stepped once per epoch."""
        return self._build("lr_scheduler", optimizer=self.optimizer, epochs=self.epoches)

    @cached_property
    def lr_warmup_scheduler(self) -> LinearWarmup | None:
        """The warm-up, stepped once per optimizer step; None if not configured."""
        if self.yaml_cfg.get("lr_warmup_scheduler") is None:
            return None
        return self._build("lr_warmup_scheduler", lr_scheduler=self.lr_scheduler)

    @cached_property
    def ema(self) -> ModelEMA | None:
        """The EMA of `model`; None without `use_ema`."""
        if not self.settings.use_ema:
            return None
        return self._build("ema", model=self.model)

    @cached_property
    def scaler(self) -> GradScaler | None:
        """The loss scaler; None without mixed precision or if not configured."""
        if not self.settings.use_amp or self.yaml_cfg.get("scaler") is None:
            return None
        return self._build("scaler", device=self.device.type)

    # Data

    @cached_property
    def train_dataset(self) -> DetectionDataset:
        """Training images."""
        # No shared values: they depend on the classes of this dataset.
        dataset = self._build_dataset("train_dataloader", shared={}, unreadable="replace")
        if not self._train_annotations().is_file():
            self._check_num_classes("train_dataloader", dataset)
        return dataset

    @cached_property
    def val_dataset(self) -> DetectionDataset:
        """Validation images, with the labels of the training data."""
        self._resolve_classes()
        dataset = self._build_dataset(
            "val_dataloader",
            shared=self.sections().shared,
            categories=self.categories,
            unreadable="skip",
        )
        if self.categories is None:
            self._check_num_classes("val_dataloader", dataset)
        return dataset

    def _build_dataset(
        self, slot: str, *, shared: Mapping[str, Any], **given: Any
    ) -> DetectionDataset:
        description = get(self.yaml_cfg, (slot, "dataset"))
        if description is None:
            raise ConfigError(f"{self.path.name}: '{slot}.dataset' is not configured; add it")
        for key in ("seed", "cache", "pixel_range"):
            given[key] = getattr(self.settings, key)
        sections = Sections(self.yaml_cfg, shared)
        with located(self.layers):
            built: DetectionDataset = sections.construct(description, f"{slot}.dataset", **given)
            return built

    def _check_num_classes(self, slot: str, dataset: DetectionDataset) -> None:
        found, expected = len(dataset.categories), self.yaml_cfg.get("num_classes", 80)
        if found != expected:
            raise ConfigError(
                f"num_classes = {expected}, but that of {slot}.dataset is {found}; use data and "
                "num_classes of the weights, or set the training annotations "
                "(train_dataloader.dataset.ann_file)"
            )

    @cached_property
    def train_dataloader(self) -> DataLoader:
        """Batches of augmented training images."""
        slot, dataset = "train_dataloader", self.train_dataset
        self.notes += fit_batch_size(self.yaml_cfg, self._slot(slot), len(dataset))
        loader = self._build_loader(slot, dataset, repeat_threshold=self.settings.repeat_threshold)
        self.notes += fit_phases(self.yaml_cfg, loader)
        return loader

    @cached_property
    def val_dataloader(self) -> DataLoader:
        """Batches of validation images."""
        return self._build_loader("val_dataloader", self.val_dataset)

    def _build_loader(self, slot: str, dataset: DetectionDataset, **given: Any) -> DataLoader:
        sections, seed = self.sections(), self.settings.seed
        description = self._slot(slot)
        description.pop("dataset")
        collate = description.pop("collate_fn", "BatchImageCollateFunction")
        with located(self.layers):
            collate_fn = sections.construct(collate, f"{slot}.collate_fn", seed=seed)
            given |= {"dataset": dataset, "collate_fn": collate_fn, "seed": seed}
            return sections.construct(description, slot, **given)

    # Results

    @cached_property
    def evaluator(self) -> CocoEvaluator:
        """COCO metrics of the validation split."""
        return self._build(
            "evaluator",
            annotations=self.val_dataset.annotations,
            labels_are_category_ids=bool(self.yaml_cfg.get("remap_mscoco_category")),
        )

    @cached_property
    def writer(self) -> Any:
        """The TensorBoard writer; None on ranks other than 0, or if `loggers` does not name it."""
        if not distributed.is_main() or "tensorboard" not in self.settings.loggers:
            return None
        with extra("train"):
            from torch.utils.tensorboard import SummaryWriter
        return SummaryWriter(str(self.settings.summary_dir or self.output_dir / "summary"))
