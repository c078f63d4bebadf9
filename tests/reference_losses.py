"""Reference implementation of the training loss: one layer and one image at a time."""

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, box_iou, generalized_box_iou, sigmoid_focal_loss

WEIGHTS = {"loss_vfl": 1.0, "loss_focal": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}


def corners(boxes):
    return box_convert(boxes, "cxcywh", "xyxy")


def plain_cost(logits, boxes, target, *, focal=True):
    """Return the cost of each query (row) of an image for each of its boxes (column)."""
    labels = target["labels"]
    if focal:
        p = logits.sigmoid()[:, labels]
        positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
        negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
        class_cost = positive - negative
    else:
        class_cost = -logits.softmax(-1)[:, labels]
    l1_cost = torch.cdist(boxes, target["boxes"], p=1)
    giou = generalized_box_iou(corners(boxes), corners(target["boxes"]))
    return 2 * class_cost + 5 * l1_cost + 2 * -giou


def plain_matching(layer, targets, *, focal=True):
    """Return the pairs (query, box) of every image, by query."""
    pairs = []
    for logits, boxes, target in zip(
        layer["pred_logits"].float(), layer["pred_boxes"].float(), targets, strict=True
    ):
        cost = plain_cost(logits, boxes, target, focal=focal)
        queries, chosen = linear_sum_assignment(cost.detach().numpy())
        pairs.append(
            [(q, b) for q, b in sorted(zip(queries.tolist(), chosen.tolist(), strict=True))]
        )
    return pairs


def plain_layer(layer, targets, pairs, divisor, *, alpha, gamma, overlap_format=None):
    """Return all terms of one layer, unweighted."""
    terms = dict.fromkeys(WEIGHTS, torch.zeros(()))
    for image, target in enumerate(targets):
        logits = layer["pred_logits"][image].float()
        boxes = layer["pred_boxes"][image].float()
        goal, one_hot = torch.zeros_like(logits), torch.zeros_like(logits)
        weight = alpha * logits.detach().sigmoid() ** gamma
        queries = [q for q, _ in pairs[image]]
        chosen = [b for _, b in pairs[image]]
        mine, theirs = corners(boxes[queries]), corners(target["boxes"][chosen])
        iou, giou = box_iou(mine, theirs).diagonal(), generalized_box_iou(mine, theirs).diagonal()
        overlap = (giou if overlap_format == "giou" else iou).detach()
        for (query, box), value in zip(pairs[image], overlap, strict=True):
            label = target["labels"][box]
            goal[query, label] = weight[query, label] = value
            one_hot[query, label] = 1
        entropy = -(goal * F.logsigmoid(logits) + (1 - goal) * F.logsigmoid(-logits))
        lost = (1 - giou) * (overlap if overlap_format else 1)
        here = {
            "loss_vfl": (weight * entropy).sum(),
            "loss_focal": sigmoid_focal_loss(logits, one_hot, alpha, gamma, reduction="sum"),
            "loss_bbox": (boxes[queries] - target["boxes"][chosen]).abs().sum(),
            "loss_giou": lost.sum(),
        }
        terms = {name: terms[name] + here[name] for name in terms}
    return {name: value / divisor for name, value in terms.items()}


def plain_losses(outputs, targets, *, names, share=False, focal_matching=True, **options):
    """Return all weighted terms of a training step, by the criterion's names."""
    num_boxes = max(1, sum(len(target["labels"]) for target in targets))
    parts = {"": outputs}
    parts |= {f"_aux_{i}": layer for i, layer in enumerate(outputs.get("aux_outputs", []))}
    parts |= {f"_enc_{i}": layer for i, layer in enumerate(outputs.get("enc_aux_outputs", []))}
    last = plain_matching(outputs, targets, focal=focal_matching)
    terms = {}
    for suffix, layer in parts.items():
        wanted = targets
        if suffix.startswith("_enc") and outputs["enc_meta"]["class_agnostic"]:
            wanted = [{**t, "labels": torch.zeros_like(t["labels"])} for t in targets]
        is_decoder = not suffix.startswith("_enc")
        pairs = (
            last if share and is_decoder else plain_matching(layer, wanted, focal=focal_matching)
        )
        found = plain_layer(layer, wanted, pairs, num_boxes, **options)
        terms |= {name + suffix: value for name, value in found.items()}
    if "dn_aux_outputs" in outputs:
        meta = outputs["dn_meta"]
        groups = meta["dn_num_group"]
        pairs = [
            list(zip(index.tolist(), list(range(len(t["labels"]))) * groups, strict=True))
            for index, t in zip(meta["dn_positive_idx"], targets, strict=True)
        ]
        for i, layer in enumerate(outputs["dn_aux_outputs"]):
            found = plain_layer(layer, targets, pairs, num_boxes * groups, **options)
            terms |= {f"{name}_dn_{i}": value for name, value in found.items()}
    return {
        key: value * WEIGHTS[name]
        for key, value in terms.items()
        for name in names
        if key == name or key.startswith(f"{name}_")
    }
