"""Recovery of training steps. The out-of-memory errors are fake: the tests run without a GPU."""

import json

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import OutOfMemory, TrainingDiverged
from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.robustness.probing import worst_batch
from rtdetrv2_pytorch.src.solver.loop import evaluate, train_one_epoch
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.solver import find_micro_batch_of
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from tests.failing_models import NonFiniteCriterion, SmallMemory
from tests.tiny import tiny_config


def all_numbers(run):
    return torch.cat(
        [t.flatten() for t in run.model.state_dict().values() if t.is_floating_point()]
    ).nan_to_num()


def run_epoch(run, epoch=0):
    run.epoch = epoch
    return train_one_epoch(run, stop=StopFlag(), after_step=lambda p: None)


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_retried_step_equals_one_with_small_micro_batches(tmp_path, digits, fails_in, caplog):
    """With batch norm and denoising: failed attempts change neither statistics nor noise."""
    options = {"train_dataloader": {"total_batch_size": 6}, "grad_accum_steps": 1}
    results = []
    for is_faked in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, **options)
        run = TrainingRun.create(cfg)
        if is_faked:
            run.model = SmallMemory(run.model, 2, fails_in=fails_in)
        else:
            run.recovery.micro_batches.size = 1
        progress = run_epoch(run)
        results.append((progress.read_last(), all_numbers(run), run))
    (divided, numbers, _), (retried, retried_numbers, run) = results
    assert run.model.seen == [6, 3, 1, 1, 1, 1, 1, 1]
    assert run.recovery.micro_batches.size == 1
    assert retried == divided
    assert torch.equal(retried_numbers, numbers)
    assert caplog.text.count("does not fit in memory") == 2
    assert (run.ema.updates, run.recovery.guard._skipped) == (1, 0)


def test_retry_recomputes_the_whole_accumulation_group(tmp_path, digits):
    """The second batch runs out of memory: the gradients of the first are computed again."""
    results = []
    for is_faked in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(
            tmp_path, digits, grad_accum_steps=3, train_dataloader={"total_batch_size": 2}
        )
        run = TrainingRun.create(cfg)
        if is_faked:
            run.model = SmallMemory(run.model, 9, fails_in="backward")
            accumulate = run.criterion.forward

            def tighter(*args, run=run, accumulate=accumulate, **place):
                run.model.limit = 1 if place["step"] >= 0 and len(run.model.seen) >= 2 else 9
                return accumulate(*args, **place)

            run.criterion.forward = tighter
        else:
            run.recovery.micro_batches.size = 1
        run_epoch(run)
        results.append((all_numbers(run), run))
    assert results[1][1].model.seen == [2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert torch.equal(results[0][0], results[1][0])


def test_single_image_out_of_memory_raises(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits)
    run = TrainingRun.create(cfg)
    run.model = SmallMemory(run.model, 0)
    with pytest.raises(OutOfMemory, match="a single image does not fit.*smaller eval_spatial_size"):
        run_epoch(run)


def test_evaluation_in_micro_batches_has_the_same_metrics(tmp_path, digits):
    results = []
    for limit in (9, 1):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, val_dataloader={"total_batch_size": 4})
        model = SmallMemory(cfg.model, limit)
        results.append(
            evaluate(
                model,
                cfg.criterion,
                cfg.postprocessor,
                cfg.val_dataloader,
                cfg.evaluator,
                device=torch.device("cpu"),
                precision=precision.Precision(torch.float32),
            )
        )
    assert model.seen == [4, 2, 1, 1, 1, 1]
    assert results[1].losses == pytest.approx(results[0].losses, rel=1e-4)
    assert results[1].num_images == results[0].num_images == 4
    assert results[1].stats == pytest.approx(results[0].stats, abs=1e-6)


def test_worst_batch_has_the_largest_size_and_the_most_boxes(tmp_path, digits):
    cfg = tiny_config(
        tmp_path,
        digits,
        train_dataloader={"total_batch_size": 3, "collate_fn": {"scales": [64, 128, 96]}},
    )
    batch = worst_batch(cfg.train_dataloader)
    ann = json.loads((digits / "annotations/instances_train.json").read_text())["annotations"]
    owners = [a["image_id"] for a in ann]
    most = max(owners.count(i) for i in set(owners))
    assert batch.size_hw == (96, 128)  # 64x96 with its longer side at 128: 85 is near 96
    assert [len(t["labels"]) for t in batch.targets] == [most] * 3
    assert batch.images.shape == (3, 3, 64, 96)


