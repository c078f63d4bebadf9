"""Repeat-factor sampling: the formula of LVIS, exact means, and the same list on all ranks."""

from collections import Counter

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.annotation_arrays import Annotations, ImageRecord
from rtdetrv2_pytorch.src.data.categories import CategoryTable
from rtdetrv2_pytorch.src.data.loading.repeats import (
    RepeatedImages,
    class_factors,
    image_fractions,
    is_rare,
    recommended_threshold,
    repeat_factors,
)
from rtdetrv2_pytorch.src.data.loading.sampler import EpochSampler
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.telemetry import training_plan
from tests.tiny import tiny_config
from tests.unit.data.loading.test_sampler import batches, flat, on_ranks

TABLE = CategoryTable((1, 2, 3), ("cat", "dog", "owl"))


def image(number, *labels, iscrowd=None):
    count = len(labels)
    return ImageRecord(
        file_name=f"{number}.jpg",
        image_id=number,
        size_wh=(64, 64),
        boxes_xyxy=np.tile([1.0, 2.0, 30.0, 40.0], (count, 1)),
        labels=np.array(labels, dtype=np.int64),
        area=np.full(count, 1.0),
        iscrowd=np.array(iscrowd or [0] * count, dtype=np.int64),
    )


@pytest.fixture
def annotations():
    """16 images: cats in 12, dogs in 4, owls in 1; an owl in a crowd region does not count."""
    records = [image(i, 0, 0) for i in range(10)]
    records += [image(10, 0, 1), image(11, 1, 1, 0), image(12, 1), image(13, 1, 2)]
    records += [image(14), image(15, 2, iscrowd=[1])]
    return Annotations(records, TABLE)


def test_factors_are_those_of_the_paper(annotations):
    """With t = 0.5: f = 12/16, 4/16, 1/16, so r = 1, sqrt(2) and sqrt(8)."""
    assert image_fractions(annotations).tolist() == [12 / 16, 4 / 16, 1 / 16]
    assert class_factors(image_fractions(annotations), 0.5) == pytest.approx([1, 2**0.5, 8**0.5])
    expected = [1] * 10 + [2**0.5] * 3 + [8**0.5] + [1, 1]
    assert repeat_factors(annotations, 0.5) == pytest.approx(expected)
    assert repeat_factors(annotations, 1 / 16).tolist() == [1] * 16
    assert class_factors(np.array([0.5, 0.0]), 1.0) == pytest.approx([2**0.5, 1])


def test_every_epoch_rounds_the_factors_with_exact_means():
    factors = np.array([1.0, 1.0, 1.25, 2.5, 3.0, 1.7])  # sum 10.45
    sampler = make_sampler(factors, batch_size=1)
    assert len(sampler) == 10
    totals = np.zeros(6)
    for epoch in range(800):
        indices = flat(batches(sampler, epoch))
        assert len(indices) == len(set(indices)) == 10  # copies differ
        counts = Counter(index % 6 for index in indices)
        for place, factor in enumerate(factors):  # the surplus of an epoch is dropped: one or none
            assert np.floor(factor) - 1 <= counts[place] <= np.ceil(factor)
            assert all(index // 6 < np.ceil(factor) for index in indices if index % 6 == place)
        totals += [counts[i] for i in range(6)]
    # 45 % of the epochs drop one of 11 images. Three standard deviations of a rounding: 0.053.
    assert totals / 800 == pytest.approx(factors * 10 / 10.45, abs=0.06)


def test_images_with_factor_one_occur_exactly_once():
    """For any offset: with sums in floating point, one could occur twice and another never."""
    factors = np.array([1.0] * 500 + [4 / 3] * 3)
    order = RepeatedImages(factors)
    assert len(order) == 504
    for seed in range(20):
        counts = Counter(i % 503 for i in order.shuffled(torch.Generator().manual_seed(seed)))
        assert all(counts[i] == 1 for i in range(500))
        assert sum(counts[i] for i in range(500, 503)) == 4


def make_sampler(factors, batch_size, seed=0):
    return EpochSampler(
        len(factors),
        batch_size,
        shuffle=True,
        drop_last=True,
        seed=seed,
        repeated=RepeatedImages(np.asarray(factors)),
    )


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_share_the_list_of_one_process(monkeypatch, count):
    factors = [1.0, 2.4, 1.3, 1.0, 3.7, 1.9, 1.1]
    whole = batches(make_sampler(factors, 4, seed=3), 5)
    parts = on_ranks(monkeypatch, count, lambda: batches(make_sampler(factors, 4, seed=3), 5))
    assert [flat(step) for step in zip(*parts, strict=True)] == whole
    assert len(whole) == 3  # 12 of 12.4


def test_remaining_batches_of_an_epoch_and_other_epochs():
    sampler = make_sampler([1.5] * 20, 4)
    whole = batches(sampler, 2)
    assert batches(sampler, 2, 3) == whole[3:]
    assert batches(sampler, 3) != whole
    assert len({len(batches(sampler, epoch)) for epoch in range(9)}) == 1


def test_recommendation_is_the_mean_fraction_if_classes_are_out_of_balance():
    assert recommended_threshold(np.array([0.5, 0.05, 0.2])) is None
    fractions = np.array([0.5, 0.049, 0.2, 0.0])  # without objects: not rare
    assert recommended_threshold(fractions) == 0.25
    assert is_rare(fractions).tolist() == [False, True, False, False]
    assert recommended_threshold(np.zeros(3)) is None


@pytest.fixture(scope="module")
def threshold(digits, tmp_path_factory):
    """Return a value that repeats the images of the rarest digit 1.5 times."""
    cfg = tiny_config(tmp_path_factory.mktemp("fractions"), digits)
    fractions = image_fractions(cfg.train_dataset.annotations)
    return min(1.0, 2.25 * float(fractions[fractions > 0].min()))


def test_copies_have_different_augmentations(digits, tmp_path, threshold):
    cfg = tiny_config(tmp_path, digits, repeat_threshold=threshold)
    dataset, size = cfg.train_dataset, len(cfg.train_dataset)
    (one, first), (other, second) = dataset.load(2), dataset.load(2 + size)
    assert int(first["image_id"]) == int(second["image_id"])
    assert one.shape != other.shape or not torch.equal(one, other)
    assert torch.equal(one, dataset[2][0])
    with pytest.raises(IndexError):
        dataset[size]


def test_resumed_training_repeats_the_same_images(digits, tmp_path, threshold):
    values = {"repeat_threshold": threshold, "epoches": 1, "checkpoint_freq": 0}
    run = TrainingRun.create(tiny_config(tmp_path / "plan", digits, **values))
    steps = len(run.train_loader)
    assert steps > 3  # of 6 images in batches of 2
    assert " images per epoch instead of 6: " in "\n".join(training_plan(run, changes=[]).schedule)

    whole, part = tmp_path / "whole", tmp_path / "part"
    DetSolver(tiny_config(whole, digits, **values)).fit()
    solver = DetSolver(tiny_config(part, digits, **values))
    solver._events.step_finished = lambda report: report.step == 1 and solver.stop()
    assert solver.fit().stopped
    DetSolver(tiny_config(part, digits, **values, resume=str(part / "last.pth"))).fit()
    states = [torch.load(each / "last.pth", weights_only=True) for each in (whole, part)]
    for key in ("model", "ema", "optimizer"):
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=0)
