"""Which grid cell answers for which part, and what a wrong answer costs.

Assignment follows the idea of task alignment (Feng et al., "TOOD", ICCV 2021): a cell is good for a part when
it scores the class high and its box overlaps well; the class target of a chosen cell is how well it does. The
box loss is CIoU (Zheng et al., "Enhancing geometric factors in model learning and inference", 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from calib_data.model import RawOutput

TOP_CELLS = 9
SCORE_POWER = 0.5
IOU_POWER = 4.0
BOX_WEIGHT = 5.0
EPS = 1e-7


@dataclass(frozen=True)
class Assignment:
    """The targets of one batch.

    Attributes:
        positive: bool (n, a), cells that answer for a part.
        boxes: float32 (n, a, 4), x1 y1 x2 y2 in pixels of the part a cell answers for.
        scores: float32 (n, a, classes), class targets 0..1.
    """

    positive: Tensor
    boxes: Tensor
    scores: Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Returns x1 y1 x2 y2 of boxes (..., 4) given as centre and size."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns the overlap, 0..1, of boxes x1 y1 x2 y2 that broadcast against each other: (...)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    return common / (area_a + area_b - common + EPS)


def ciou_loss(a: Tensor, b: Tensor) -> Tensor:
    """Returns 1 - CIoU = 1 - IoU + d^2 / c^2 + alpha v for paired boxes x1 y1 x2 y2 (k, 4): float32 (k,)."""
    overlap = iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = (hull**2).sum(-1) + EPS
    shift = (((a[..., :2] + a[..., 2:]) - (b[..., :2] + b[..., 2:])) ** 2).sum(-1) / 4
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    angle_a = torch.atan(size_a[..., 0] / (size_a[..., 1] + EPS))
    angle_b = torch.atan(size_b[..., 0] / (size_b[..., 1] + EPS))
    v = 4 / math.pi**2 * (angle_a - angle_b) ** 2
    with torch.no_grad():
        alpha = v / (v - overlap + 1 + EPS)
    return 1 - overlap + shift / diagonal + alpha * v


@torch.no_grad()
def assign(raw: RawOutput, boxes: Tensor, labels: Tensor) -> Assignment:
    """Returns which cells answer for which parts.

    Args:
        raw: the network's output for the batch.
        boxes: float32 (n, g, 4), the parts as x1 y1 x2 y2 in pixels.
        labels: int64 (n, g, 1): class, or -1 where an image has fewer than g parts.
    """
    classes = raw.logits.shape[-1]
    exists = labels[..., 0] >= 0
    picked = labels.clamp(min=0).transpose(1, 2).expand(-1, raw.logits.shape[1], -1)
    score = raw.logits.sigmoid().gather(2, picked).transpose(1, 2)
    overlap = iou(boxes[:, :, None], to_corners(raw.centre_size())[:, None])
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    away = (raw.cells[None, None] - centre[:, :, None]).abs()
    reach = torch.maximum(half[:, :, None], raw.strides[None, None])
    near = (away < reach).all(-1) & exists[..., None]
    align = score**SCORE_POWER * overlap**IOU_POWER * near
    best = align.topk(TOP_CELLS, -1)
    chosen = torch.zeros_like(align, dtype=torch.bool).scatter_(2, best.indices, True) & near & (align > 0)
    # A cell wanted by several parts goes to the one it overlaps most.
    owner_overlap, owner = torch.where(chosen, overlap, -1.0).max(1)
    positive = owner_overlap >= 0
    chosen = chosen & (torch.arange(boxes.shape[1])[None, :, None] == owner[:, None])
    align = align * chosen
    peak_align, peak_overlap = align.amax(-1, keepdim=True), (overlap * chosen).amax(-1, keepdim=True)
    quality = (align / (peak_align + EPS) * peak_overlap).amax(1)
    owner_boxes = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    owner_class = labels[..., 0].clamp(min=0).gather(1, owner)
    scores = one_hot(owner_class, classes) * (quality * positive)[..., None]
    return Assignment(positive, owner_boxes, scores)


def detection_loss(raw: RawOutput, boxes: Tensor, labels: Tensor) -> tuple[Tensor, float, float]:
    """Returns the loss, and its class and box parts for the log. Arguments as in `assign`."""
    target = assign(raw, boxes, labels)
    total = target.scores.sum().clamp(min=1.0)
    class_loss = binary_cross_entropy_with_logits(raw.logits, target.scores, reduction="sum") / total
    if not bool(target.positive.any()):
        return class_loss, class_loss.item(), 0.0
    weight = target.scores.sum(-1)[target.positive]
    predicted = to_corners(raw.centre_size())[target.positive]
    box_loss = (ciou_loss(predicted, target.boxes[target.positive]) * weight).sum() / total
    return class_loss + BOX_WEIGHT * box_loss, class_loss.item(), box_loss.item()
