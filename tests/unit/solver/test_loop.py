"""The training loop of an epoch and the evaluation of a split."""

import copy
import math

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.robustness.precision import Precision
from rtdetrv2_pytorch.src.solver.loop import evaluate, train_one_epoch
from rtdetrv2_pytorch.src.solver.progress import EpochProgress, average_of
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import train_step
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from tests.tiny import tiny_config


def nothing(progress):
    pass


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


@pytest.fixture
def cfg(tmp_path, digits):
    return tiny_config(tmp_path, digits)


def test_average_of_the_losses():
    progress = EpochProgress(epoch=0, num_steps=2)
    assert average_of(progress.sums()) == progress.read_last() == {}
    progress.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    progress.add({"a": torch.tensor(3.0), "b": torch.tensor(0.0)})
    assert average_of(progress.sums()) == {"a": 2.0, "b": 2.0}
    assert progress.read_last() == {"a": 3.0, "b": 0.0}


def test_one_optimizer_step_per_batch(cfg):
    run = TrainingRun.create(cfg)
    before = weights(run)
    seen = []
    progress = train_one_epoch(run, stop=StopFlag(), after_step=lambda p: seen.append(p.step))
    assert seen == [1, 2, 3]
    assert (progress.step, progress.images, progress.skipped) == (3, 6, 0)
    assert run.global_step == 3
    assert run.ema.updates == 3
    assert run.warmup.last_step == 2
    assert not torch.equal(weights(run), before)


def test_gradient_accumulation_steps_once_per_group(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, grad_accum_steps=2)
    run = TrainingRun.create(cfg)
    train_one_epoch(run, stop=StopFlag(), after_step=nothing)
    assert run.ema.updates == 2  # batches 1 and 2 together, then 3


def test_accumulated_gradients_are_those_of_the_mean_loss(tmp_path, digits):
    """Two batches of three images, against the mean of their losses."""
    cfg = tiny_config(
        tmp_path,
        digits,
        grad_accum_steps=2,
        clip_max_norm=0.0,
        train_dataloader={"total_batch_size": 3},
        RTDETRTransformerv2={"num_denoising": 0},
        optimizer={"type": "SGD", "lr": 1.0, "weight_decay": 0.0, "params": []},
        lr_warmup_scheduler={"warmup_duration": 0},
    )
    run = TrainingRun.create(cfg)
    model = copy.deepcopy(run.model)
    before = weights(run)
    train_one_epoch(run, stop=StopFlag(), after_step=nothing)
    moved = before - weights(run)

    cfg.train_dataloader.set_epoch(0)
    model.train()
    batches = list(cfg.train_dataloader)
    assert len(batches) == 2
    losses = [
        sum(cfg.criterion(model(images, targets=targets), targets).values())
        for images, targets in batches
    ]
    (sum(losses) / 2).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(moved, gradient, rtol=1e-3, atol=1e-5)


def test_gradients_are_clipped_to_the_norm(tmp_path, digits):
    cfg = tiny_config(
        tmp_path,
        digits,
        clip_max_norm=0.1,
        train_dataloader={"total_batch_size": 6},
        optimizer={"type": "SGD", "lr": 1.0, "weight_decay": 0.0, "params": []},
        lr_warmup_scheduler={"warmup_duration": 0},
    )
    run = TrainingRun.create(cfg)
    before = weights(run)
    progress = train_one_epoch(run, stop=StopFlag(), after_step=nothing)
    assert float(progress.grad_norm) > 1
    assert float((before - weights(run)).norm()) == pytest.approx(0.1, rel=5e-3)


def test_stop_ends_the_epoch_after_the_current_step(cfg):
    run = TrainingRun.create(cfg)
    stop = StopFlag()
    progress = train_one_epoch(run, stop=stop, after_step=lambda p: stop.request("test"))
    assert progress.step == 1


def test_stop_waits_for_the_end_of_an_accumulation_group(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, grad_accum_steps=2)
    run = TrainingRun.create(cfg)
    stop = StopFlag()
    progress = train_one_epoch(run, stop=stop, after_step=lambda p: stop.request("test"))
    assert progress.step == 2
    assert run.ema.updates == 1


def test_random_numbers_of_a_step_do_not_depend_on_earlier_steps(tmp_path, digits):
    def losses_of_the_last_step(start_step):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, optimizer={"lr": 1e-30}, PResNet={"freeze_norm": True})
        run = TrainingRun.create(cfg)
        for module in run.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
        run.epoch, run.step = 1, start_step
        progress = train_one_epoch(
            run,
            stop=StopFlag(),
            after_step=nothing,
        )
        return progress.read_last()

    assert losses_of_the_last_step(0) == losses_of_the_last_step(2)


# Evaluation


def run_evaluation(cfg, **options):
    return evaluate(
        cfg.model,
        cfg.criterion,
        cfg.postprocessor,
        cfg.val_dataloader,
        cfg.evaluator,
        device=torch.device("cpu"),
        precision=Precision(torch.float32),
        **options,
    )