@pytest.mark.parametrize(("limit", "expected"), [(9, None), (3, 3), (2, 1)])
def test_probe_finds_the_micro_batch_and_changes_nothing(tmp_path, digits, limit, expected):
    curves = []
    for is_probed in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6})
        run = TrainingRun.create(cfg)
        if is_probed:
            before = all_numbers(run)
            real, small = run.model, SmallMemory(run.model, limit)
            run.model = small
            run.recovery.micro_batches.size = find_micro_batch_of(run)
            assert torch.equal(before, all_numbers(run))
            assert small.seen[0] == 6
            assert run.recovery.micro_batches.size == expected
            run.model, run.recovery.micro_batches.size = real, None
        curves.append(run_epoch(run).read_last())
    assert curves[0] == curves[1]


def test_probe_ignores_non_finite_losses(tmp_path, digits):
    """The training loop handles them."""
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6})
    run = TrainingRun.create(cfg)
    run.model = SmallMemory(run.model, 3)
    run.criterion = NonFiniteCriterion(run.criterion, lambda place: True, "outputs")
    before = all_numbers(run)
    run.recovery.micro_batches.size = find_micro_batch_of(run)
    assert run.recovery.micro_batches.size == 3
    assert torch.equal(before, all_numbers(run))


@pytest.mark.parametrize("what", ["outputs", "loss"])
def test_non_finite_batch_is_skipped_and_described(tmp_path, digits, what):
    cfg = tiny_config(tmp_path, digits)
    run = TrainingRun.create(cfg)
    run.criterion = NonFiniteCriterion(run.criterion, lambda place: place["global_step"] == 1, what)
    seen = []
    cfg.train_dataloader.set_epoch(0)
    expected = list(cfg.train_dataloader)[1][1]
    progress = train_one_epoch(
        run,
        stop=StopFlag(),
        after_step=lambda p: seen.append(all_numbers(run)),
    )
    assert progress.skipped == 1
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])

    (path,) = (tmp_path / "bad_batches").iterdir()
    assert path.name == "epoch0000_step000001_rank0.json"
    content = json.loads(path.read_text())
    assert (content["epoch"], content["step"], content["precision"]) == (0, 1, "float32")
    assert "not finite for images with ids" in content["error"]
    for image, target in zip(content["images"], expected, strict=True):
        assert image["image_id"] == int(target["image_id"])
        assert image["labels"] == target["labels"].tolist()
        torch.testing.assert_close(torch.tensor(image["boxes_cxcywh"]), target["boxes"])
        assert (digits / "train" / image["file_name"]).is_file()
    if what == "loss":
        assert content["losses"]["loss_giou"] == "inf"
        assert 0 < content["losses"]["loss_bbox"] < 100
    else:
        assert content["losses"] == {}  # non-finite outputs have no matching


def test_number_of_described_batches_is_limited(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=1000)
    run = TrainingRun.create(cfg)
    run.criterion = NonFiniteCriterion(run.criterion, lambda place: True, "loss")
    for epoch in range(8):
        assert run_epoch(run, epoch).skipped == 3
    assert len(list((tmp_path / "bad_batches").iterdir())) == 20


@pytest.mark.parametrize(
    ("has_bfloat16", "path"),
    [(True, ["float16", "bfloat16", "float32"]), (False, ["float16", "float32"])],
)
def test_repeated_non_finite_outputs_fall_back_to_exacter_precisions(
    tmp_path, digits, monkeypatch, caplog, has_bfloat16, path
):
    """Non-finite until float32; then training continues."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has_bfloat16)
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=2, use_amp=True, amp_dtype="float16")
    run = TrainingRun.create(cfg)
    assert str(run.amp.precision) == "float16"
    run.criterion = NonFiniteCriterion(
        run.criterion, lambda place: run.amp.precision.is_mixed, "outputs"
    )
    used = []
    for epoch in range(2):
        run.epoch = epoch
        train_one_epoch(
            run,
            stop=StopFlag(),
            after_step=lambda p: used.append(str(run.amp.precision)),
        )
    assert list(dict.fromkeys(["float16", *used])) == path
    for before, after in zip(path[:-1], path[1:], strict=True):
        assert f"falling back from {before} to {after}" in caplog.text
    assert run.amp.scaler.get_scale() == 1.0
    assert run.ema.updates == 6 - 2 * (len(path) - 1)


def test_repeated_non_finite_losses_in_float32_raise(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=2)
    run = TrainingRun.create(cfg)
    run.criterion = NonFiniteCriterion(run.criterion, lambda place: True, "loss")
    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, step 2: the loss is not finite.*2 consecutive steps"
    ):
        run_epoch(run)


def test_repeated_non_finite_gradients_fall_back_to_float32(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    cfg = tiny_config(tmp_path, digits, use_amp=True, amp_dtype="bfloat16")
    run = TrainingRun.create(cfg)

    def diverged(norm):
        raise TrainingDiverged("gradients were not finite for 50 steps in a row")

    run.recovery.guard.record_norm = diverged
    with pytest.raises(TrainingDiverged, match="gradients"):  # in float32
        run_epoch(run)
    assert str(run.amp.precision) == "float32"
    assert run.global_step == 1  # the first step fell back, the second raised
