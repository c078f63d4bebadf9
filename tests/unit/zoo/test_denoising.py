"""Contrastive denoising: layout, visibility and noise."""

import math

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.misc.boxes import cxcywh_to_xyxy
from rtdetrv2_pytorch.src.zoo.rtdetr.denoising import make_denoising_queries


def coded_embedding(num_classes):
    """Row k is k + 1 and padding is 0, so that the content identifies the label."""
    embedding = nn.Embedding(num_classes + 1, 1, padding_idx=num_classes)
    with torch.no_grad():
        embedding.weight[:, 0] = torch.tensor([*range(1, num_classes + 1), 0])
    return embedding


def labels_of(queries):
    """Label of every query; -1 is padding."""
    return (queries.content.detach()[..., 0] - 1).round().long()


def boxes_of(queries):
    return queries.reference_logits.sigmoid()


PUBLISHED = {"num_denoising": 100, "label_noise_ratio": 0.5, "box_noise_scale": 1.0}


def make(targets, *, num_classes=5, embedding=None, **options):
    embedding = embedding or coded_embedding(num_classes)
    return make_denoising_queries(targets, embedding, num_queries=3, **(PUBLISHED | options))


QUIET = {"label_noise_ratio": 0.0, "box_noise_scale": 0.0}


def target(labels, boxes):
    return {
        "labels": torch.tensor(labels, dtype=torch.int64),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "image_id": torch.tensor([1]),
    }


ONE = target([3], [[0.5, 0.5, 0.2, 0.4]])
TWO = target([0, 4], [[0.3, 0.3, 0.1, 0.2], [0.7, 0.6, 0.2, 0.2]])
NONE = target([], [])


def test_two_images_without_noise_by_hand():
    queries = make([ONE, TWO], num_denoising=5, **QUIET)  # 5 // 2 = 2 groups
    # Group by group: two positives, two negatives; the missing second box is padding.
    assert labels_of(queries).tolist() == [[3, -1] * 4, [0, 4] * 4]
    expected = torch.stack(
        (
            torch.cat((ONE["boxes"], torch.zeros(1, 4))).repeat(4, 1),
            TWO["boxes"].repeat(4, 1),
        )
    )
    torch.testing.assert_close(boxes_of(queries), expected, rtol=1e-4, atol=2e-5)
    assert queries.meta["dn_num_group"] == 2
    assert queries.meta["dn_num_split"] == [8, 3]
    assert [i.tolist() for i in queries.meta["dn_positive_idx"]] == [[0, 4], [0, 1, 4, 5]]


def test_padding_is_zero_embedding():
    queries = make([ONE, TWO], num_denoising=2)
    is_padding = labels_of(queries) == -1
    assert is_padding.tolist() == [[False, True] * 2, [False] * 4]
    assert (queries.content[is_padding] == 0).all()
    logits = queries.reference_logits[is_padding]
    torch.testing.assert_close(logits, torch.full_like(logits, math.log(1e-5)), rtol=1e-4, atol=0)


def test_attention_mask_of_two_images_by_hand():
    queries = make([ONE, TWO], num_denoising=4)
    # Rows attend to columns: two groups of four see themselves and the three matching queries,
    # which see each other only.
    rows = ["1111" + "0000" + "111"] * 4 + ["0000" + "1111" + "111"] * 4 + ["00000000" + "111"] * 3
    expected = torch.tensor([[c == "1" for c in row] for row in rows])
    assert torch.equal(queries.visible, expected)


@pytest.mark.parametrize(
    ("counts", "num_denoising", "groups"),
    [
        ((1,), 100, 100),
        ((7, 3), 100, 14),
        ((6,), 100, 16),
        ((100,), 100, 1),
        ((150, 0), 100, 1),
        ((3,), 2, 1),
    ],
)
def test_number_of_groups_depends_on_image_with_most_boxes(
    make_targets, counts, num_denoising, groups
):
    targets = make_targets(*counts)
    queries = make(targets, num_denoising=num_denoising)
    width = max(counts)
    assert queries.meta["dn_num_group"] == groups
    assert queries.meta["dn_num_split"] == [2 * width * groups, 3]
    for n, index in zip(counts, queries.meta["dn_positive_idx"], strict=True):
        assert index.tolist() == [g * 2 * width + j for g in range(groups) for j in range(n)]
    assert queries.content.shape[:2] == (len(counts), 2 * width * groups)
    assert queries.visible.shape == (2 * width * groups + 3,) * 2


def test_positive_queries_are_boxes_in_order(make_targets):
    targets = make_targets(2, 0, 4)
    queries = make(targets, num_denoising=12, **QUIET)
    labels, boxes = labels_of(queries), boxes_of(queries)
    for image, index in enumerate(queries.meta["dn_positive_idx"]):
        groups = queries.meta["dn_num_group"]
        assert labels[image, index].tolist() == targets[image]["labels"].tolist() * groups
        torch.testing.assert_close(
            boxes[image, index], targets[image]["boxes"].repeat(groups, 1), rtol=1e-4, atol=2e-5
        )