def test_evaluation_without_readable_images_raises(tmp_path, digits):
    folder = tmp_path / "val"
    folder.mkdir()
    for path in (digits / "val").iterdir():
        (folder / path.name).write_bytes(b"")
    cfg = tiny_config(tmp_path, digits, val_dataloader={"dataset": {"img_folder": str(folder)}})
    with pytest.raises(DatasetError, match="no image of the validation split can be read"):
        run_evaluation(cfg)


def test_validation_loss_does_not_depend_on_the_batch_size(tmp_path, digits):
    results = []
    for size in (1, 3, 4):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, val_dataloader={"total_batch_size": size})
        results.append(run_evaluation(cfg))
    assert results[0].loss > 0.1
    for result in results[1:]:
        assert result.losses == pytest.approx(results[0].losses, rel=1e-4)
        assert result.stats == pytest.approx(results[0].stats, abs=1e-6)


def test_validation_loss_equals_the_training_loss_of_the_same_images(tmp_path, digits):
    """Against the criterion with explicitly normalized boxes."""
    cfg = tiny_config(tmp_path, digits, val_dataloader={"total_batch_size": 4})
    result = run_evaluation(cfg)
    images, targets = next(iter(cfg.val_dataloader))
    for target in targets:
        x1, y1, x2, y2 = target["boxes"].unbind(1)
        boxes = [(x1 + x2) / 2 / 96, (y1 + y2) / 2 / 64, (x2 - x1) / 96, (y2 - y1) / 64]
        target["boxes"] = torch.stack(boxes, dim=1)
    with torch.no_grad():
        losses = cfg.criterion(cfg.model(images), targets)
    assert result.losses == pytest.approx({k: float(v) for k, v in losses.items()}, rel=1e-4)
    assert set(losses) == {"loss_vfl", "loss_bbox", "loss_giou"}


def test_perfect_predictions_have_ap_1(cfg):
    """Predictions are the annotations: sizes and labels must be mapped correctly."""
    truth = cfg.val_dataset.annotations

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.next_image = 0

        def forward(self, images):
            logits = torch.full((len(images), 12, 10), -20.0)
            boxes = torch.full((len(images), 12, 4), 0.5)
            for i in range(len(images)):
                record = truth[self.next_image]
                self.next_image += 1
                size = torch.tensor(record.size_wh * 2)
                for q, (box, label) in enumerate(
                    zip(record.boxes_xyxy, record.labels, strict=True)
                ):
                    x1, y1, x2, y2 = torch.tensor(box) / size
                    boxes[i, q] = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
                    logits[i, q, label] = 5.0
            return {"pred_logits": logits, "pred_boxes": boxes}

    cfg.model = Oracle()
    result = run_evaluation(cfg)
    assert result.stats["AP"] == pytest.approx(1.0)
    assert result.best.f1 == pytest.approx(1.0)
    assert result.losses["loss_bbox"] == pytest.approx(0.0, abs=1e-5)


def test_stopped_evaluation_returns_none(cfg):
    stop = StopFlag()
    seen = []

    def after_step(done, total):
        seen.append((done, total))
        stop.request("test")

    assert run_evaluation(cfg, stop=stop, after_step=after_step) is None
    assert seen == [(1, 2)]


def test_non_finite_losses_are_excluded_from_the_average():
    progress = EpochProgress(epoch=0, num_steps=3)
    for value in (1.0, math.nan, 3.0):
        progress.add({"a": torch.tensor(value), "b": torch.tensor(1.0)})
    assert average_of(progress.sums()) == {"a": 2.0, "b": 1.0}
    assert progress.read_last() == {"a": 3.0, "b": 1.0}


def test_average_of_a_resumed_epoch_includes_the_earlier_steps():
    before = EpochProgress(epoch=0, num_steps=3)
    for value in (1.0, 2.0):
        before.add({"a": torch.tensor(value)})
    assert before.sums() == {"a": 3.0, "steps": 2.0}
    after = EpochProgress(epoch=0, num_steps=3, step=2, before=before.sums())
    assert average_of(after.sums()) == {"a": 1.5}
    after.add({"a": torch.tensor(6.0)})
    assert average_of(after.sums()) == {"a": 3.0}
    other = EpochProgress(epoch=0, num_steps=3, step=2, before={"b": 9.0, "steps": 2.0})
    other.add({"a": torch.tensor(6.0)})
    assert average_of(other.sums()) == {"a": 6.0}


def test_compile_keeps_weight_names_and_excludes_the_ema(tmp_path, digits, monkeypatch):
    """With a fake compiler: the real one takes minutes."""
    calls = []

    def count(call, **options):
        return lambda *inputs: calls.append(options) or call(*inputs)

    plain = TrainingRun.create(tiny_config(tmp_path, digits, use_ema=True))
    monkeypatch.setattr(torch, "compile", count)
    cfg = tiny_config(tmp_path, digits, compile=True, use_ema=True)
    run = TrainingRun.create(cfg)
    assert list(run.model.state_dict()) == list(plain.model.state_dict())
    images, targets = next(iter(cfg.train_dataloader))
    train_step(run, images, targets, EpochProgress(0, 1))
    # The check of the compiler, then backbone and encoder.
    assert calls == [{}, {"dynamic": True}, {"dynamic": True}]
    run.ema.module(images[:1].float() / 255)
    assert len(calls) == 3
