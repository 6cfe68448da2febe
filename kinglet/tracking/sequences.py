"""Sequences in the form of the MOTChallenge: a folder with gt/gt.txt, and frames in img1/ or a video beside it."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from kinglet.atomic import write_text
from kinglet.errors import KingletError
from kinglet.runtime.videos import SUFFIXES, Video
from kinglet.tracking.frames import FrameFolder, open_frames
from kinglet.tracking.tracks import NO_CLASS

TRUTH = Path("gt/gt.txt")
FACTS = "seqinfo.ini"
# One name a line, the first for class 1: beside the truth, as CVAT writes it, or for all sequences above them.
NAMES = "labels.txt"
# What the objects of a truth without classes are called.
OBJECT = "object"


@dataclass(frozen=True)
class Sequence:
    """One sequence on disk.

    name: its folder, relative to where it was looked for. frames: a folder of images, or a video file. rate: frames
    per second, None where nobody says it. n_frames: that its facts announce, None where they do not. names: of the
    classes, the first for class 1; empty where there are none.
    """

    name: str
    folder: Path
    frames: Path
    rate: float | None
    n_frames: int | None
    names: tuple[str, ...]

    @property
    def truth(self) -> Path:
        """The file with the true tracks."""
        return self.folder / TRUTH

    def open(self) -> Video | FrameFolder:
        """Return the frames; raises KingletError if they cannot be read, or are not as many as announced."""
        frames = open_frames(self.frames, self.rate)
        if self.n_frames is not None and self.n_frames != len(frames):
            raise KingletError(
                f"{self.folder / FACTS} announces {self.n_frames} frames, and {self.frames} holds {len(frames)}.",
                "Bring the missing frames, or correct seqLength.",
            )
        return frames

    def class_name(self, label: int) -> str:
        """Return the name of a class by its number; raises KingletError for a number that has none."""
        if label == NO_CLASS:
            return OBJECT
        if not self.names:
            return f"class-{label}"
        if label > len(self.names):
            raise KingletError(f"{self.truth} has class {label}, and {NAMES} names {len(self.names)}.")
        return self.names[label - 1]


def find_sequences(root: Path) -> list[Sequence]:
    """Return all sequences below a folder, or it alone if it is one, by name.

    Raises KingletError if there is none, or one has no frames.
    """
    if not root.is_dir():
        raise KingletError(f"{root} is no folder.", f"Name a folder of sequences, each with {TRUTH} and its frames.")
    folders = [path.parent.parent for path in sorted(root.rglob(TRUTH.as_posix()))]
    if not folders:
        raise KingletError(f"{root} holds no sequence.", f"A sequence is a folder with {TRUTH} and its frames.")
    return [sequence_in(folder, root) for folder in folders]


def sequence_in(folder: Path, root: Path) -> Sequence:
    """Return the sequence in a folder below `root`; raises KingletError if it has no frames."""
    facts = read_facts(folder / FACTS)
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    return Sequence(
        name=name,
        folder=folder,
        frames=frames_in(folder, facts.get("imdir", "img1")),
        rate=number_in(facts, "framerate", folder),
        n_frames=None if (length := number_in(facts, "seqlength", folder)) is None else int(length),
        names=class_names(folder / TRUTH.parent, folder, root),
    )


def class_names(*folders: Path) -> tuple[str, ...]:
    """Return the names of classes that the first of these folders with labels.txt lists; none if none has it."""
    listed = next((path for folder in folders if (path := folder / NAMES).is_file()), None)
    lines = listed.read_text(encoding="utf-8").splitlines() if listed else []
    return tuple(line.strip() for line in lines if line.strip())


def write_class_names(folder: Path, names: list[str]) -> None:
    """Write labels.txt into a folder: what the class numbers of its tracks mean."""
    write_text(folder / NAMES, "".join(f"{name}\n" for name in names))


def frames_in(folder: Path, images: str) -> Path:
    """Return where the frames of a sequence are; raises KingletError if there are none, or two answers."""
    if (folder / images).is_dir():
        return folder / images
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(videos) != 1:
        held = f"{len(videos)} videos" if videos else f"neither a folder {images} nor a video"
        raise KingletError(
            f"{folder} holds {held}.", f"Put its frames into {images}/, or one video beside {TRUTH.parent}/."
        )
    return videos[0]


def read_facts(file: Path) -> dict[str, str]:
    """Return what seqinfo.ini says, keys in lower case; nothing if there is none.

    Raises KingletError if it is no such file.
    """
    if not file.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"))
        return dict(parser["Sequence"])
    except (configparser.Error, UnicodeDecodeError, KeyError) as error:
        words = " ".join(str(error).split())
        raise KingletError(f"{file} has no section [Sequence] that can be read: {words}") from None


def number_in(facts: dict[str, str], key: str, folder: Path) -> float | None:
    """Return a fact as a number above 0, None where it is not told; raises KingletError if it is none."""
    if key not in facts:
        return None
    try:
        number = float(facts[key])
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise KingletError(f"{folder / FACTS}: {key} is {facts[key]!r}, no number above 0.")
    return number
