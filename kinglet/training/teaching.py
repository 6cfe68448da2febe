"""A teacher that answers the very pictures that another network learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinglet.training.devices import autocast
from kinglet.training.epochs import in_single_precision


@dataclass(frozen=True)
class Teaching:
    """The network to learn from, and its share of the loss, [0, 1]; the rest is the labels'."""

    teacher: nn.Module
    share: float

    def teacher_on(self, device: torch.device) -> nn.Module:
        """Return the teacher on a device, in evaluation mode."""
        return self.teacher.eval().to(device)


@torch.no_grad()
def answered(teacher: nn.Module | None, inputs: Tensor, precision: str) -> Any:
    """Return what a teacher says of a batch of inputs, float32: logits alone, or with more; None without a teacher."""
    if teacher is None:
        return None
    with autocast(inputs.device, precision):
        outputs = teacher(inputs)
    return in_single_precision(outputs)
