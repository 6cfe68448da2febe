"""What a change of a file is worth: accuracy by paired answers, time by runs in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.guard import Verdict, judge
from kinglet.compression.quantization import compare
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval, paired_interval
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.latency import time_in_turns, timed_action
from kinglet.runtime.sessions import open_session, run

BATCH_SIZE = 32
# Divergence needs fewer images than counting errors does.
DIVERGENCE_IMAGES = 128


@dataclass(frozen=True)
class Effect:
    """What a change is worth against the file as it is.

    accuracy: of the changed file minus that of the file, over the same images, [-1, 1]. latency: of the changed
    file minus that of the file, microseconds at batch 1; None where it was not timed. latency_share: the same as
    a share of the file's latency.
    """

    accuracy: Interval
    latency: Interval | None = None
    latency_share: float | None = None

    def is_faster(self, share: float) -> bool:
        """Whether the change takes off at least this share of the latency, its interval below 0."""
        return bool(self.latency is not None and self.latency.high < 0 and (self.latency_share or 0.0) <= -share)

    def to_dict(self) -> dict[str, Any]:
        """Return the effect as JSON-ready values: accuracy in [-1, 1], latency in microseconds."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "latency_us": None if self.latency is None else self.latency.to_dict(),
            "latency_share": None if self.latency_share is None else round(self.latency_share, 4),
        }


def difference(
    logits: NDArray[np.float32], other: NDArray[np.float32], labels: NDArray[np.int64], confidence: float = 0.95
) -> Interval:
    """Return the accuracy of the first logits minus that of the others, paired, [-1, 1].

    logits, other: float32 (n, n_classes) for the same images. labels: int64 (n,).
    """
    return paired_interval(logits.argmax(1) == labels, other.argmax(1) == labels, confidence=confidence)


class Trials:
    """Labelled images that files are tried on.

    inputs: float32 (n, channels, height, width), prepared as the file wants them. labels: int64 (n,).
    reference: logits of the float file or of its stand-in. tolerance: accuracy that may be lost.
    """

    def __init__(
        self, inputs: NDArray[np.float32], labels: NDArray[np.int64], reference: onnx.ModelProto, tolerance: float
    ) -> None:
        self.inputs, self.labels, self.tolerance = inputs, labels, tolerance
        self.reference = logits_of(reference, inputs)

    def verdict(self, model: onnx.ModelProto) -> Verdict:
        """Return whether a file is within the tolerance of the reference."""
        return judge(logits_of(model, self.inputs), self.reference, self.labels, self.tolerance)

    def divergence(self, model: onnx.ModelProto) -> float:
        """Return the divergence of a file's answers to the first images from the reference, in nats."""
        n = min(DIVERGENCE_IMAGES, len(self.inputs))
        return compare(self.reference[:n], logits_of(model, self.inputs[:n]))[1]


def logits_of(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a file's logits, float32 (n, n_classes), as ONNX Runtime computes them where sums do not saturate.

    Raises KingletError if they are not finite: nothing can be compared then.
    """
    session = open_session(model.SerializeToString(), threads=1)
    parts = [run(session, inputs[start : start + BATCH_SIZE]) for start in range(0, len(inputs), BATCH_SIZE)]
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise KingletError(
            f"The file answers NaN or infinity to {int((~np.isfinite(logits)).any(1).sum())} of {len(logits)} images.",
            "Check the float file: rounding to integers cannot bring this about.",
        )
    return logits


def latency_changes(
    model: onnx.ModelProto, changed: Mapping[str, onnx.ModelProto], seconds: float, threads: int = 1
) -> tuple[float, dict[str, Interval]]:
    """Return a file's median latency in microseconds at batch 1, and what changed files take more or less.

    All run in turns. A change is the median of the differences round by round, with its interval over rounds: what
    slows the machine for a moment slows both. seconds: for each file.
    """
    models = {"": model, **changed}
    actions = {
        name: timed_action(engine_of(open_session(item.SerializeToString(), threads, exact_sums=False)), 1)
        for name, item in models.items()
    }
    rounds = {
        name: 1000 * np.array([np.median(times) for times in blocks])
        for name, blocks in time_in_turns(actions, seconds).items()
    }
    return float(np.median(rounds[""])), {name: _median_change(rounds[name] - rounds[""]) for name in changed}


def _median_change(differences: NDArray[np.float64], confidence: float = 0.95, resamples: int = 2000) -> Interval:
    places = np.random.default_rng(0).integers(0, len(differences), (resamples, len(differences)))
    medians = np.median(differences[places], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(np.median(differences))
    return Interval(value, min(float(low), value), max(float(high), value))
