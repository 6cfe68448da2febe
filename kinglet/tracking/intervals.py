"""Intervals of the scores of tracks, and of what two models' tracks of the same sequences differ by.

Where there are sequences enough, they are drawn anew with replacement, the same ones for both models. A few sequences
cannot be drawn from; there, windows of frames in a row are left out one after the other, and the spread of the scores
without them gives the interval (the jackknife over blocks). Those intervals say how far the frames of these sequences
carry, and nothing about other sequences.
Source: Efron and Tibshirani 1993, chapter 13; Kuensch 1989, "The Jackknife and the Bootstrap for General Stationary
Observations", for blocks that depend on one another inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from kinglet.evidence.bootstrap import Interval
from kinglet.tracking.scores import COMPARED, Counts, compared, count, scores_of
from kinglet.tracking.tracks import Tracks

# From so many sequences on, they are what is drawn.
FEWEST_SEQUENCES = 8
RESAMPLES = 1000
# Windows of all sequences together, as far as each keeps so many frames; fewer than so many say nothing.
WINDOWS, FEWEST_FRAMES, FEWEST_WINDOWS = 20, 10, 4
SEQUENCES, BLOCKS, NONE = "sequences", "windows of frames", "none: too few frames"


@dataclass(frozen=True)
class Tracked:
    """One sequence: its true tracks, and those of a model. n_frames: how many it has."""

    truth: Tracks
    tracks: Tracks
    n_frames: int


@dataclass(frozen=True)
class Replicates:
    """The scores of a model on all sequences, and on what was drawn or left of them.

    values: (n_scores,), in the order of `COMPARED`. drawn: (n_replicates, n_scores). over: SEQUENCES, BLOCKS or NONE.
    """

    values: NDArray[np.float64]
    drawn: NDArray[np.float64]
    over: str

    def minus(self, other: Replicates) -> Replicates:
        """Return the paired difference to another model's, on the same sequences."""
        if self.over != other.over or self.drawn.shape != other.drawn.shape:
            raise ValueError("a difference needs two models on the same sequences")
        return Replicates(self.values - other.values, self.drawn - other.drawn, self.over)

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval | None]:
        """Return each score with its interval; None where there are too few frames for one."""
        if self.over == NONE:
            return dict.fromkeys(COMPARED)
        bounds = quantile_bounds if self.over == SEQUENCES else jackknife_bounds
        lows, highs = bounds(self.values, self.drawn, confidence)
        return {
            name: Interval(float(value), float(min(low, value)), float(max(high, value)))
            for name, value, low, high in zip(COMPARED, self.values, lows, highs, strict=True)
        }


def replicates_of(sequences: Sequence[Tracked], counts: Sequence[Counts], seed: int = 0) -> Replicates:
    """Return a model's scores over its sequences, and over resamples of them or without a window of frames each.

    counts: of each sequence, as `count` gives them. The same sequences and seed give the same resamples and windows
    for every model.
    """
    values = compared(scores_of(counts))
    if len(sequences) >= FEWEST_SEQUENCES:
        generator = np.random.default_rng(seed)
        places = generator.integers(len(counts), size=(RESAMPLES, len(counts)))
        drawn = np.array([compared(scores_of([counts[place] for place in row])) for row in places.tolist()])
        return Replicates(values, drawn, SEQUENCES)
    windows = windows_of([sequence.n_frames for sequence in sequences])
    if len(windows) < FEWEST_WINDOWS:
        return Replicates(values, np.empty((0, len(values))), NONE)
    left = []
    for place, first, last in windows:
        sequence, others = sequences[place], list(counts)
        others[place] = count(without(sequence.truth, first, last), without(sequence.tracks, first, last))
        left.append(compared(scores_of(others)))
    return Replicates(values, np.array(left), BLOCKS)


def windows_of(n_frames: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (place of the sequence, first frame, last frame) of windows about as long as each other.

    n_frames: of each sequence. A sequence shorter than a window is one of its own.
    """
    length = max(FEWEST_FRAMES, sum(n_frames) / WINDOWS)
    found = []
    for place, n in enumerate(n_frames):
        edges = np.linspace(0, n, max(1, round(n / length)) + 1).round().astype(int).tolist()
        found += [(place, first + 1, last) for first, last in pairwise(edges)]
    return found


def without(tracks: Tracks, first: int, last: int) -> Tracks:
    """Return tracks without these frames."""
    return tracks.take((tracks.frames < first) | (tracks.frames > last))


def quantile_bounds(
    values: NDArray[np.float64], drawn: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds of a bootstrap, (n_scores,) each."""
    del values
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def jackknife_bounds(
    values: NDArray[np.float64], left: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds of a jackknife over blocks, (n_scores,) each, by Student's t."""
    n = len(left)
    deviation = np.sqrt((n - 1) / n * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    reach = stdtrit(n - 1, (1 + confidence) / 2) * deviation
    return values - reach, values + reach
