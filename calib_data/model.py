"""The demo detector: a small one-stage network of depthwise-separable convolutions with SiLU.

It has what real small detectors have and what makes them hard to quantise: depthwise 5x5 convolutions whose
channels differ much in range, SiLU with its short negative tail everywhere, and boxes in pixels beside scores
in one output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class RawOutput:
    """What the last convolutions say, for all grid cells of the three levels together.

    Attributes:
        boxes: float32 (n, a, 4): offset of the centre from the cell in strides (x, y), then the log of width
            and height in strides.
        logits: float32 (n, a, classes), scores before the sigmoid.
        cells: float32 (a, 2), centres of the cells in pixels (x, y).
        strides: float32 (a, 1), stride of each cell in pixels.
    """

    boxes: Tensor
    logits: Tensor
    cells: Tensor
    strides: Tensor

    def centre_size(self) -> Tensor:
        """Returns the boxes as centre x, centre y, width, height in pixels: float32 (n, a, 4)."""
        centre = self.boxes[..., :2] * self.strides + self.cells
        size = torch.exp(self.boxes[..., 2:]) * self.strides
        return torch.cat([centre, size], -1)


class ConvUnit(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False
    ) -> None:
        groups = cin if depthwise else 1
        super().__init__(
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Separable(nn.Sequential):
    """A depthwise 5x5 convolution, then a pointwise one."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__(ConvUnit(cin, cin, 5, stride, depthwise=True), ConvUnit(cin, cout))


class Residual(nn.Module):
    """Pointwise, depthwise 5x5, pointwise, with a shortcut where the widths agree."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvUnit(cin, cout), Separable(cout, cout))
        self.shortcut = cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (n, cout, h, w)."""
        y = self.body(x)
        return x + y if self.shortcut else y


class PoolPyramid(nn.Module):
    """Sees a wide surrounding: the features beside their maxima over 5x5 and 9x9 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = ConvUnit(channels, channels // 2)
        self.merge = ConvUnit(channels // 2 * 3, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features of the same shape."""
        x = self.squeeze(x)
        near = max_pool2d(x, 5, 1, 2)
        return self.merge(torch.cat([x, near, max_pool2d(near, 5, 1, 2)], 1))


class Branch(nn.Sequential):
    """One head of one level: a separable convolution and the predicting convolution."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(Separable(width, width), nn.Conv2d(width, outputs, 1))


class Detector(nn.Module):
    """Backbone, two-way feature pyramid and decoupled anchor-free heads at strides 8, 16 and 32."""

    def __init__(self, classes: int, width: int = 80) -> None:
        super().__init__()
        self.classes = classes
        self.stage2 = nn.Sequential(ConvUnit(3, 16, 3, 2), Separable(16, 32, 2), Residual(32, 32))
        self.stage3 = nn.Sequential(Separable(32, 64, 2), Residual(64, 64), Residual(64, 64))
        self.stage4 = nn.Sequential(Separable(64, 128, 2), Residual(128, 128), Residual(128, 128))
        self.stage5 = nn.Sequential(Separable(128, 192, 2), Residual(192, 192), PoolPyramid(192))
        self.lateral = nn.ModuleList(ConvUnit(c, width) for c in (64, 128, 192))
        self.up4, self.up3 = Residual(2 * width, width), Residual(2 * width, width)
        self.down3, self.down4 = Separable(width, width, 2), Separable(width, width, 2)
        self.out4, self.out5 = Residual(2 * width, width), Residual(2 * width, width)
        self.box_heads = nn.ModuleList(Branch(width, 4) for _ in STRIDES)
        self.class_heads = nn.ModuleList(Branch(width, classes) for _ in STRIDES)
        self._start_unsure()

    def _start_unsure(self) -> None:
        """Sets the biases so that training starts at a score of 1 % and at boxes of two to three cells."""
        for box_head, class_head in zip(self.box_heads, self.class_heads, strict=True):
            nn.init.constant_(class_head[-1].bias, -4.6)
            with torch.no_grad():
                box_head[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))

    def _levels(self, images: Tensor) -> list[Tensor]:
        """Returns the features at strides 8, 16 and 32."""
        c3 = self.stage3(self.stage2(images))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        l3, l4, l5 = (lateral(c) for lateral, c in zip(self.lateral, (c3, c4, c5), strict=True))
        p4 = self.up4(torch.cat([interpolate(l5, scale_factor=2.0, mode="nearest"), l4], 1))
        p3 = self.up3(torch.cat([interpolate(p4, scale_factor=2.0, mode="nearest"), l3], 1))
        n4 = self.out4(torch.cat([self.down3(p3), p4], 1))
        n5 = self.out5(torch.cat([self.down4(n4), l5], 1))
        return [p3, n4, n5]

    def predict(self, images: Tensor) -> RawOutput:
        """Returns the raw output for images: float32 (n, 3, s, s), RGB, 0..1, s a multiple of 32."""
        boxes, logits, cells, strides = [], [], [], []
        for level, stride, box_head, class_head in zip(
            self._levels(images), STRIDES, self.box_heads, self.class_heads, strict=True
        ):
            # Plain numbers, so that the exported graph has constant shapes.
            count, rows, columns = len(images), int(level.shape[2]), int(level.shape[3])
            boxes.append(box_head(level).reshape(count, 4, rows * columns))
            logits.append(class_head(level).reshape(count, self.classes, rows * columns))
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            cells.append(torch.stack([x.flatten(), y.flatten()], -1) * stride)
            strides.append(torch.full((rows * columns, 1), float(stride)))
        return RawOutput(
            torch.cat(boxes, 2).transpose(1, 2),
            torch.cat(logits, 2).transpose(1, 2),
            torch.cat(cells),
            torch.cat(strides),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the decoded output: float32 (n, 4 + classes, a): cx, cy, w, h in pixels, scores 0..1."""
        raw = self.predict(images)
        return torch.cat([raw.centre_size(), torch.sigmoid(raw.logits)], -1).transpose(1, 2)
