"""Run-wide scalars, as YAML files have them at their top level."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from ..misc.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for the whole run.

    Attributes:
        task: only detection.
        run_name: what people call the run, as in the title of its report; default: the name of its
            folder.
        output_dir: folder for checkpoints and logs.
        summary_dir: folder for TensorBoard; default: `output_dir`/summary.
        epoches: length of the run (the spelling of the public files; `epochs` works too).
        last_epoch: epoch just finished, when going on without a checkpoint.
        batch_size: images per rank for both loaders, instead of their own values.
        micro_batch_size: images per rank that training computes at once, if the batch does not
            fit into memory: gradients are added up to those of the whole batch. "auto" finds it
            out, on a GPU before the first epoch, with the largest size and the most boxes.
        num_workers: worker processes for both loaders, instead of their own values.
        cache: where both data sets keep decoded images, unless they say so themselves: "ram",
            "disk", or "none".
        device: "cuda", "cuda:1", "cpu", ...; default: a GPU if there is one.
        seed: of all randomness.
        use_amp: mixed precision; see `amp_dtype`.
        amp_dtype: "auto" is bfloat16 where the hardware has it, else float32; "float16" comes
            with loss scaling.
        compile: let `torch.compile` make kernels of backbone and encoder for training. It takes
            minutes before the first step, and pays where that is little of the run. Its kernels
            round otherwise, so losses are not those of a plain run, step by step (decision 0017).
        clip_max_norm: largest L2 norm of all gradients together; 0: no clipping.
        grad_accum_steps: batches whose gradients are added up for one optimizer step.
        use_ema: evaluate and keep a moving average of the weights.
        sync_bn: share batch statistics between ranks.
        rank_timeout_s: seconds that a rank waits for another before the run ends, naming it.
        find_unused_parameters: of data-parallel training.
        tuning: checkpoint to start from, whatever of it fits.
        resume: checkpoint to go on from, exactly.
        print_freq: training steps between two log lines.
        checkpoint_freq: epochs between two numbered checkpoints; 0: only best and last.
        keep_last: how many numbered checkpoints to keep; 0: all.
        save_optimizer: whether best and numbered checkpoints can be resumed from.
        save_ema: whether best and numbered checkpoints hold raw weights beside the average.
        patience: epochs without improvement after which training ends; 0: never.
        report: whether a run ends with `report.html` in its folder.
        pictures: whether augmented batches and validation images with their detections are drawn
            while it trains, in the run's folder and for TensorBoard.
        max_skipped_steps: steps in a row with non-finite losses after which training ends.
    """

    task: Literal["detection"] = "detection"
    run_name: str | None = None
    output_dir: str = "./output"
    summary_dir: str | None = None
    epoches: int = 72
    last_epoch: int = -1
    batch_size: int | None = None
    micro_batch_size: int | Literal["auto"] = "auto"
    num_workers: int | None = None
    cache: Literal["none", "ram", "disk"] = "none"
    device: str | None = None
    seed: int = 0
    use_amp: bool = False
    amp_dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    compile: bool = False
    clip_max_norm: float = 0.0
    grad_accum_steps: int = 1
    use_ema: bool = False
    sync_bn: bool = True
    rank_timeout_s: int = 120
    find_unused_parameters: bool = False
    tuning: str | None = None
    resume: str | None = None
    print_freq: int = 100
    checkpoint_freq: int = 1
    keep_last: int = 0
    save_optimizer: bool = False
    save_ema: bool = False
    patience: int = 0
    report: bool = True
    pictures: bool = True
    max_skipped_steps: int = 10

    def __post_init__(self) -> None:
        lowest = {
            "epoches": 1,
            "print_freq": 1,
            "grad_accum_steps": 1,
            "checkpoint_freq": 0,
            "keep_last": 0,
            "patience": 0,
            "clip_max_norm": 0,
            "max_skipped_steps": 1,
            "batch_size": 1,
            "micro_batch_size": 1,
            "num_workers": 0,
            "rank_timeout_s": 1,
        }
        for name, low in lowest.items():
            value: Any = getattr(self, name)
            if value not in (None, "auto") and value < low:
                raise ConfigError(f"{name} = {value!r}: must be at least {low}")
        if self.tuning and self.resume:
            raise ConfigError(
                f"tuning = {self.tuning!r} and resume = {self.resume!r}: give one of them; resume "
                "goes on with a run, tuning starts a new one from its weights"
            )


SETTING_NAMES = tuple(f.name for f in fields(Settings))