def test_quarter_of_labels_is_replaced_uniformly(make_targets):
    num_classes = 8
    counts = (50, 20)
    targets = make_targets(*counts, num_classes=num_classes)
    queries = make(targets, num_classes=num_classes, num_denoising=5000)  # 100 groups
    labels = labels_of(queries).view(2, 100, 2, 50)  # [image, group, positive/negative, box]
    for image, count in enumerate(counts):
        truth = targets[image]["labels"]
        found = labels[image, ..., :count]
        changed = found != truth
        # A replaced label equals the original in one of eight cases.
        for side in range(2):
            share = changed[:, side].float().mean().item()
            assert share == pytest.approx(0.25 * 7 / 8, abs=0.025)
        drawn = torch.bincount(found[changed], minlength=num_classes).float()
        other = torch.tensor([(truth != k).sum() for k in range(num_classes)]).float()
        torch.testing.assert_close(drawn / drawn.sum(), other / other.sum(), rtol=0.2, atol=0)
        assert (labels[image, ..., count:] == -1).all()  # padding stays padding


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_fraction_of_replaced_labels_is_half_the_ratio(ratio):
    targets = [target([0] * 20, [[0.5, 0.5, 0.2, 0.2]] * 20)]
    queries = make(targets, num_classes=1000, num_denoising=2000, label_noise_ratio=ratio)
    share = (labels_of(queries) != 0).float().mean().item()
    assert share == pytest.approx(ratio / 2 * 0.999, abs=0.02)


def corner_shifts(scale, box=(0.5, 0.5, 0.2, 0.1)):
    """[group, box, coordinate] shifts in half sides, of positives and of negatives."""
    targets = [target([0] * 10, [box] * 10)]
    queries = make(targets, num_denoising=2000, box_noise_scale=scale)
    truth = targets[0]["boxes"][:1]
    moved = cxcywh_to_xyxy(boxes_of(queries)[0]) - cxcywh_to_xyxy(truth)
    half_side = truth[:, 2:].repeat(1, 2) / 2
    shifts = (moved / half_side).view(200, 2, 10, 4)
    return shifts[:, 0], shifts[:, 1]


def test_corner_noise_of_positive_and_negative_queries():
    positive, negative = corner_shifts(scale=0.4)  # too little for corners to cross
    slack = 1e-3
    assert positive.abs().max() <= 0.4 + slack
    assert 0.4 - slack <= negative.abs().min()
    assert negative.abs().max() <= 0.8 + slack
    for shifts, low in ((positive, 0.0), (negative, 0.4)):
        # Uniform with equally likely signs, for each of the four coordinates.
        for coordinate in range(4):
            column = shifts[..., coordinate].flatten()
            assert column.abs().mean().item() == pytest.approx(low + 0.2, abs=0.015)
            assert column.abs().std().item() == pytest.approx(0.4 / 12**0.5, abs=0.01)
            assert (column > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
        correlation = torch.corrcoef(shifts.flatten(0, 1).T) - torch.eye(4)
        assert correlation.abs().max() < 0.1


def test_corners_stay_inside_image():
    targets = [target([0] * 4, [[0.1, 0.9, 0.2, 0.2]] * 4)]
    queries = make(targets, num_denoising=400, box_noise_scale=1.0)
    boxes = boxes_of(queries)[0]
    corners = cxcywh_to_xyxy(boxes)[(boxes[:, 2:] > 1e-3).all(1)]  # those that did not cross
    assert len(corners) > 200
    assert corners.min() > -1e-4
    assert corners.max() < 1 + 1e-4
    assert (corners[:, 0] < 1e-4).float().mean() > 0.2  # clipped, not pushed back


def test_crossed_corners_stay_finite():
    queries = make([target([0], [[0.5, 0.5, 0.2, 0.2]])], num_denoising=300)
    assert queries.reference_logits.isfinite().all()
    sides = boxes_of(queries)[..., 2:]
    assert sides.min().item() == pytest.approx(1e-5, rel=0.05)
    assert (sides < 2e-5).float().mean() > 0.05


def test_noise_is_seeded_and_keeps_padding():
    drawn = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        drawn.append(boxes_of(make([ONE, TWO], num_denoising=4)))
        assert (drawn[-1][0, 1::2] < 2e-5).all()
    torch.testing.assert_close(drawn[0], drawn[2], rtol=0, atol=0)
    assert (drawn[0] - drawn[1]).abs().max() > 0.01


def test_image_without_boxes_is_padding():
    queries = make([NONE, TWO], num_denoising=2)
    assert (labels_of(queries)[0] == -1).all()
    assert queries.meta["dn_positive_idx"][0].tolist() == []
    assert queries.meta["dn_positive_idx"][1].tolist() == [0, 1]


def test_batch_without_boxes_gets_dummy_group():
    embedding = nn.Embedding(6, 4, padding_idx=5)
    queries = make([NONE, NONE], embedding=embedding, box_noise_scale=0.0)
    assert queries.meta["dn_num_group"] == 1
    assert queries.meta["dn_num_split"] == [2, 3]
    assert [i.tolist() for i in queries.meta["dn_positive_idx"]] == [[], []]
    torch.testing.assert_close(
        boxes_of(queries), torch.tensor([0.5, 0.5, 0.1, 0.1]).expand(2, 2, 4)
    )
    queries.content.square().sum().backward()
    assert embedding.weight.grad is not None  # every rank takes part
    assert embedding.weight.grad.abs().max() == 0
    expected = torch.tensor([[1, 1, 1, 1, 1]] * 2 + [[0, 0, 1, 1, 1]] * 3, dtype=torch.bool)
    assert torch.equal(queries.visible, expected)


def test_embedding_gradients_exclude_padding():
    embedding = nn.Embedding(6, 4, padding_idx=5)
    queries = make([ONE, TWO], embedding=embedding, num_denoising=4, label_noise_ratio=0.0)
    queries.content.sum().backward()
    # Two groups of a positive and a negative: every box occurs four times.
    assert embedding.weight.grad[:, 0].tolist() == [4, 0, 0, 4, 4, 0]
    assert not queries.reference_logits.requires_grad
