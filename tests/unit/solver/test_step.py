"""One training step and its retries. The allocator's error is faked: there is no GPU here."""

import json

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.misc.errors import OutOfMemory, TrainingDiverged
from rtdetrv2_pytorch.src.robustness import precision
from rtdetrv2_pytorch.src.solver import step
from rtdetrv2_pytorch.src.solver.checkpointing import checkpoint_content, write_atomically
from rtdetrv2_pytorch.src.solver.loop import evaluate, train_one_epoch
from rtdetrv2_pytorch.src.solver.probing import find_micro_batch, worst_batch
from rtdetrv2_pytorch.src.solver.setup import set_up
from rtdetrv2_pytorch.src.solver.step import StepBatch, backward
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from tests.tiny import tiny_config

PLAIN_SGD = {
    "clip_max_norm": 0.0,
    "RTDETRTransformerv2": {"num_denoising": 0},
    "optimizer": {"type": "SGD", "lr": 1.0, "weight_decay": 0.0, "params": []},
    "lr_warmup_scheduler": {"warmup_duration": 0},
}


class SmallMemory(nn.Module):
    """The real model on a device whose memory holds so many images; notes how many it was given."""

    def __init__(self, model, limit, *, fails_in="forward"):
        super().__init__()
        self.network, self.limit, self.fails_in = model, limit, fails_in
        self.seen = []

    def forward(self, images, targets=None):
        self.seen.append(len(images))
        too_many = len(images) > self.limit
        if too_many and self.fails_in == "forward":
            self.network(images, targets=targets)  # statistics and random numbers are used up
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        outputs = self.network(images, targets=targets)
        if too_many and self.fails_in == "backward":
            outputs["pred_logits"].register_hook(self._fail)
        return outputs

    def _fail(self, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


def still(state):
    """Batch norm as in evaluation: what an image gives does not depend on those beside it."""
    state.model.train()
    for module in state.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module


def gradients(state):
    return torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])


def all_numbers(state):
    return torch.cat(
        [t.flatten() for t in state.model.state_dict().values() if t.is_floating_point()]
    ).nan_to_num()


def run_epoch(state, cfg, epoch=0):
    return train_one_epoch(
        state, cfg.train_dataloader, epoch, stop=StopFlag(), after_step=lambda p: None
    )


def whole_batch(cfg, state):
    cfg.train_dataloader.set_epoch(0)
    images, targets = next(iter(cfg.train_dataloader))
    return StepBatch(images, targets, (64, 96), 0, 0, 0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_gradients_of_parts_add_up_to_those_of_the_batch(tmp_path, digits, size):
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6}, **PLAIN_SGD)
    state, _ = set_up(cfg)
    still(state)
    batch = whole_batch(cfg, state)
    counts = [len(t["labels"]) for t in batch.targets]
    assert len(set(counts)) > 1  # or every part would weigh the same
    whole_losses = backward(state, batch, group_size=1)
    whole = gradients(state)
    state.optimizer.zero_grad()
    state.micro_batches.size = size
    losses = backward(state, batch, group_size=1)
    torch.testing.assert_close(
        gradients(state), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())
    )
    for name, value in whole_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)


def test_images_without_boxes_make_parts_that_weigh_right(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6}, **PLAIN_SGD)
    state, _ = set_up(cfg)
    still(state)
    batch = whole_batch(cfg, state)
    for target in batch.targets[:3]:
        target["boxes"], target["labels"] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    backward(state, batch, group_size=1)
    whole = gradients(state)
    state.optimizer.zero_grad()
    state.micro_batches.size = 3  # the first part has none
    backward(state, batch, group_size=1)
    torch.testing.assert_close(
        gradients(state), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())
    )


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_a_step_without_memory_is_that_of_one_that_was_divided_from_the_start(
    tmp_path, digits, fails_in, caplog
):
    """With batch norm and denoising as they are: the failed attempts leave no trace at all."""
    options = {"train_dataloader": {"total_batch_size": 6}, "grad_accum_steps": 1}
    results = []
    for is_faked in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, **options)
        state, _ = set_up(cfg)
        if is_faked:
            state.model = SmallMemory(state.model, 2, fails_in=fails_in)
        else:
            state.micro_batches.size = 1
        progress = run_epoch(state, cfg)
        results.append((progress.read_last(), all_numbers(state), state))
    (divided, numbers, _), (retried, retried_numbers, state) = results
    assert state.model.seen == [6, 3, 1, 1, 1, 1, 1, 1]
    assert state.micro_batches.size == 1
    assert retried == divided
    assert torch.equal(retried_numbers, numbers)
    assert caplog.text.count("do not fit into memory") == 2
    assert (state.ema.updates, state.guard._skipped) == (1, 0)


