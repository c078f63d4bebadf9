"""Selection of encoder cells as decoder queries."""

from typing import Literal

import torch
from torch import Tensor

QuerySelection = Literal["default", "one2many", "agnostic"]


def select_queries(class_logits: Tensor, num_queries: int, method: QuerySelection) -> Tensor:
    """Select the cells with the highest scores in each image.

    Args:
        class_logits: [B, A, K]; K is 1 for "agnostic".
        num_queries: number of cells; limited by the number of candidates.
        method: "default" ranks a cell by its best class, "agnostic" by its one score;
            "one2many" ranks (cell, class) pairs, so that a cell can be selected several times.

    Returns:
        [B, Q] int64 indices of cells, best first.
    """
    if method == "one2many":
        scores = class_logits.flatten(1)  # [B, A * K], class fastest
        selected = torch.topk(scores, min(num_queries, scores.shape[1]), dim=1).indices
        return selected // class_logits.shape[-1]
    scores = class_logits.amax(dim=-1)
    return torch.topk(scores, min(num_queries, scores.shape[1]), dim=1).indices


def gather_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """Gather rows per image: [B, A, D] and [B, Q] -> [B, Q, D]."""
    return rows.gather(1, indices[..., None].expand(-1, -1, rows.shape[-1]))
