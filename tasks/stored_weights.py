"""Models that stay float with their weights in fewer bits: written beside the int8 models, and judged as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx

from kinglet.atomic import write_bytes
from kinglet.compression.judge import Judge
from kinglet.compression.stored_weights import store_weights
from kinglet.runtime.bundles import MODEL
from tasks.artifacts import QUANTIZE, ModelCard, write_card


def write_stored_weights(
    model: onnx.ModelProto,
    card: ModelCard,
    judge: Judge,
    storages: Sequence[str],
    tolerance: float,
    warn: Callable[[str], None],
) -> None:
    """Write the float model with its weights in each of these types, where the guard lets it pass.

    card: of the float model. judge: holds models against it. tolerance: as for int8, [0, 1). warn: is told in a
    sentence which was not kept.
    """
    for storage in storages:
        output = QUANTIZE / f"{card.name}-{storage}-weights"
        stored = store_weights(model, storage)
        verdict = judge.verdict(stored.model, card.preprocessing, tolerance)
        if not verdict.is_enough:
            shutil.rmtree(output, ignore_errors=True)
            warn(
                f"{output.name} is not kept: {verdict.metric} {100 * verdict.difference.value:+.2f} points to "
                f"{card.name}, and quantize.tolerance is {100 * tolerance:g}."
            )
            continue
        write_bytes(output / MODEL, stored.model.SerializeToString())
        notes = {"layers": stored.layers, "float_layers": stored.left, "guard": verdict.to_dict()}
        made = replace(card, name=output.name, step="quantize", parent=card.name, control_for="", notes=notes)
        write_card(output, replace(made, precision=f"{storage} weights"))