def test_an_accumulated_step_is_computed_again_from_its_first_batch(tmp_path, digits):
    """Memory gets tight in the second batch of two: the gradients of the first are not lost."""
    results = []
    for is_faked in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(
            tmp_path, digits, grad_accum_steps=3, train_dataloader={"total_batch_size": 2}
        )
        state, _ = set_up(cfg)
        if is_faked:
            state.model = SmallMemory(state.model, 9, fails_in="backward")
            accumulate = state.criterion.forward

            def tighter(*args, state=state, accumulate=accumulate, **place):
                state.model.limit = 1 if place["step"] >= 0 and len(state.model.seen) >= 2 else 9
                return accumulate(*args, **place)

            state.criterion.forward = tighter
        else:
            state.micro_batches.size = 1
        run_epoch(state, cfg)
        results.append((all_numbers(state), state))
    assert results[1][1].model.seen == [2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert torch.equal(results[0][0], results[1][0])


def test_an_image_that_never_fits_ends_training_with_the_remedies(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits)
    state, _ = set_up(cfg)
    state.model = SmallMemory(state.model, 0)
    with pytest.raises(OutOfMemory, match="a single image does not fit.*smaller eval_spatial_size"):
        run_epoch(state, cfg)


def test_evaluation_without_memory_measures_the_same(tmp_path, digits):
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


# The probe before the first epoch


def test_the_worst_batch_is_the_largest_size_with_the_most_boxes(tmp_path, digits):
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
def test_the_probe_finds_what_fits_and_leaves_no_trace(tmp_path, digits, limit, expected):
    curves = []
    for is_probed in (False, True):
        torch.manual_seed(0)
        cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6})
        state, _ = set_up(cfg)
        if is_probed:
            before = all_numbers(state)
            real, small = state.model, SmallMemory(state.model, limit)
            state.model = small
            find_micro_batch(state, cfg.train_dataloader)
            assert torch.equal(before, all_numbers(state))
            assert small.seen[0] == 6
            assert state.micro_batches.size == expected
            state.model, state.micro_batches.size = real, None
        curves.append(run_epoch(state, cfg).read_last())
    assert curves[0] == curves[1]


# Numbers that are not finite


class Spoiled(nn.Module):
    """The real criterion, except that something is not finite while `is_bad(state)` says so."""

    def __init__(self, criterion, is_bad, what):
        super().__init__()
        self.criterion, self.is_bad, self.what = criterion, is_bad, what

    def forward(self, outputs, targets, **place):
        is_bad = self.is_bad(place)
        if is_bad and self.what == "outputs":
            outputs["pred_logits"] = outputs["pred_logits"] * torch.nan
        losses = self.criterion(outputs, targets, **place)
        if is_bad and self.what == "loss":
            losses["loss_giou"] = losses["loss_giou"] * torch.inf
        return losses


def test_numbers_that_are_not_finite_are_no_matter_of_the_probe(tmp_path, digits):
    """Training skips such a step, or goes on in more exact numbers."""
    cfg = tiny_config(tmp_path, digits, train_dataloader={"total_batch_size": 6})
    state, _ = set_up(cfg)
    state.model = SmallMemory(state.model, 3)
    state.criterion = Spoiled(state.criterion, lambda place: True, "outputs")
    before = all_numbers(state)
    find_micro_batch(state, cfg.train_dataloader)
    assert state.micro_batches.size == 3
    assert torch.equal(before, all_numbers(state))


