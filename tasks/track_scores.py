"""`kinglet tracks`: tracks held against true ones, and what two models' tracks of the same sequences differ by."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.tracking.association import Settings, joined
from kinglet.tracking.intervals import Replicates, Tracked, replicates_of
from kinglet.tracking.mot_files import read_tracks, read_truth
from kinglet.tracking.scores import COMPARED, Counts, Scores, count, scores_of
from kinglet.tracking.sequences import TRUTH, Sequence, class_names, find_sequences
from kinglet.tracking.tracks import NO_CLASS, Tracks
from tasks.followed_sequences import SequenceTracker, comparable, refuse_unknown_classes, truth_for
from tasks.progress import progress

ALL = "all"


def score(truth: Path, tracks: Path) -> dict[str, Any]:
    """Return the scores of tracks, by sequence and of all, JSON-ready.

    truth, tracks: two files, or two folders: of sequences, each with gt/gt.txt, and of files called after them.
    Raises KingletError for files that cannot be read, and for a sequence without tracks.
    """
    pairs = pairs_of(truth, tracks)
    tracked = {name: tracked_in(*files, truth if truth.is_dir() else truth.parent) for name, files in pairs.items()}
    counts = {name: count(sequence.truth, sequence.tracks) for name, sequence in tracked.items()}
    replicates = replicates_of(list(tracked.values()), list(counts.values()))
    return {**scores_document(counts, replicates), "interval_over": replicates.over}


def pairs_of(truth: Path, tracks: Path) -> dict[str, tuple[Path, Path]]:
    """Return {sequence: (true tracks, tracks)}."""
    if truth.is_dir() != tracks.is_dir():
        folder, file = (truth, tracks) if truth.is_dir() else (tracks, truth)
        raise KingletError(f"{folder} is a folder and {file} is not.", "Name two files, or two folders.")
    if not truth.is_dir():
        return {tracks.stem: (truth, tracks)}
    folders = [file.parent.parent for file in sorted(truth.rglob(TRUTH.as_posix()))]
    if not folders:
        raise KingletError(f"{truth} holds no true tracks.", f"A sequence is a folder with {TRUTH}.")
    names = [folder.relative_to(truth).as_posix() if folder != truth else truth.resolve().name for folder in folders]
    missing = [name for name in names if not (tracks / f"{name}.txt").is_file()]
    if missing:
        raise KingletError(
            f"{tracks} has no tracks of {', '.join(missing)}.", f"They are looked for as {tracks / missing[0]}.txt."
        )
    return {name: (folder / TRUTH, tracks / f"{name}.txt") for name, folder in zip(names, folders, strict=True)}


def tracked_in(truth_file: Path, file: Path, root: Path) -> Tracked:
    """Return one sequence of two files; where one of them has no classes, none are asked for.

    Classes are the same where their numbers are, or their names, if labels.txt lies beside both files. root: where it
    may lie for all true tracks.
    """
    truth, tracks = read_truth(truth_file), read_tracks(file)
    true_names = class_names(truth_file.parent, truth_file.parent.parent, root)
    names = class_names(file.parent)
    if true_names and names:
        numbers = {name: number for number, name in enumerate(dict.fromkeys([*true_names, *names]), start=1)}
        truth, tracks = named(truth, true_names, numbers, truth_file), named(tracks, names, numbers, file)
    if len(tracks) and ((truth.labels == NO_CLASS).all() or (tracks.labels == NO_CLASS).all()):
        truth, tracks = truth.without_classes(), tracks.without_classes()
    return Tracked(truth, tracks, last_frame(truth, tracks))


def named(tracks: Tracks, names: tuple[str, ...], numbers: dict[str, int], file: Path) -> Tracks:
    """Return tracks with their classes numbered by name; raises KingletError for a class without a name."""
    found = dict.fromkeys(np.unique(tracks.labels).tolist(), NO_CLASS)
    for label in found:
        if label > len(names):
            raise KingletError(f"{file} has class {label}, and labels.txt beside it names {len(names)}.")
        if label != NO_CLASS:
            found[label] = numbers[names[label - 1]]
    return replace(tracks, labels=np.array([found[label] for label in tracks.labels.tolist()], np.int64))


def last_frame(*parts: Tracks) -> int:
    """Return the number of the last frame in which any of these tracks is."""
    return max(int(part.frames[-1]) for part in parts if len(part))


def scores_document(
    counts: dict[str, Counts], replicates: Replicates, confidence: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Return scores by sequence, and of all with intervals, JSON-ready."""
    return {
        "sequences": {name: scores_json(scores_of([of_sequence])) for name, of_sequence in counts.items()},
        ALL: {
            **scores_json(scores_of(list(counts.values()))),
            "intervals": interval_json(replicates.intervals(confidence)),
        },
    }


