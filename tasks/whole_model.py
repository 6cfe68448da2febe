"""A trained model before anything is cut, with what a cut needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kinglet.compression.pruning import Batch, BatchLoss
from tasks.artifacts import ModelCard

# How many batches say which channels matter, and how many others what the loss of a block does.
IMPORTANCE_BATCHES, HELD_OUT_BATCHES = 8, 2

Images = TypeVar("Images")


@dataclass(frozen=True)
class Whole(Generic[Images]):
    """A trained model before anything is cut.

    training: what it is trained back on, with images without a label. batches: (inputs, targets) of training images
    as the network takes them and the loss knows them. held_out: inputs of others. loss: of what the network returns
    for a batch, and its targets.
    """

    folder: Path
    network: nn.Module
    card: ModelCard
    training: Images
    validation: Images
    batches: list[Batch]
    held_out: Tensor
    loss: BatchLoss = functional.cross_entropy

    @property
    def inputs(self) -> NDArray[np.float32]:
        """A batch of inputs."""
        inputs: NDArray[np.float32] = self.batches[0][0].numpy()
        return inputs
