"""Trains the demo detector from scratch on a CPU and exports it as ONNX.

    python -m calib_data.train --cache /tmp/edgeq-demo/cache --work /tmp/edgeq-demo/run

The time is given, not the number of steps, so that a busy machine trains less rather than longer. An
interrupted run goes on from its last checkpoint, for the time that was left, when the command is given again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calib_data.dataset import MAX_LABELS, PAD_VALUE
from calib_data.loss import detection_loss
from calib_data.model import STRIDES, Detector
from calib_data.parts import CLASS_NAMES, Array

SEED = 20


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and at which input sizes to train. Progress is the share, 0..1, of the time."""

    minutes: float
    batch: int
    peak_rate: float
    size_px: int
    early_size_px: int
    early_share: float
    warm_up_steps: int = 200

    def rate(self, step: int, progress: float) -> float:
        """Returns the learning rate: a linear warm-up, then half a cosine down to 1 % of the peak."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        return self.peak_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    def input_size(self, progress: float) -> int:
        """Returns the side of the training images in pixels: small first, for speed, then the final size."""
        return self.early_size_px if progress < self.early_share else self.size_px


@dataclass(frozen=True)
class Batch:
    """A batch for `detection_loss`.

    images: float32 (n, 3, s, s), RGB, 0..1. boxes: float32 (n, g, 4), x1 y1 x2 y2 in pixels. labels: int64
    (n, g, 1), the class or -1.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor

    def split(self, parts: int) -> list[Batch]:
        """Returns the batch in equal parts."""
        each = [t.chunk(parts) for t in (self.images, self.boxes, self.labels)]
        return [Batch(*fields) for fields in zip(*each, strict=True)]


class Loader:
    """Draws augmented batches from the cache of rendered images."""

    def __init__(self, cache: Path) -> None:
        self.images = np.load(cache / "images.npy", mmap_mode="r")
        self.labels = np.load(cache / "labels.npy")

    def batch(self, step: int, *, count: int, size_px: int) -> Batch:
        """Returns the batch of a step; the same step always gives the same batch."""
        rng = np.random.default_rng([SEED, step])
        chosen = rng.integers(0, len(self.images), count)
        pairs = [self._augment(rng, self.images[i], self.labels[i], size_px) for i in chosen]
        images = torch.from_numpy(np.stack([p[0] for p in pairs])).permute(0, 3, 1, 2)
        labels = torch.from_numpy(np.stack([p[1] for p in pairs]))
        return Batch(
            images.float().div_(255).contiguous(memory_format=torch.channels_last),
            labels[..., 1:].contiguous(),
            labels[..., :1].long(),
        )

    def _augment(
        self, rng: np.random.Generator, image: NDArray[np.uint8], labels: Array, size_px: int
    ) -> tuple[NDArray[np.uint8], Array]:
        """Returns the image turned by quarters, mirrored, zoomed, shifted, recoloured, with its labels."""
        source = image.shape[0]
        zoom = size_px / source * np.exp(rng.uniform(np.log(0.85), np.log(1.25)))
        quarter = int(rng.integers(0, 4)) * np.pi / 2
        turn = np.array([[np.cos(quarter), -np.sin(quarter)], [np.sin(quarter), np.cos(quarter)]]).round()
        turn[0] *= rng.choice((-1.0, 1.0))
        linear = turn * zoom
        shift = size_px / 2 + rng.uniform(-0.06, 0.06, 2) * size_px - linear @ np.full(2, source / 2)
        # warpAffine speaks of pixel centres, boxes of pixel edges.
        centre_shift = shift + linear @ np.full(2, 0.5) - 0.5
        matrix = np.concatenate([linear, centre_shift[:, None]], 1)
        warped = cv2.warpAffine(image, matrix, (size_px, size_px), borderValue=(PAD_VALUE,) * 3)
        return _recolour(rng, warped), _move_labels(labels, linear, shift, size_px)


def _move_labels(
    labels: Array, linear: NDArray[np.float64], shift: NDArray[np.float64], size_px: int
) -> Array:
    """Returns the labels (MAX_LABELS, 5) under x -> linear x + shift, without parts mostly out of view."""
    moved = np.full((MAX_LABELS, 5), -1, np.float32)
    known = labels[labels[:, 0] >= 0]
    first, second = known[:, 1:3] @ linear.T + shift, known[:, 3:5] @ linear.T + shift
    low, high = np.minimum(first, second), np.maximum(first, second)
    cut_low, cut_high = low.clip(0, size_px), high.clip(0, size_px)
    cut = cut_high - cut_low
    kept = (cut.prod(1) > 0.4 * (high - low).prod(1)) & (cut.min(1) > 3)
    rows = np.concatenate([known[:, :1], cut_low, cut_high], 1)[kept]
    moved[: len(rows)] = rows
    return moved


