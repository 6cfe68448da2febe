"""Torch-Pruning: half of the channels by group L2 norm, then fine-tuning for the time that was given.

The library's recipe: dependency graph, `GroupMagnitudeImportance`, the classifier spared, channels in
multiples of 8, SGD with momentum afterwards. Its learning rate falls along a cosine over the whole time;
images are mirrored at random. Training is plain PyTorch with what any user sets for a CPU: all cores,
channels_last.
Source: VainF/Torch-Pruning, README.md ("High-level Pruners") and reproduce/main.py
"""

from __future__ import annotations

import copy
import math
import time

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.recipes.task import Task, read_task

CHANNEL_SHARE = 0.5
ROUND_TO = 8
BATCH_SIZE = 128
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
WARMUP_SHARE = 0.05
INPUT_NAME, OUTPUT_NAME, OPSET = "images", "logits", 18


class TrainingImages(Dataset[tuple[Tensor, Tensor]]):
    """Batches of the training split, standardized; item i is batch i of the order that `shuffle` drew."""

    def __init__(self, task: Task) -> None:
        self.images, self.rows, self.labels = (task.array(f"train_{part}") for part in ("images", "rows", "labels"))
        self.mean, self.std = (torch.tensor(task.facts[name]).view(-1, 1, 1) for name in ("mean", "std"))
        self.generator = torch.Generator().manual_seed(task.facts["seed"])
        self.shuffle()

    def shuffle(self) -> None:
        """Draw a new order."""
        self.order = torch.randperm(len(self.rows), generator=self.generator).numpy()

    def __len__(self) -> int:
        return len(self.rows) // BATCH_SIZE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        chosen = self.order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        pixels = torch.from_numpy(self.images[self.rows[chosen]]).permute(0, 3, 1, 2)
        images = (pixels / 255 - self.mean) / self.std
        is_mirrored = torch.rand(len(images), 1, 1, 1, generator=self.generator) < 0.5
        return torch.where(is_mirrored, images.flip(3), images), torch.from_numpy(self.labels[chosen])


def prune(network: nn.Module, task: Task) -> nn.Module:
    """Return a copy of the network without half of its channels."""
    pruned = copy.deepcopy(network).eval()
    size, channels = task.facts["input_size"], task.facts["channels"]
    torch_pruning.pruner.BasePruner(
        pruned,
        torch.zeros(2, channels, size, size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=CHANNEL_SHARE,
        round_to=ROUND_TO,
        ignored_layers=[module for module in pruned.modules() if isinstance(module, nn.Linear)],
    ).step()
    return pruned


def fine_tune(network: nn.Module, task: Task) -> tuple[float, float]:
    """Train until the time is up; return the epochs and the seconds that it took."""
    seconds: float = task.facts["training_seconds"]
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    images = TrainingImages(task)
    batches = DataLoader(images, batch_size=None)
    started = time.perf_counter()
    n_steps = 0
    while True:
        images.shuffle()
        for inputs, labels in batches:
            gone = (time.perf_counter() - started) / seconds
            if gone >= 1:
                return n_steps / len(images), gone * seconds
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1, gone / WARMUP_SHARE) * (1 + math.cos(math.pi * gone)) / 2
            loss = functional.cross_entropy(network(inputs.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_steps += 1
            if n_steps % 50 == 0:
                print(f"{gone:.0%} loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Prune, fine-tune, export."""
    task = read_task()
    torch.manual_seed(task.facts["seed"])
    torch.set_num_threads(task.facts["threads"])
    teacher = torch.load(task.folder / "teacher.pt", weights_only=False)
    network = prune(teacher, task)
    epochs, seconds = fine_tune(network, task)
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.inference_mode():
        accuracy = task.accuracy(lambda batch: network(torch.from_numpy(batch)).numpy())
    size, channels = task.facts["input_size"], task.facts["channels"]
    torch.onnx.export(
        network,
        (torch.zeros(2, channels, size, size),),
        task.output / "model.onnx",
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    task.write_settings(
        f"{CHANNEL_SHARE:.0%} of the channels by group L2, {epochs:.1f} epochs of fine-tuning, fp32",
        choice_accuracy=accuracy,
        epochs=round(epochs, 2),
        training_seconds=round(seconds, 1),
    )


if __name__ == "__main__":
    main()