def scores_json(scores: Scores) -> dict[str, float | int]:
    """Return scores as numbers, rounded to 6 digits."""
    return {name: round(number, 6) for name, number in asdict(scores).items()}


def interval_json(intervals: dict[str, Interval | None]) -> dict[str, dict[str, float] | None]:
    """Return intervals by score, JSON-ready."""
    return {name: None if found is None else found.to_dict() for name, found in intervals.items()}


def compare(bundles: tuple[Path, Path], root: Path, settings: Settings, threads: int | None = None) -> dict[str, Any]:
    """Return the scores of two models' tracks of the same sequences, and what the second differs by, JSON-ready.

    root: a folder of sequences, or one sequence. Raises KingletError for what cannot be read.
    """
    sequences = find_sequences(root)
    truths = [read_truth(sequence.truth) for sequence in sequences]
    trackers = [SequenceTracker(bundle, settings, threads) for bundle in bundles]
    for tracker, bundle in zip(trackers, bundles, strict=True):
        refuse_unknown_classes(list(zip(sequences, truths, strict=True)), tracker.classes, bundle)
    of_models = [tracked_by(tracker, sequences, truths) for tracker in trackers]
    return {
        "models": [bundle.as_posix() for bundle in bundles],
        "settings": asdict(settings),
        **comparison(of_models, [sequence.name for sequence in sequences]),
    }


def tracked_by(tracker: SequenceTracker, sequences: list[Sequence], truths: list[Tracks]) -> list[Tracked]:
    """Return what a model's tracks of every sequence are, beside the true ones."""
    found = []
    for sequence, truth in zip(sequences, truths, strict=True):
        frames = sequence.open()
        beyond = int(truth.frames[-1])
        if beyond > len(frames):
            raise KingletError(f"{sequence.truth} has boxes in frame {beyond}, and there are {len(frames)} frames.")
        parts = []
        with progress(f"track, {sequence.name}") as report:
            for step in tracker.steps(frames):
                parts.append(step.tracks)
                report(step.frame.number, len(frames), "frames")
        known = truth_for(sequence, truth, tracker.classes)
        found.append(Tracked(known, comparable(known, joined(parts)), len(frames)))
    return found


def comparison(
    of_models: list[list[Tracked]], names: list[str], confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Return the scores of two models, and the second's minus the first's with paired intervals, JSON-ready."""
    counts = [[count(item.truth, item.tracks) for item in of_model] for of_model in of_models]
    replicates = [replicates_of(of_model, counted, seed) for of_model, counted in zip(of_models, counts, strict=True)]
    documents = [
        scores_document(dict(zip(names, counted, strict=True)), own, confidence)
        for counted, own in zip(counts, replicates, strict=True)
    ]
    difference = replicates[1].minus(replicates[0])
    return {
        "scores": documents,
        "difference": {
            "values": {name: round(float(value), 6) for name, value in zip(COMPARED, difference.values, strict=True)},
            "intervals": interval_json(difference.intervals(confidence)),
        },
        "interval_over": difference.over,
        "n_sequences": len(names),
        "n_frames": sum(item.n_frames for item in of_models[0]),
        "confidence": confidence,
    }
