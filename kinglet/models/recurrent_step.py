"""One step of a recurrent layer and its classifier, of matrix products and activations, as a file holds it.

ONNX's own GRU and LSTM take whole sequences, and no tool brings them to int8 on every processor; matrix products are
brought there by any.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

FEATURES_NAME, STATE_NAME, NEXT_STATE_NAME = "features", "state", "next_state"


class RecurrentStep(nn.Module):
    """Takes features (n, feature_size) and the state (n, state_size), which begins with zeros.

    Returns logits (n, n_classes) and the next state (n, state_size). layer: what it is trained as. states: how many
    numbers a unit hands on.
    """

    layer: ClassVar[type[nn.GRU] | type[nn.LSTM]]
    states: ClassVar[int]

    def __init__(self, layer: nn.GRU | nn.LSTM, classifier: nn.Linear) -> None:
        super().__init__()
        self.units = layer.hidden_size
        # Transposed copies: a stored right factor, which the runtime packs and the quantizer finds.
        for name, matrix, bias in (
            ("input", layer.get_parameter("weight_ih_l0"), layer.get_parameter("bias_ih_l0")),
            ("state", layer.get_parameter("weight_hh_l0"), layer.get_parameter("bias_hh_l0")),
            ("classifier", classifier.weight, classifier.bias),
        ):
            self.register_buffer(f"{name}_weight", matrix.detach().t().contiguous().clone())
            self.register_buffer(f"{name}_bias", bias.detach().clone())

    @property
    def feature_size(self) -> int:
        """How many numbers it takes of a frame."""
        return self.get_buffer("input_weight").shape[0]

    @property
    def state_size(self) -> int:
        """How many numbers it hands on."""
        return self.states * self.units

    def product(self, name: str, x: Tensor) -> Tensor:
        """Return x (n, k) times a stored matrix plus its bias."""
        return torch.matmul(x, self.get_buffer(f"{name}_weight")) + self.get_buffer(f"{name}_bias")

    def gates(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        """Return such a product by gates, (n, units) each."""
        # In pieces of a fixed length: a number of pieces would be reckoned from shapes each time.
        return self.product(name, x).split(self.units, 1)


class GruStep(RecurrentStep):
    """A step of a GRU, as `torch.nn.GRUCell` defines it."""

    layer = nn.GRU
    states = 1

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the next state."""
        reset_of_input, update_of_input, new_of_input = self.gates("input", features)
        reset_of_state, update_of_state, new_of_state = self.gates("state", state)
        reset = torch.sigmoid(reset_of_input + reset_of_state)
        update = torch.sigmoid(update_of_input + update_of_state)
        new = torch.tanh(new_of_input + reset * new_of_state)
        # (1 - update) * new + update * state, with a product less.
        next_state = new + update * (state - new)
        return self.product("classifier", next_state), next_state


class LstmStep(RecurrentStep):
    """A step of an LSTM, as `torch.nn.LSTMCell` defines it. The state holds h, then c."""

    layer = nn.LSTM
    states = 2

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the next state."""
        hidden, cell = state.split(self.units, 1)
        sums = self.product("input", features) + self.product("state", hidden)
        admit, forget, new, show = sums.split(self.units, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(admit) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return self.product("classifier", hidden), torch.cat([hidden, cell], 1)


# A new kind of memory is a class and a line here; `recurrent.kind` in params.yaml takes its names from the keys.
CELLS: dict[str, type[RecurrentStep]] = {"gru": GruStep, "lstm": LstmStep}
