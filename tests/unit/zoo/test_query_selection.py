"""Query selection by hand."""

import pytest
import torch

from rtdetrv2_pytorch.src.zoo.rtdetr.query_selection import gather_rows, select_queries

# Two images, three cells, two classes.
LOGITS = torch.tensor(
    [
        [[0.1, 0.9], [0.8, 0.7], [-1.0, -2.0]],
        [[-5.0, -6.0], [-9.0, -4.0], [3.0, 2.0]],
    ]
)


def test_default_ranks_cells_by_best_class():
    assert select_queries(LOGITS, 2, "default").tolist() == [[0, 1], [2, 1]]
    assert select_queries(LOGITS, 3, "default").tolist() == [[0, 1, 2], [2, 1, 0]]


def test_one2many_selects_cells_once_per_class():
    # 0.9 (cell 0), 0.8 (1), 0.7 (1), 0.1 (0); 3 (2), 2 (2), -4 (1), -5 (0).
    assert select_queries(LOGITS, 4, "one2many").tolist() == [[0, 1, 1, 0], [2, 2, 1, 0]]


def test_agnostic_ranks_by_object_score():
    scores = torch.tensor([[[0.3], [0.1], [0.2]]])
    assert select_queries(scores, 2, "agnostic").tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("method", "logits", "expected"),
    [
        ("default", LOGITS[:1], [[0, 1, 2]]),
        ("one2many", LOGITS[:1], [[0, 1, 1, 0, 2, 2]]),
        ("agnostic", LOGITS[:1, :, :1], [[1, 0, 2]]),
    ],
)
def test_all_candidates_are_selected_if_fewer_than_queries(method, logits, expected):
    assert select_queries(logits, 300, method).tolist() == expected


@pytest.mark.parametrize("method", ["default", "one2many"])
def test_selection_is_independent_of_batch_and_cell_order(method):
    logits = torch.randn(3, 20, 4)
    together = select_queries(logits, 7, method)
    order = torch.randperm(20)
    for image in range(3):
        alone = select_queries(logits[image : image + 1], 7, method)
        assert torch.equal(together[image], alone[0])
        shuffled = select_queries(logits[image : image + 1, order], 7, method)
        assert torch.equal(order[shuffled], alone)


def test_gather_rows_per_image_with_repeats():
    rows = torch.arange(12).view(2, 3, 2)
    gathered = gather_rows(rows, torch.tensor([[2, 2], [0, 1]]))
    assert gathered.tolist() == [[[4, 5], [4, 5]], [[6, 7], [8, 9]]]
