"""Which scale of the pixels a given classifier expects: said by a person, written in its file, or found out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.adoption import facts_of
from kinglet.adoption.channel_order import red_first
from kinglet.adoption.normalizations import (
    NORMALIZATIONS,
    OWN,
    Discovery,
    Normalization,
    discover,
    own_normalization,
)
from kinglet.errors import KingletError
from kinglet.models.onnx_graph import read_metadata
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import logits_of, open_session
from tasks.held_out import HeldOut
from tasks.optimize_options import PixelOptions, named_normalization

TRIED_IMAGES = 500
SAID, WRITTEN, FOUND = "as given", "as the file says", "found out"


@dataclass(frozen=True)
class Scale:
    """The scale of the pixels. how: SAID, WRITTEN or FOUND. discovery: how right the model is under it, and others."""

    how: str
    name: str
    normalization: Normalization
    discovery: Discovery

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        found = self.discovery
        return {
            "how": self.how,
            "normalization": self.name,
            "tried": {name: interval.to_dict() for name, interval in found.accuracies.items()},
            "tried_on_images": found.n_images,
            "lead": None if found.lead is None else {"before": found.second, **found.lead.to_dict()},
            "certain": found.is_certain,
        }

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        found = self.discovery
        best = found.accuracies[self.name]
        right = f"right on {100 * best.value:.1f} % of {found.n_images} images"
        if found.second is None or found.lead is None:
            return f"{self.name}, {self.how}: {right}"
        second = found.accuracies[found.second]
        bounds = f"{100 * found.lead.low:+.1f} to {100 * found.lead.high:+.1f} points"
        doubt = "" if found.is_certain else f"; these images cannot tell the two apart ({bounds})"
        return f"{self.name}, {self.how}: {right}, under {found.second} on {100 * second.value:.1f} %{doubt}"


def find_scale(
    model: onnx.ModelProto, packed: NDArray[np.uint8], parts: list[HeldOut], fit: str, options: PixelOptions
) -> Scale:
    """Return the scale of the pixels for an adopted model, tried on the first images of these parts.

    Raises KingletError if the model does no better than guessing under any.
    """
    rows = np.concatenate([part.rows for part in parts])[:TRIED_IMAGES]
    labels = np.concatenate([part.labels for part in parts])[:TRIED_IMAGES]
    how, candidates = candidates_for(model, packed, rows, options)
    facts = facts_of(model)
    logits = {}
    for name, item in candidates.items():
        session = open_session(oriented(model, item).SerializeToString(), threads=1)
        preprocessing = Preprocessing(facts.input_size, facts.channels, fit, item.mean, item.std)
        logits[name] = logits_of(session, packed, rows, preprocessing, workers=available_processors())
    discovery = discover(logits, labels)
    scale = Scale(how, discovery.best, candidates[discovery.best], discovery)
    refuse_guessing(scale, labels, str(options.model))
    print(f"note: scale of the pixels: {scale.sentence}", file=sys.stderr)
    if not discovery.is_certain:
        print("note: if you know better, say so: --preprocessing NAME, or --mean and --std", file=sys.stderr)
    return scale


def oriented(model: onnx.ModelProto, normalization: Normalization) -> onnx.ModelProto:
    """Return the model as one that takes red first, if under this scale it takes blue first."""
    return red_first(model) if normalization.blue_first else model


def candidates_for(
    model: onnx.ModelProto, packed: NDArray[np.uint8], rows: NDArray[np.int64], options: PixelOptions
) -> tuple[str, dict[str, Normalization]]:
    """Return how the scale is known, and the ones to try by name: one where it is known."""
    channels = facts_of(model).channels
    known = known_scale(options, channels, read_metadata(model).get("preprocessing"))
    if known is not None:
        how, name, normalization = known
        return how, {name: normalization}
    usual = {
        name: item.of_channels(channels)
        for name, item in NORMALIZATIONS.items()
        if channels == 3 or not item.blue_first
    }
    return FOUND, {**usual, OWN: own_normalization(np.asarray(packed[rows]))}


def known_scale(
    options: PixelOptions, channels: int, written: dict[str, Any] | None
) -> tuple[str, str, Normalization] | None:
    """Return how the scale is known, its name and the scale: as a person says, else as a file does; None if neither.

    written: the preprocessing in the file's metadata, None where it has none.
    """
    named = named_normalization(options, channels)
    if named is not None:
        return SAID, *named
    if written is not None:
        return WRITTEN, "kinglet", Normalization(tuple(written["mean"]), tuple(written["std"]))
    return None


def refuse_guessing(scale: Scale, labels: NDArray[np.int64], name: str) -> None:
    """Raise KingletError if the model is not right more often than one that guesses among the classes."""
    n_classes = len(set(labels.tolist()))
    accuracy = scale.discovery.accuracies[scale.name]
    if accuracy.low <= 1 / n_classes:
        raise KingletError(
            f"{name} is right on {100 * accuracy.value:.1f} % of {len(labels)} images of {n_classes} classes, "
            "no better than guessing.",
            "Do the folders' names, sorted, name its outputs in their order? If not: --classes FILE. Were its pixels "
            "scaled in a way of their own? Then: --mean and --std.",
        )
