"""A first look at a data set that somebody brings, and the parameter file to start with: what `kinglet init` does."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from kinglet.atomic import write_text
from kinglet.data.annotations import READERS, AnnotationFormat, Annotations, annotation_format, read_annotations
from kinglet.data.masks.formats import READERS as MASK_READERS
from kinglet.data.masks.formats import read_masked_images
from kinglet.data.masks.masked_images import MaskedSet
from kinglet.data.resolutions import student_size, teacher_size
from kinglet.data.sources import Record, Source, kind_of, open_source
from kinglet.data.sources.folder import list_files
from kinglet.errors import KingletError
from tasks.offered_settings import EXAMPLES
from tasks.parameters import PARAMS_FILE, load_parameters

PARAMETER_FOLDER = Path("params")
# What the parameter file of a data set is written from, by its problem.
TEMPLATES = {"classification": PARAMS_FILE, **{problem: Path(example) for problem, example in EXAMPLES.items()}}
MOST_PIXELS = 100_000_000
# Enough to know how large the images usually are.
IMAGES_LOOKED_AT = 200


@dataclass(frozen=True)
class FirstLook:
    """What was seen of a data set before anything of it is decoded.

    kind: of source. classes: images of each, by name. splits: images of each part that the set brings, none if it
    brings no split. domains, groups: how many there are. left_out: {reason: number of files}.
    sizes: (width, height) in pixels of some images. unreadable: how many of those that were opened are no images.
    """

    kind: str
    classes: dict[str, int]
    splits: dict[str, int]
    domains: int
    groups: int
    left_out: dict[str, int]
    notes: list[str]
    sizes: list[tuple[int, int]]
    unreadable: int

    @property
    def short_side(self) -> int:
        """The usual length of the shorter side in pixels; 0 where no size is known."""
        return int(np.median([min(size) for size in self.sizes])) if self.sizes else 0

    @property
    def input_sizes(self) -> tuple[int, int]:
        """The edges in pixels that `auto` gives the big network and the small ones."""
        return teacher_size(self.short_side), student_size(self.short_side)


def look_at(location: str, images: str) -> FirstLook:
    """Return what a data set is, from its files' names, its table and the sizes of some images.

    images: the folder of a table's images. Annotations that lie in a folder are not looked at: see `annotations_in`.
    Raises KingletError if it is none that Kinglet can learn from.
    """
    source = open_source(location, images)
    labelled = [record for record in source.records if record.label]
    if len({record.label for record in labelled}) < 2:
        raise KingletError(
            f"{location} holds {len(labelled)} images of one class; a classifier needs two classes.",
            "Make one sub-folder per class, or name a table of paths and labels.",
        )
    splits = Counter(record.given_split for record in labelled if record.given_split)
    sizes, unreadable = sizes_of(source, labelled)
    return FirstLook(
        kind=source.kind,
        classes=dict(sorted(Counter(record.label for record in labelled).items())),
        splits=dict(sorted(splits.items())),
        domains=len({record.domain for record in labelled} - {""}),
        groups=len({record.group for record in labelled} - {""}),
        left_out={reason: len(names) for reason, names in source.left_out.items()},
        notes=source.notes,
        sizes=sizes,
        unreadable=unreadable,
    )


def annotations_in(location: str) -> tuple[AnnotationFormat, Annotations | None] | None:
    """Return the format of the annotations in a folder, and its boxes where that format can be read.

    None for a folder without annotations, and for everything else. Raises KingletError if boxes cannot be read.
    """
    if kind_of(location) != "folder":
        return None
    root, paths = Path(location), list_files(Path(location))
    found = annotation_format(root, paths)
    if found is None:
        return None
    return found, read_annotations(root, paths, found.name) if found.name in READERS else None


def masks_in(location: str, found: AnnotationFormat) -> MaskedSet | None:
    """Return the masks in a folder whose annotations are for segmentation; None for others, or where none are read.

    Raises KingletError if masks cannot be used.
    """
    if found.problem != "segmentation":
        return None
    root = Path(location)
    return read_masked_images(root, list_files(root), MOST_PIXELS)


def refusal_of(location: str, found: AnnotationFormat) -> KingletError:
    """Return in a sentence and a hint that annotations are for a problem that Kinglet does not learn."""
    return KingletError(
        f"{location} holds a data set for {found.problem} ({found.name}, such as {found.example}); "
        "Kinglet learns classification, detection, segmentation and video.",
        "For classification, make one sub-folder per class, or name a .csv table of paths and labels; for detection, "
        f"bring boxes as {', '.join(READERS)}; for segmentation, masks as {' or '.join(MASK_READERS)}.",
    )


def sizes_of(source: Source, records: list[Record]) -> tuple[list[tuple[int, int]], int]:
    """Return (width, height) of some images, evenly spread over `records`, and how many could not be opened."""
    spread = np.linspace(0, len(records) - 1, min(len(records), IMAGES_LOOKED_AT)).astype(int)
    sizes, unreadable = [], 0
    for index in spread:
        try:
            content = source.read(records[index])
            if isinstance(content, bytes):
                with Image.open(io.BytesIO(content)) as image:
                    sizes.append(image.size)
            else:
                sizes.append((content.shape[1], content.shape[0]))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            unreadable += 1
    return sizes, unreadable


def parameter_file(location: str) -> Path:
    """Return where the parameter file of a data set lies unless somebody names another place."""
    path = Path(location) if location.startswith("s3://") else Path(location).resolve()
    name = re.sub(r"[^a-z0-9]+", "-", (path.stem if path.suffix else path.name).lower()).strip("-")
    return PARAMETER_FOLDER / f"{name or 'images'}.yaml"


def template_for(problem: str, asked: Path | None) -> Path:
    """Return the parameter file that one for data of this problem starts from: `asked`, or the problem's own example.

    Raises KingletError if the file asked for is none, or is for another problem.
    """
    if asked is None:
        return TEMPLATES[problem]
    found = load_parameters(asked).problem
    if found != problem:
        raise KingletError(
            f"{asked} is for problem: {found}, and what is there is {problem}.",
            f"Leave --settings out to start from {TEMPLATES[problem]}.",
        )
    return asked


def write_parameters(
    path: Path, settings: dict[str, dict[str, str | float]], *, template: Path = PARAMS_FILE, overwrite: bool = False
) -> None:
    """Write `template` with these settings, {section: {key: value}}, changed, all comments kept, to `path`.

    Raises KingletError if there is no template, the file exists already and may not be overwritten, or a setting has
    no place.
    """
    if path.exists() and not overwrite:
        raise KingletError(f"{path} exists already.", "Name another file with --into, or pass --overwrite.")
    try:
        text = template.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KingletError(
            f"{template} does not exist (looked in {Path.cwd()}).", f"Restore it with `git checkout {template}`."
        ) from None
    for section, values in settings.items():
        for key, value in values.items():
            text = with_setting(text, section, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    checked = path.with_name(f".{path.name}")
    try:
        write_text(checked, text)
        load_parameters(checked)
        checked.replace(path)
    finally:
        checked.unlink(missing_ok=True)


def with_setting(text: str, section: str, key: str, value: str | float) -> str:
    """Return a parameter file's text with one value of a section changed; its comment stays.

    Raises KingletError if the section or the key is not there.
    """
    pattern = re.compile(rf"(^{section}:\n(?:(?:[ #].*)?\n)*?  {key}: )([^#\n]*?)( *#.*)?$", re.MULTILINE)
    written = f"'{value.replace(chr(39), chr(39) * 2)}'" if isinstance(value, str) else f"{value:g}"
    changed, count = pattern.subn(lambda found: f"{found[1]}{written}{found[3] or ''}", text, count=1)
    if not count:
        raise KingletError(f"{PARAMS_FILE} has no {section}.{key}.", "Take the params.yaml of this version of Kinglet.")
    return changed