def _recolour(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the image with another brightness, contrast and cast, sometimes with swapped channels."""
    gain = np.exp(rng.normal(0, 0.12)) * (1 + rng.normal(0, 0.05, 3))
    offset = rng.normal(0, 8)
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    recoloured = cv2.LUT(image, table[None])
    return recoloured[..., rng.permutation(3)] if rng.random() < 0.15 else recoloured


class Average:
    """An exponential moving average of the weights and the batch statistics."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the model, faster at the start."""
        decay = self.decay * (1 - math.exp(-(step + 1) / 400))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Returns AdamW that decays convolution weights only, not batch norm and biases."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.03}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


class Run:
    """The state of a training run: what a checkpoint holds, and the threads that share the work.

    Each thread takes a part of the batch through a copy of the model, and the gradients are averaged. Threads
    inside an operator would wait for each other hundreds of times a step, which is slow where other programs
    want the cores.
    """

    def __init__(self, work: Path, threads: int) -> None:
        torch.manual_seed(SEED)
        torch.set_num_threads(1)
        self.model = Detector(len(CLASS_NAMES)).to(memory_format=torch.channels_last).train()
        self.average, self.optimizer = Average(self.model), make_optimizer(self.model)
        self.step, self.seconds = 0, 0.0
        self.path = work / "checkpoint.pt"
        work.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()
        self.copies = [self.model] + [copy.deepcopy(self.model) for _ in range(threads - 1)]
        self.pool = ThreadPoolExecutor(threads)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Writes everything that is needed to go on, whole or not at all."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.rename(self.path)

    @staticmethod
    def _gradients(model: Detector, batch: Batch) -> tuple[float, float]:
        """Computes the gradients of a part of the batch and returns its class and box losses."""
        model.zero_grad(set_to_none=True)
        loss, class_loss, box_loss = detection_loss(model.predict(batch.images), batch.boxes, batch.labels)
        loss.backward()
        return class_loss, box_loss

    def learn(self, batch: Batch, rate: float) -> tuple[float, float]:
        """Takes one step and returns the mean class and box losses."""
        with torch.no_grad():
            for other in self.copies[1:]:
                for mine, theirs in zip(other.parameters(), self.model.parameters(), strict=True):
                    mine.copy_(theirs)
        losses = list(self.pool.map(self._gradients, self.copies, batch.split(len(self.copies))))
        for same in zip(*(each.parameters() for each in self.copies), strict=True):
            grads = [parameter.grad for parameter in same if parameter.grad is not None]
            if grads:
                same[0].grad = torch.stack(grads).mean(0)
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        return float(np.mean([pair[0] for pair in losses])), float(np.mean([pair[1] for pair in losses]))


def train(cache: Path, work: Path, schedule: Schedule, threads: int) -> Detector:
    """Returns the averaged detector when the time is over, going on from a checkpoint in `work` if any."""
    run, loader = Run(work, threads), Loader(cache)
    before, started, first = run.seconds, time.perf_counter(), run.step
    with ThreadPoolExecutor(1) as ahead:

        def fetch(step: int, progress: float) -> Future[Batch]:
            size_px = schedule.input_size(progress)
            return ahead.submit(loader.batch, step, count=schedule.batch, size_px=size_px)

        progress = run.seconds / (60 * schedule.minutes)
        coming = fetch(run.step, progress)
        while progress < 1:
            batch, coming = coming.result(), fetch(run.step + 1, progress)
            class_loss, box_loss = run.learn(batch, schedule.rate(run.step, progress))
            run.seconds = before + time.perf_counter() - started
            progress = run.seconds / (60 * schedule.minutes)
            if run.step % 50 == 0:
                speed = (run.step - first) * schedule.batch / (run.seconds - before)
                state = f"{progress:.0%} step {run.step} class {class_loss:.3f} box {box_loss:.3f}"
                print(f"{state} {speed:.0f} images/s", flush=True)
            if run.step % 200 == 0:
                run.save()
    run.save()
    return run.average.model


def export(model: Detector, path: Path, size_px: int) -> None:
    """Writes the detector as ONNX, opset 17, batch 1, with the metadata that detectors customarily carry."""
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    example = torch.zeros(1, 3, size_px, size_px)
    torch.onnx.export(
        copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval(),
        (example,),
        str(part),
        opset_version=17,
        input_names=["images"],
        output_names=["output0"],
        dynamo=False,
    )
    graph = onnx.load(part)
    about = {
        "description": "edgeq demo detector, trained from scratch on rendered images",
        "license": "Apache-2.0",
        "task": "detect",
        "stride": str(max(STRIDES)),
        "imgsz": str([size_px, size_px]),
        "names": str(dict(enumerate(CLASS_NAMES))),
    }
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, part)
    part.rename(path)


def main() -> None:
    """Trains, then exports; with --export-only exports the last checkpoint."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo" / "model.onnx")
    parser.add_argument("--minutes", type=float, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--size", type=int, default=320, help="side of the input in pixels")
    parser.add_argument("--early-size", type=int, default=256)
    parser.add_argument("--early-share", type=float, default=0.72)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.export_only:
        model = Detector(len(CLASS_NAMES))
        model.load_state_dict(torch.load(args.work / "checkpoint.pt", weights_only=True)["average"])
    else:
        schedule = Schedule(args.minutes, args.batch, args.rate, args.size, args.early_size, args.early_share)
        model = train(args.cache, args.work, schedule, args.threads)
    export(model, args.out, args.size)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
