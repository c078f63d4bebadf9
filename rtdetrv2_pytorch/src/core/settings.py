"""Settings of a run: the top-level scalars of a YAML file."""

from dataclasses import dataclass, fields
from typing import Literal

from ..data.augment.presets import AugmentationName
from ..data.images.pixel_range import checked_range
from ..misc.errors import ConfigError
from ..misc.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from ..timing.estimates import parse_duration

LoggerName = Literal["tensorboard", "wandb", "mlflow", "clearml"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run.

    Attributes:
        task: only detection.
        run_name: name of the run in its report; default: the name of its folder.
        output_dir: folder for checkpoints and logs.
        summary_dir: folder for TensorBoard; default: `output_dir`/summary.
        epoches: number of epochs (spelled as in the public files; `epochs` works too).
        time_budget: duration of the whole run, such as 30m or 2h; a number is hours. The number of
            epochs that fits is measured and replaces `epoches`, and the schedule is scaled to it.
            If training becomes slower than measured, epochs in the middle are skipped.
        last_epoch: index of the last finished epoch when training starts without a checkpoint.
        batch_size: images per rank for both loaders; replaces the loaders' own values.
        micro_batch_size: images per rank and forward pass if the batch does not fit in memory;
            gradients are accumulated to those of the whole batch. "auto" finds the size by trial,
            on a GPU before the first epoch with the largest image size and the most boxes.
        num_workers: worker processes of both loaders; replaces the loaders' own values.
        cache: where both datasets keep decoded images, unless they set it themselves: "ram",
            "disk" or "none".
        pixel_range: [low, high], the pixel values of images with more than 8 bits that become 0 and
            255, in the whole data set and in inference. Without it, the data doctor chooses a range
            if the range of the data type does not fit: 0..65535 for integers, 0..1 for floats.
        repeat_threshold: images of classes in fewer than this fraction of the training images are
            repeated within an epoch (repeat-factor sampling of LVIS); 0 disables it. The data
            doctor recommends a value.
        balanced_paste: probability that up to three objects of other images are pasted into a
            training image, chosen from all classes equally often, which helps rare classes most;
            not in the last epoch, and not after strong augmentation ends. 0 disables it, null keeps
            the operations of the configuration; published ones paste nothing.
        augmentation: augmentations for a kind of pictures, in place of those of the model's
            configuration: "photos", "aerial", "microscopy", "documents", "industrial", "light" or
            "none"; see docs/augmentation.md.
        recipe: "dense" adds mosaics, MixUp and the matchability-aware loss of DEIM
            (arXiv:2412.04234). Not recommended: short trainings lose AP, docs/accuracy.md.
        device: "cuda", "cuda:1", "cpu", ...; default: a GPU if available.
        seed: random seed.
        use_amp: mixed precision; see `amp_dtype`.
        amp_dtype: "auto" is bfloat16 if the hardware supports it, otherwise float32; "float16" uses
            loss scaling.
        compile: use `torch.compile` for backbone and encoder in training. Compilation takes minutes
            and pays off in long runs. Losses differ slightly from those without it (decision 0017).
        clip_max_norm: maximum L2 norm of all gradients together; 0 disables clipping.
        grad_accum_steps: batches per optimizer step; their gradients are accumulated.
        use_ema: evaluate and save EMA weights.
        sync_bn: synchronize batch statistics between ranks.
        rank_timeout_s: seconds that a rank waits for another one before the run fails with an error
            that names it.
        find_unused_parameters: option of DistributedDataParallel.
        tuning: checkpoint to fine-tune; weights that do not fit are skipped.
        resume: checkpoint of the run to resume.
        print_freq: training steps between two log lines.
        checkpoint_freq: epochs between numbered checkpoints; 0 saves only best and last.
        keep_last: number of numbered checkpoints to keep; 0 keeps all.
        save_optimizer: whether best and numbered checkpoints contain the optimizer, so that
            training can resume from them.
        save_ema: whether best and numbered checkpoints contain raw weights in addition to EMA
            weights.
        eval_freq: epochs between two evaluations; the last epoch is always evaluated. Only an
            evaluated epoch can become best.pth.
        patience: epochs without improvement before training stops, checked at every evaluation; 0
            disables early stopping.
        report: whether a run writes `report.html` to its folder when it ends.
        pictures: whether training saves augmented batches and validation images with detections to
            the run's folder and to the `loggers`, and draws the presets of `augmentation`.
        loggers: trackers that get metrics, images and files: "tensorboard", "wandb", "mlflow" and
            "clearml". All but TensorBoard need a package, for example
            `pip install 'rtdetrv2[wandb]'`.
        max_skipped_steps: consecutive steps with a non-finite loss before training stops.
    """

    task: Literal["detection"] = "detection"
    run_name: str | None = None
    output_dir: str = "./output"
    summary_dir: str | None = None
    epoches: PositiveInt = 72
    time_budget: PositiveFloat | str | None = None
    last_epoch: int = -1
    batch_size: PositiveInt | None = None
    micro_batch_size: PositiveInt | Literal["auto"] = "auto"
    num_workers: NonNegativeInt | None = None
    cache: Literal["none", "ram", "disk"] = "none"
    pixel_range: tuple[float, float] | None = None
    repeat_threshold: Fraction = 0.0
    balanced_paste: Fraction | None = None
    augmentation: AugmentationName | None = None
    recipe: Literal["dense"] | None = None
    device: str | None = None
    seed: NonNegativeInt = 0
    use_amp: bool = False
    amp_dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    compile: bool = False
    clip_max_norm: NonNegativeFloat = 0.0
    grad_accum_steps: PositiveInt = 1
    use_ema: bool = False
    sync_bn: bool = True
    rank_timeout_s: PositiveInt = 120
    find_unused_parameters: bool = False
    tuning: str | None = None
    resume: str | None = None
    print_freq: PositiveInt = 100
    checkpoint_freq: NonNegativeInt = 1
    keep_last: NonNegativeInt = 0
    save_optimizer: bool = False
    save_ema: bool = False
    eval_freq: PositiveInt = 1
    patience: NonNegativeInt = 0
    report: bool = True
    pictures: bool = True
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    max_skipped_steps: PositiveInt = 10

    def __post_init__(self) -> None:
        checked_range(self.pixel_range)
        if self.time_budget is not None:
            parse_duration(self.time_budget)
        if self.tuning and self.resume:
            raise ConfigError(
                f"tuning = {self.tuning!r} and resume = {self.resume!r}: give one of them; resume "
                "continues a run, tuning starts a new run from its weights"
            )


SETTING_NAMES = tuple(f.name for f in fields(Settings))