@pytest.mark.parametrize("what", ["outputs", "loss"])
def test_a_bad_batch_is_described_with_images_boxes_and_losses(tmp_path, digits, what):
    cfg = tiny_config(tmp_path, digits)
    state, _ = set_up(cfg)
    state.criterion = Spoiled(state.criterion, lambda place: place["global_step"] == 1, what)
    seen = []
    cfg.train_dataloader.set_epoch(0)
    expected = list(cfg.train_dataloader)[1][1]
    progress = train_one_epoch(
        state,
        cfg.train_dataloader,
        0,
        stop=StopFlag(),
        after_step=lambda p: seen.append(all_numbers(state)),
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
        assert content["losses"] == {}  # there is no matching for what are no numbers


def test_so_many_bad_batches_are_described_and_no_more(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=1000)
    state, _ = set_up(cfg)
    state.criterion = Spoiled(state.criterion, lambda place: True, "loss")
    for epoch in range(8):
        assert run_epoch(state, cfg, epoch).skipped == 3
    assert len(list((tmp_path / "bad_batches").iterdir())) == 20


@pytest.mark.parametrize(
    ("has_bfloat16", "path"),
    [(True, ["float16", "bfloat16", "float32"]), (False, ["float16", "float32"])],
)
def test_repeatedly_bad_numbers_are_computed_more_exactly(
    tmp_path, digits, monkeypatch, caplog, has_bfloat16, path
):
    """Bad until float32 is reached; then training goes on."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has_bfloat16)
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=2, use_amp=True, amp_dtype="float16")
    state, _ = set_up(cfg)
    assert str(state.precision) == "float16"
    state.criterion = Spoiled(state.criterion, lambda place: state.precision.is_mixed, "outputs")
    used = []
    for epoch in range(2):
        train_one_epoch(
            state,
            cfg.train_dataloader,
            epoch,
            stop=StopFlag(),
            after_step=lambda p: used.append(str(state.precision)),
        )
    assert list(dict.fromkeys(["float16", *used])) == path
    for before, after in zip(path[:-1], path[1:], strict=True):
        assert f"going on in {after} instead of {before}" in caplog.text
    assert state.scaler.get_scale() == 1.0
    assert state.ema.updates == 6 - 2 * (len(path) - 1)


def test_in_float32_the_end_comes_with_the_numbers(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, max_skipped_steps=2)
    state, _ = set_up(cfg)
    state.criterion = Spoiled(state.criterion, lambda place: True, "loss")
    with pytest.raises(TrainingDiverged, match=r"step 1: the loss is not finite.*2 steps in a row"):
        run_epoch(state, cfg)


def test_gradients_that_stay_bad_in_half_precision_are_computed_more_exactly(
    tmp_path, digits, monkeypatch
):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    cfg = tiny_config(tmp_path, digits, use_amp=True, amp_dtype="bfloat16")
    state, _ = set_up(cfg)

    def diverged(norm):
        raise TrainingDiverged("gradients were not finite for 50 steps in a row")

    state.guard.watch = diverged
    with pytest.raises(TrainingDiverged, match="gradients"):  # in float32 it is over
        run_epoch(state, cfg)
    assert str(state.precision) == "float32"
    assert state.global_step == 1  # the first step went on, the second did not


def test_parts_weigh_their_share_of_the_boxes_of_all_ranks(monkeypatch):
    """This rank has 3 and 0 boxes, the other 2 and 0: divided by 5, by 1 (not 0); whole: 5."""
    other = torch.tensor([2.0, 0.0, 2.0])
    monkeypatch.setattr(step.distributed, "sum_over_ranks", lambda mine: mine + other)
    targets = [{"labels": torch.zeros(n, dtype=torch.int64)} for n in (2, 1, 0)]
    shares = step._shares_of_boxes(targets, [slice(0, 2), slice(2, 3)])
    assert shares == pytest.approx([1.0, 1 / 5])


def test_what_was_given_up_is_not_tried_again_after_a_resume(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    half = {"use_amp": True, "amp_dtype": "float16", "epoches": 1}
    cfg = tiny_config(tmp_path, digits, **half)
    state, position = set_up(cfg)
    step.fall_back(state, TrainingDiverged("bad"))
    state.micro_batches.size = 1
    write_atomically(checkpoint_content(cfg, state, position, None), tmp_path / "last.pth")
    last = str(tmp_path / "last.pth")

    resumed, _ = set_up(tiny_config(tmp_path, digits, resume=last, **half))
    assert str(resumed.precision) == "bfloat16"
    assert resumed.scaler.get_scale() == 1.0
    assert resumed.micro_batches.size == 1
    chosen, _ = set_up(tiny_config(tmp_path, digits, resume=last, micro_batch_size=2, **half))
    assert chosen.micro_batches.size == 2
    exact, _ = set_up(tiny_config(tmp_path, digits, resume=last, epoches=1))
    assert str(exact.precision) == "float32"  # asked for now; what was fallen back to is less exact


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"use_amp": True, "amp_dtype": "float16"}, 65536.0),
        ({"use_amp": True, "amp_dtype": "float16"}, {}, 1.0),
        ({"use_amp": True, "amp_dtype": "float16"}, {"use_amp": True, "amp_dtype": "float16"}, 8.0),
    ],
)
def test_a_loss_scale_is_gone_on_with_in_the_precision_that_needs_it(
    tmp_path, digits, before, after, expected
):
    """Gradients of float16 vanish at the scale of float32, which never grows."""
    cfg = tiny_config(tmp_path, digits, epoches=1, **before)
    state, position = set_up(cfg)
    content = checkpoint_content(cfg, state, position, None)
    if before:
        content["scaler"]["scale"] = 8.0  # as found in training
    write_atomically(content, tmp_path / "last.pth")
    last = str(tmp_path / "last.pth")
    resumed, _ = set_up(tiny_config(tmp_path, digits, epoches=1, resume=last, **after))
    assert resumed.scaler.get_scale() == expected
