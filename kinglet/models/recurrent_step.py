"""One step of the recurrent part of a clip classifier, of matrix products and activations, as a file holds it.

ONNX's own GRU and LSTM take whole sequences, and no tool brings them to int8 on every processor; matrix products are
brought there by any.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class RecurrentStep(nn.Module):
    """Takes features (n, feature_size) and the state (n, state_size), which begins with zeros.

    Returns logits (n, n_classes) and the next state (n, state_size). The state holds what the memory hands on, then
    the features of the frame before, and last whether there was one. layer: what the memory is trained as. states: how
    many numbers a unit of it hands on.
    """

    layer: ClassVar[type[nn.GRU] | type[nn.LSTM]]
    states: ClassVar[int]

    def __init__(self, embed: nn.Linear, layer: nn.GRU | nn.LSTM, classifier: nn.Linear) -> None:
        super().__init__()
        self.units = layer.hidden_size
        # Transposed copies: a stored right factor, which the runtime packs and the quantizer finds.
        for name, matrix, bias in (
            ("embed", embed.weight, embed.bias),
            ("input", layer.get_parameter("weight_ih_l0"), layer.get_parameter("bias_ih_l0")),
            ("state", layer.get_parameter("weight_hh_l0"), layer.get_parameter("bias_hh_l0")),
            ("classifier", classifier.weight, classifier.bias),
        ):
            self.register_buffer(f"{name}_weight", matrix.detach().t().contiguous().clone())
            self.register_buffer(f"{name}_bias", bias.detach().clone())

    @property
    def feature_size(self) -> int:
        """How many numbers it takes of a frame."""
        return self.get_buffer("embed_weight").shape[0] // 2

    @property
    def memory_size(self) -> int:
        """How many numbers the memory hands on."""
        return self.states * self.units

    @property
    def state_size(self) -> int:
        """How many numbers are handed on in all."""
        return self.memory_size + self.feature_size + 1

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the next state."""
        memory, previous, was_one = state.split([self.memory_size, self.feature_size, 1], 1)
        change = (features - previous) * was_one
        seen = torch.relu(self.product("embed", torch.cat([features, change], 1)))
        shown, memory = self.remember(seen, memory)
        return self.product("classifier", shown), torch.cat([memory, features, was_one * 0 + 1], 1)

    def remember(self, seen: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the memory shows, (n, units), and what it hands on, (n, memory_size)."""
        raise NotImplementedError

    def product(self, name: str, x: Tensor) -> Tensor:
        """Return x (n, k) times a stored matrix plus its bias."""
        return torch.matmul(x, self.get_buffer(f"{name}_weight")) + self.get_buffer(f"{name}_bias")

    def gates(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        """Return such a product by gates, (n, units) each."""
        # In pieces of a fixed length: a number of pieces would be reckoned from shapes each time.
        return self.product(name, x).split(self.units, 1)


class GruStep(RecurrentStep):
    """A step whose memory is a GRU, as `torch.nn.GRUCell` defines it."""

    layer = nn.GRU
    states = 1

    def remember(self, seen: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next memory, twice."""
        reset_of_input, update_of_input, new_of_input = self.gates("input", seen)
        reset_of_memory, update_of_memory, new_of_memory = self.gates("state", memory)
        reset = torch.sigmoid(reset_of_input + reset_of_memory)
        update = torch.sigmoid(update_of_input + update_of_memory)
        new = torch.tanh(new_of_input + reset * new_of_memory)
        # (1 - update) * new + update * memory, with a product less.
        memory = new + update * (memory - new)
        return memory, memory


class LstmStep(RecurrentStep):
    """A step whose memory is an LSTM, as `torch.nn.LSTMCell` defines it. It holds h, then c."""

    layer = nn.LSTM
    states = 2

    def remember(self, seen: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return h, and h with c."""
        hidden, cell = memory.split(self.units, 1)
        sums = self.product("input", seen) + self.product("state", hidden)
        admit, forget, new, show = sums.split(self.units, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(admit) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return hidden, torch.cat([hidden, cell], 1)


# A new kind of memory is a class and a line here; `recurrent.kind` in params.yaml takes its names from the keys.
CELLS: dict[str, type[RecurrentStep]] = {"gru": GruStep, "lstm": LstmStep}
