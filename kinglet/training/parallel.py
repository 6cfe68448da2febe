"""One network trained on several devices, by a process each: every batch is shared out, gradients are averaged.

Source: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training". Batch normalization
takes its statistics from a process's share of the batch; those of the first are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from kinglet.errors import KingletError
from kinglet.training.devices import pick_device

# Set by torchrun in each process that it starts.
RANK, SIZE = "RANK", "WORLD_SIZE"


@dataclass(frozen=True)
class Team:
    """The processes that train one network. rank: of this one, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that scores, saves and reports."""
        return self.rank == 0

    def share(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part of a batch; all get as many, and what is left over is left out.

        With parts of different sizes the average of gradients would not be that of the batch.
        """
        whole = len(positions) // self.size * self.size
        return positions[:whole][self.rank :: self.size]

    def replicated(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network as the team trains it: its gradients, and at first its weights, are everybody's."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)

    def mean(self, value: float, device: torch.device) -> float:
        """Return the mean of a number over the team; one that is not finite makes it so for all."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        return float(summed) / self.size

    def told(self, value: float, device: torch.device) -> float:
        """Return the leader's number."""
        if self.size == 1:
            return value
        sent = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.broadcast(sent, src=0)
        return float(sent)


ALONE = Team()


def is_member() -> bool:
    """Return whether this process was started as one of a team."""
    return RANK in os.environ and SIZE in os.environ


@contextmanager
def joined(names: Sequence[str]) -> Iterator[tuple[Team, torch.device]]:
    """Yield the team that this process belongs to and the device it trains on.

    names: the devices, one for each process of the team, as torch calls them ("cuda:0", "cpu"); none for the best
    that there is. Raises KingletError for one that is not there.
    """
    if not is_member():
        yield ALONE, device_called(names[0]) if names else pick_device()
        return
    team = Team(int(os.environ[RANK]), int(os.environ[SIZE]))
    device = device_called(names[team.rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield team, device
    finally:
        distributed.destroy_process_group()


def device_called(name: str) -> torch.device:
    """Return a device by its name; raises KingletError if torch has none that is called so here."""
    count = torch.cuda.device_count()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise KingletError(
            f"finetune.devices names {name!r}, which torch does not know.", "Say cpu or cuda:0."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= count:
        raise KingletError(
            f"finetune.devices names {name}, but torch sees {count} GPUs here.",
            "Name those that are there, or write [] for the best one.",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise KingletError(f"finetune.devices names {name}, which is not here.", "Write [] for the best that is.")
    return device
