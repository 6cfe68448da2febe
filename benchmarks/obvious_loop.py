"""One block of training with the loop that most people write, for the benchmark `training_speed`.

A `Dataset` opens an image file with Pillow, resizes, augments and normalizes it; a `DataLoader` with
workers makes batches; the network is in the default memory format with plain `nn.Conv2d` everywhere.
Prints one JSON object. Started by `benchmarks.training_speed`, a new process for every block:

    .venv/bin/python -m benchmarks.obvious_loop SET.json --steps 62 --workers 2
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.kinglet_loop import BACKBONE
from benchmarks.training_set import TrainingSet, read_training_set
from kinglet.models.depthwise import DepthwiseConv2d
from kinglet.models.pointwise import PointwiseConv2d
from kinglet.models.registry import normalization, pretrained
from kinglet.runtime.processors import available_processors
from tasks.parameters import load_parameters
from tasks.training_settings import Finetune


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files, decoded and augmented one by one: mirrored or not, moved by up to 7 % of the edge."""

    def __init__(self, images: TrainingSet) -> None:
        self.images = images
        self.reach = max(1, round(0.07 * images.size))
        mean, std = normalization(images.channels)
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        size, reach = self.images.size, self.reach
        with Image.open(self.images.paths[index]) as opened:
            image = opened.convert("L" if self.images.channels == 1 else "RGB")
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        left, top = random.randint(0, 2 * reach), random.randint(0, 2 * reach)
        image = ImageOps.expand(image, reach).crop((left, top, left + size, top + size))
        pixels = torch.from_numpy(np.array(image, np.float32) / 255).view(size, size, -1).permute(2, 0, 1)
        return (pixels - self.mean) / self.std, self.images.labels[index]


def with_plain_convolutions(network: nn.Module) -> nn.Module:
    """Return the network with Kinglet's own kinds of convolution replaced by torch's, same weights."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, DepthwiseConv2d | PointwiseConv2d):
                plain = nn.Conv2d(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size[0],
                    child.stride[0],
                    child.padding[0],
                    groups=child.groups,
                    bias=False,
                )
                plain.load_state_dict(child.state_dict())
                setattr(module, name, plain)
    return network


def step_ends(images: TrainingSet, settings: Finetune, steps: int, workers: int) -> list[float]:
    """Return when each of `steps` training steps ended, in seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(available_processors())
    loader = DataLoader(
        ImageFiles(images), batch_size=settings.batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    network = with_plain_convolutions(
        pretrained(BACKBONE, images.channels, images.n_classes, settings.dropout)[0]
    ).train()
    criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    ends = []
    running_loss = 0.0
    for step, (pixels, labels) in enumerate(loader, 1):
        optimizer.zero_grad()
        loss = criterion(network(pixels), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        ends.append(time.perf_counter())
        if step == steps:
            break
    return ends


def main() -> None:
    """Train and print when each step ended."""
    parser = argparse.ArgumentParser(description="One block of training with the obvious PyTorch loop.")
    parser.add_argument("images", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    images, settings = read_training_set(options.images), load_parameters().finetune
    ends = step_ends(images, settings, options.steps, options.workers)
    print(json.dumps({"step_ends": ends, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
