"""Quantization-aware training: the network learns with the rounding of its int8 file in its forward pass.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference": fake quantization with straight-through gradients, batch
normalization folded before, ranges of activations as moving averages.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from kinglet.models.export import fold_batch_norms
from kinglet.reporting import Report, silent

RANGE_MOMENTUM = 0.05


class RoundedWeight(nn.Module):
    """Weights as their int8 file will hold them: symmetric, one scale per output channel."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        # ONNX Runtime scales 8-bit weights to -127..127, and 7-bit ones to -64..64.
        self.limit = 64 if bits == 7 else 127

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight rounded to its int8 grid."""
        scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-8) / self.limit
        zero_points = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_points, 0, -self.limit, self.limit)


class RoundedInput(nn.Module):
    """Activations as uint8 with a range that follows what passes through while training."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation rounded to its uint8 grid."""
        if self.training:
            low, high = torch.aminmax(x.detach())
            momentum = 1.0 if float(self.high) == float(self.low) else RANGE_MOMENTUM
            self.low.lerp_(low.clamp_max(0), momentum)
            self.high.lerp_(high.clamp_min(0), momentum)
        if float(self.high) == float(self.low):
            return x  # no range was seen yet
        scale = float((self.high - self.low).clamp_min(1e-8)) / 255
        zero_point = min(255, max(0, round(-float(self.low) / scale)))
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


def simulate_int8(network: nn.Module, weight_bits: int) -> nn.Module:
    """Return a copy of `network` with folded batch normalization whose layers compute with int8's rounding."""
    # The biases that folding makes do not ask for gradients by themselves.
    simulated = fold_batch_norms(network).requires_grad_(True)
    for parent in list(simulated.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d | nn.Linear):
                parametrize.register_parametrization(child, "weight", RoundedWeight(weight_bits))
                setattr(parent, name, nn.Sequential(RoundedInput(), child))
    return simulated


def without_simulation(simulated: nn.Module) -> nn.Module:
    """Return the trained network as plain layers whose weights are the rounded ones; changes `simulated`."""
    for parent in list(simulated.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Sequential) and len(child) == 2 and isinstance(child[0], RoundedInput):
                parametrize.remove_parametrizations(child[1], "weight", leave_parametrized=True)
                setattr(parent, name, child[1])
    return simulated.eval()


def train_simulated(
    simulated: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    n_steps: int,
    learning_rate: float,
    report: Report = silent,
) -> None:
    """Train a simulated network towards the logits of its float original, in place.

    batches: pairs of inputs (n, channels, height, width) and the original's logits (n, n_classes).
    """
    optimizer = torch.optim.AdamW(simulated.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    simulated.train()
    for step, (inputs, logits) in zip(range(n_steps), batches, strict=False):
        loss = functional.kl_div(
            functional.log_softmax(simulated(inputs), 1),
            functional.log_softmax(logits, 1),
            log_target=True,
            reduction="batchmean",
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step + 1, n_steps, f"loss {loss.item():.4f}")
    simulated.eval()
