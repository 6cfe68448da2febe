"""The images of an annotated data set: where the file is that an annotation names, and how large it is."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kinglet.data.annotations.boxes import turned
from kinglet.data.sources.layout import has_image_suffix, is_hidden
from kinglet.data.sources.records import SPLIT_NAMES
from kinglet.runtime.decoding import UndecodableImageError, read_orientation

MAX_PIXELS = 1_000_000_000


class UnusableImageError(ValueError):
    """An image that annotations name is not there, not one file, or none; the text says why."""


@dataclass(frozen=True)
class ImageSize:
    """Of one image: width and height in pixels as stored in the file, and its EXIF orientation, 1 to 8."""

    stored: tuple[int, int]
    orientation: int = 1

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as people see the image."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    def as_shown(
        self, xyxy: tuple[float, float, float, float], annotated: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Return a box as it lies in the image as shown.

        annotated: the size that the annotations give the image. Where it is that of the stored image and not of the
        shown one, the boxes were drawn without turning the photo, and follow it now. Where the sizes do not tell, the
        boxes are taken as they lie in the photo as shown.
        """
        if annotated == self.stored != self.shown:
            return turned(xyxy, self.stored, self.orientation)
        return xyxy


class ImageFiles:
    """All image files below a folder.

    paths: relative to `root`, with forward slashes.
    """

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root = root
        self.paths = [path for path in sorted(paths) if has_image_suffix(path) and not is_hidden(path)]
        self._known = set(self.paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            self._by_name[PurePosixPath(path).name].append(path)
            self._by_name[PurePosixPath(path).stem].append(path)

    def find(self, name: str, near: PurePosixPath) -> str:
        """Return the path of the image that an annotation in the folder `near` calls `name`.

        It is looked for there, from the data set's folder, in a folder images of either, and by its name alone.
        Raises UnusableImageError if there is none, or several are called so.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        for folder in (near, near / "images", PurePosixPath(), PurePosixPath("images"), near.parent / "images"):
            path = str(folder / wanted)
            if path in self._known:
                return path
        same = sorted(set(self._by_name.get(wanted.name, [])))
        if len(same) == 1:
            return same[0]
        if same:
            raise UnusableImageError(f"{name} can be any of {len(same)} files, such as {same[0]} and {same[1]}")
        raise UnusableImageError(f"image {name} does not exist")

    def size(self, path: str) -> ImageSize:
        """Return the size of an image; raises UnusableImageError if it cannot be read."""
        try:
            return ImageSize(*read_orientation((self.root / path).read_bytes(), MAX_PIXELS))
        except (OSError, UndecodableImageError) as error:
            raise UnusableImageError(
                f"image {path} cannot be used: {getattr(error, 'strerror', '') or error}"
            ) from None


def split_in(path: str) -> str:
    """Return the part of a split that a folder or a file is called after, "" if none is."""
    words = [word for part in PurePosixPath(path).parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
