"""The test sequences of a run as the teacher and the chosen model see them: tracks, scores, videos and strips.

What the models find in the test images was kept by `evaluate`, exactly as it would be served; here it is followed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_folder, read_json
from kinglet.errors import KingletError
from kinglet.evidence.detection_matches import Objects
from kinglet.runtime.detection import Detections
from kinglet.runtime.preprocessing import placement
from kinglet.tracking.association import Follower, Settings, joined
from kinglet.tracking.intervals import Tracked
from kinglet.tracking.mot_files import write_tracks
from kinglet.tracking.pictures import VideoWriter, draw_tracks, strip_frames, strip_of
from kinglet.tracking.sequences import write_class_names
from kinglet.tracking.tracks import Tracks, tracks_of
from tasks.artifacts import BOXES, FRAMES, SELECT, SOURCE_FACTS, SPLIT, packed_images, read_input_sizes
from tasks.detection_answers import SIDES, BoxedImages, read_boxed, read_found
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.scored_models import teacher_name
from tasks.track_scores import comparison

TRACKS, VIDEO, STRIP = "{sequence}.{model}.txt", "{sequence}.mp4", "{sequence}.png"


@dataclass(frozen=True)
class TestSequence:
    """One sequence of the test split.

    rows: of the packed files, int64 (n,), and numbers, seconds: of its frames, (n,), ascending. places: of its frames
    among the test images. truth: its true tracks. n_frames: that the whole sequence has.
    """

    name: str
    rate: float
    is_even: bool
    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    seconds: NDArray[np.float64]
    places: NDArray[np.int64]
    truth: Tracks
    n_frames: int

    @property
    def file_name(self) -> str:
        """What its files are called."""
        return self.name.replace("/", "-")


def track_test_sequences(parameters: Parameters, results: Path) -> dict[str, Any]:
    """Write a folder with the tracks of both models, and a video and a strip of the chosen one's; return the scores.

    Raises KingletError if the test split holds no frame with a box.
    """
    classes, settings = read_json(SPLIT / "classes.json"), Settings(**parameters.track.model_dump())
    teacher, chosen = teacher_name(), read_json(SELECT / "choice.json")["chosen"]
    images = read_boxed("test", classes)
    sequences = read_sequences(images, classes)
    names = list(dict.fromkeys([teacher, chosen]))
    found = read_found(names, images, "test")
    tracks = {
        name: {sequence.name: follow(sequence, found[name], settings) for sequence in sequences} for name in names
    }
    with atomic_folder(results) as folder, progress("track, pictures") as report:
        for done, sequence in enumerate(sequences, start=1):
            for name in names:
                file = TRACKS.format(sequence=sequence.file_name, model=name)
                write_tracks(folder / file, tracks[name][sequence.name].classes_from_one())
            draw(sequence, tracks[chosen][sequence.name], images, classes, parameters.data.fit, folder)
            report(done, len(sequences), "sequences")
        write_class_names(folder, classes)
    tracked = [
        [Tracked(sequence.truth, tracks[name][sequence.name], sequence.n_frames) for sequence in sequences]
        for name in (teacher, chosen)
    ]
    compared = comparison(
        tracked, [sequence.name for sequence in sequences], parameters.evaluate.confidence, parameters.seed
    )
    documents = compared.pop("scores")
    return {
        "reason": "",
        "teacher": teacher,
        "chosen": chosen,
        "settings": asdict(settings),
        "models": {teacher: documents[0], chosen: documents[1]},
        **compared,
        "files": {
            sequence.name: {
                "video": VIDEO.format(sequence=sequence.file_name),
                "strip": STRIP.format(sequence=sequence.file_name),
                "tracks": {name: TRACKS.format(sequence=sequence.file_name, model=name) for name in names},
                "frames": len(sequence.numbers),
                "missing_frames": sequence.n_frames - len(sequence.numbers),
            }
            for sequence in sequences
        },
    }


def read_sequences(images: BoxedImages, classes: list[str]) -> list[TestSequence]:
    """Return the sequences that the test images are frames of, by name."""
    frames = pd.read_parquet(FRAMES).set_index("index").loc[images.rows].reset_index()
    frames["place"] = np.arange(len(frames))
    boxes = pd.read_parquet(BOXES)
    labels = {name: label for label, name in enumerate(classes)}
    boxes = boxes[boxes["label"].isin(labels)].merge(frames, on="index")
    facts = read_json(SOURCE_FACTS)["sequences"]
    found = []
    for name, own in frames.sort_values("frame").groupby("sequence", sort=True):
        true = boxes[boxes["sequence"] == name]
        found.append(
            TestSequence(
                name=str(name),
                rate=facts[name]["rate"],
                is_even=facts[name]["is_even"],
                rows=own["index"].to_numpy(np.int64),
                numbers=own["frame"].to_numpy(np.int64),
                seconds=own["seconds"].to_numpy(np.float64),
                places=own["place"].to_numpy(np.int64),
                truth=tracks_of(
                    true["frame"].to_numpy(np.int64),
                    true["identity"].to_numpy(np.int64),
                    true[SIDES].to_numpy(np.float64),
                    np.array([labels[label] for label in true["label"]], np.int64),
                ),
                n_frames=facts[name]["frames"],
            )
        )
    if not any(len(sequence.truth) for sequence in found):
        raise KingletError(
            "No test frame has a box, so no tracks can be scored.", "Look at artifacts/split/counts.json."
        )
    return found


def follow(sequence: TestSequence, found: Objects, settings: Settings) -> Tracks:
    """Return the tracks of what a model found in the frames of a sequence."""
    follower = Follower(settings, sequence.rate)
    # A frame that was left out of the data set leaves a gap in time.
    has_gaps = bool((np.diff(sequence.numbers) > 1).any())
    at = sequence.seconds.tolist() if has_gaps or not sequence.is_even else [None] * len(sequence.numbers)
    scores = np.asarray(found.scores)
    order = np.argsort(found.images, kind="stable")
    first = np.searchsorted(found.images[order], sequence.places)
    last = np.searchsorted(found.images[order], sequence.places, side="right")
    parts = []
    for number, start, end, seconds in zip(sequence.numbers.tolist(), first, last, at, strict=True):
        rows = order[start:end]
        objects = Detections(found.xyxy[rows].astype(np.float32), found.labels[rows], scores[rows])
        parts.append(follower.update(number, objects, seconds))
    return joined(parts)


def draw(
    sequence: TestSequence, tracks: Tracks, images: BoxedImages, classes: list[str], fit: str, folder: Path
) -> None:
    """Write the video and the strip of a sequence, from the packed frames."""
    packed = np.load(packed_images(read_input_sizes().all[-1]), mmap_mode="r")
    shown, pictures = strip_frames(len(sequence.numbers)), []
    with VideoWriter(folder / VIDEO.format(sequence=sequence.file_name), sequence.rate) as video:
        for place, number in enumerate(sequence.numbers.tolist()):
            width, height = images.sizes[sequence.places[place]].tolist()
            own = tracks.take(tracks.frames == number)
            drawn = draw_in_packed(packed[sequence.rows[place]], width, height, fit, own, classes)
            video.write(drawn, float(sequence.seconds[place]))
            if place + 1 in shown:
                pictures.append(drawn)
    Image.fromarray(strip_of(pictures)).save(folder / STRIP.format(sequence=sequence.file_name))


def draw_in_packed(
    square: NDArray[np.uint8], width: int, height: int, fit: str, tracks: Tracks, classes: list[str]
) -> NDArray[np.uint8]:
    """Return a packed frame without its borders and upright in its own proportions, with its tracks.

    width, height: of the frame in pixels.
    """
    placed = placement(width, height, len(square), fit)
    inside = np.rint(placed.to_input(np.array([[0.0, 0, width, height]]))[0]).astype(int)
    cut = square[inside[1] : inside[3], inside[0] : inside[2]]
    colored = np.repeat(cut, 3, axis=2) if cut.shape[2] == 1 else cut
    scale = min(colored.shape[1] / width, colored.shape[0] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.asarray(Image.fromarray(np.ascontiguousarray(colored)).resize(size))
    scales = np.array([size[0] / width, size[1] / height] * 2)
    return draw_tracks(
        picture, Tracks(tracks.frames, tracks.ids, tracks.xyxy * scales, tracks.labels, tracks.scores), classes
    )
