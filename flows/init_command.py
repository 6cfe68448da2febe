"""The `kinglet init` command: from a folder of images to the parameter file to start with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kinglet.data.annotations import Annotations, Finding
    from kinglet.data.masks.masked_images import MaskedSet
    from tasks.first_look import FirstLook
    from tasks.video_look import VideoLook

# More classes are told in number, with the smallest and the largest.
CLASSES_SHOWN = 12
FINDINGS_SHOWN = 3


def init(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with one sub-folder per class (of images or videos), with boxes, with masks or with "
            "sequences of the MOTChallenge, a .csv or .parquet table, or s3://..."
        ),
    ],
    images: Annotated[
        str | None, typer.Option("--images", help="The folder of a table's images; the table's own if left out.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="The parameter file; params/NAME.yaml if left out.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option("--latency-ms", min=0.001, help="Budget: milliseconds for one image.")
    ] = None,
    size_mb: Annotated[float | None, typer.Option("--size-mb", min=0.001, help="Budget: size of the file.")] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option("--max-accuracy-drop", min=0, max=1, help="Accuracy that may be lost; 0.005: half a point."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="The settings to start from: params/photographs.yaml; else the problem's own."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a parameter file that exists.")] = False,
) -> None:
    """Look at a data set, say what it is, and write the parameter file to start with."""
    # Here, as it needs what reads and decodes images, which no other command waits for.
    from tasks.first_look import (
        annotations_in,
        look_at,
        masks_in,
        parameter_file,
        refusal_of,
        template_for,
        write_parameters,
    )
    from tasks.parameters import load_parameters
    from tasks.settings_section import AUTO
    from tasks.video_look import holds_videos, look_at_videos

    location = str(Path(source).expanduser()) if source.startswith("~") else source
    is_table = Path(location).suffix.lower() in (".csv", ".parquet")
    folder = images or (str(Path(location).parent) if is_table else "data/fashion-mnist")
    console = Console(stderr=True, highlight=False)
    budget = {"latency_ms": latency_ms, "size_mb": size_mb, "max_accuracy_drop": max_accuracy_drop}
    wanted: dict[str, str | float] = {key: value for key, value in budget.items() if value is not None}
    path = into or parameter_file(location)
    data: dict[str, str | float] = {"source": location, **({"images": folder} if is_table or images else {})}
    if holds_videos(location):
        videos = look_at_videos(location, folder)
        write_parameters(
            path, {"data": data, "select": wanted}, template=template_for("video", settings), overwrite=overwrite
        )
        show_videos(videos, location, console)
    elif annotated := annotations_in(location):
        kind, boxes = annotated
        changes: dict[str, dict[str, str | float]] = {"data": {"source": location}, "select": wanted}
        if boxes is not None and kind.problem == "tracking":
            write_parameters(path, changes, template=template_for("tracking", settings), overwrite=overwrite)
            show_sequences(boxes, console)
        elif boxes is not None and any(image.boxes for image in boxes.images):
            write_parameters(path, changes, template=template_for("detection", settings), overwrite=overwrite)
            show_boxes(boxes, console)
        elif masks := masks_in(location, kind):
            from tasks.segmentation_source import is_cut

            if is_cut(masks.images):
                changes["data"]["fit"] = "tile"
            write_parameters(path, changes, template=template_for("segmentation", settings), overwrite=overwrite)
            show_masks(masks, console)
        else:
            raise refusal_of(location, kind)
    else:
        found = look_at(location, folder)
        template = template_for("classification", settings)
        write_parameters(path, {"data": data, "select": wanted}, template=template, overwrite=overwrite)
        size = load_parameters(path).finetune.input_size
        show(found, None if size == AUTO else size, console)
    print(path)
    console.print(f"Next: .venv/bin/kinglet run --params {path}", soft_wrap=True)


def show(found: FirstLook, input_size: int | None, console: Console) -> None:
    """Print what was seen of a data set. input_size: of the big network, if the parameter file says one."""
    big, small = input_size or found.input_sizes[0], found.input_sizes[1]
    rows = {
        "problem": "classification",
        "source": found.kind,
        "images": f"{sum(found.classes.values()):,} of {len(found.classes)} classes",
        "classes": classes_in_words(found.classes),
        "split": ", ".join(f"{count:,} {name}" for name, count in found.splits.items()) or "Kinglet makes one",
        "sizes": sizes_in_words(found),
        "input size": f"{big} px for the big network, {small} px for small ones",
    }
    if found.domains:
        rows["domains"] = str(found.domains)
    if found.groups:
        rows["groups"] = str(found.groups)
    for reason, count in found.left_out.items():
        rows[f"left out ({count:,})"] = reason
    show_rows(rows, found.notes, console)


def show_boxes(found: Annotations, console: Console) -> None:
    """Print what was seen of a data set with boxes, and the first of all that was left out of it."""
    from kinglet.data.annotations.facts import box_facts, usual_side
    from tasks.detection_source import chosen_size

    facts = box_facts(found)
    sides = [usual_side(found, share) for share in (0.05, 0.5, 0.95)]
    splits = {name or "in no part": count for name, count in facts.splits.items()}
    rows = {
        "problem": "detection",
        "source": found.format,
        "images": f"{len(found.images):,}, {facts.without_boxes:,} of them without a box",
        "boxes": ", ".join(
            f"{label} {count:,} ({facts.images[label]:,} images)" for label, count in facts.boxes.items()
        ),
        "split": ", ".join(f"{count:,} {name}" for name, count in splits.items()),
        "input size": f"{chosen_size(found.images)} px",
        "size of boxes": f"{sides[1]:.0f} px (square root of the area; 90 % from {sides[0]:.0f} to {sides[2]:.0f})",
        "worth a look": f"{facts.tiny:,} below 16 x 16 px, {facts.huge:,} of nearly the whole image, "
        f"{facts.drawn_twice:,} pairs that cover the same",
        f"left out ({len(found.dropped):,})": findings_in_words(found.dropped) or "nothing",
        f"cut at an edge ({len(found.changed):,})": findings_in_words(found.changed) or "none",
    }
    show_rows(rows, found.notes, console)


def show_sequences(found: Annotations, console: Console) -> None:
    """Print what was seen of sequences with true tracks, and the first of all boxes that were left out."""
    from kinglet.data.annotations.facts import box_facts, usual_side
    from tasks.detection_source import chosen_size

    facts = box_facts(found)
    sides = [usual_side(found, share) for share in (0.05, 0.5, 0.95)]
    frames = Counter(image.group for image in found.images)
    parts = Counter(split for _, split in {(image.group, image.split) for image in found.images})
    # An object has a number of its own in its sequence; where two classes have it, it is an object of each.
    objects = Counter(
        label
        for _, _, label in {(image.group, box.identity, box.label) for image in found.images for box in image.boxes}
    )
    rows = {
        "problem": "tracking",
        "source": found.format,
        "sequences": f"{len(frames):,} ({classes_in_words(dict(sorted(frames.items())), 'frames')})",
        "frames": f"{len(found.images):,}, {facts.without_boxes:,} of them without a box",
        "objects": f"{objects.total():,} tracks: "
        + ", ".join(f"{label} {objects[label]:,} ({count:,} boxes)" for label, count in facts.boxes.items()),
        "split": ", ".join(f"{count:,} {name or 'in no part'}" for name, count in sorted(parts.items())),
        "input size": f"{chosen_size(found.images)} px",
        "size of boxes": f"{sides[1]:.0f} px (square root of the area; 90 % from {sides[0]:.0f} to {sides[2]:.0f})",
        f"left out ({len(found.dropped):,})": findings_in_words(found.dropped) or "nothing",
        f"cut at an edge ({len(found.changed):,})": findings_in_words(found.changed) or "none",
    }
    show_rows(rows, found.notes, console)


def show_masks(found: MaskedSet, console: Console) -> None:
    """Print what was seen of a data set with masks, and the first of all that was left out of it."""
    from kinglet.data.annotations import Finding
    from tasks.segmentation_source import chosen_size, is_cut

    usable = [image for image in found.images if not image.problem]
    unusable = [Finding(image.path, image.problem) for image in found.images if image.problem]
    total = sum(sum(image.pixels) + image.void for image in usable)
    classes = [
        f"{label} {sum(image.pixels[index] for image in usable) / total:.1%} "
        f"({sum(image.pixels[index] > 0 for image in usable):,} images)"
        for index, label in enumerate(found.classes)
    ]
    splits = Counter(image.split or "in no part" for image in usable)
    rows = {
        "problem": "segmentation",
        "source": found.format,
        "images": f"{len(usable):,} with a mask, {len(found.unmasked):,} without",
        "pixels": f"{', '.join(classes)}; void {sum(image.void for image in usable) / total:.1%}",
        "split": ", ".join(f"{count:,} {name}" for name, count in sorted(splits.items())),
        "input size": f"{chosen_size(found.images)} px{', which large images are cut into' * is_cut(found.images)}",
        f"unusable ({len(unusable):,})": findings_in_words(unusable) or "none",
        f"left out ({len(found.dropped):,})": findings_in_words(found.dropped) or "nothing",
    }
    show_rows(rows, found.notes, console)


def show_videos(found: VideoLook, location: str, console: Console) -> None:
    """Print what was seen of the videos at a location, and the first of all that give no clip."""
    from kinglet.data.annotations import Finding
    from tasks.clip_source import in_words, notes_on_made

    problems = [Finding(path, problem) for path, problem in found.problems.items()]
    rows = {
        "problem": "video",
        "source": found.found.kind,
        "clips": f"{len(found.usable):,} of {len(found.classes)} classes",
        "classes": classes_in_words(found.classes, "clips"),
        "split": ", ".join(f"{count:,} {name}" for name, count in found.splits.items()) or "Kinglet makes one",
        "groups": f"{len({clip.group for clip in found.usable}):,} recordings, each of which stays on one side",
        "input size": f"{found.input_size} px",
        f"unusable ({len(problems):,})": findings_in_words(problems) or "none",
    }
    if found.domains:
        rows["domains"] = str(found.domains)
    for reason, names in found.found.left_out.items():
        rows[f"left out ({len(names):,})"] = reason
    cut = in_words(found.found, found.seen, found.cutting)
    show_rows(rows, [*found.found.notes, cut, *notes_on_made(location)], console)


def findings_in_words(findings: Sequence[Finding]) -> str:
    """Return the first findings with their places."""
    shown = "; ".join(f"{finding.place}: {finding.reason}" for finding in findings[:FINDINGS_SHOWN])
    more = len(findings) - FINDINGS_SHOWN
    return f"{shown}; and {more:,} more" if more > 0 else shown


def show_rows(rows: Mapping[str, str], notes: Sequence[str], console: Console) -> None:
    """Print facts under their names, and the notes."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    console.print(table)
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def classes_in_words(classes: dict[str, int], things: str = "images") -> str:
    """Return the classes with their numbers of images; of many, the smallest and the largest."""
    if len(classes) <= CLASSES_SHOWN:
        return ", ".join(f"{name} {count:,}" for name, count in classes.items())
    smallest, largest = min(classes, key=lambda name: classes[name]), max(classes, key=lambda name: classes[name])
    return f"from {classes[smallest]:,} {things} ({smallest}) to {classes[largest]:,} ({largest})"


def sizes_in_words(found: FirstLook) -> str:
    """Return how large the images are that were looked at."""
    if not found.sizes:
        return f"unknown: none of {found.unreadable} images could be opened"
    widths, heights = zip(*found.sizes, strict=True)
    span = [
        f"{min(sides)}" if min(sides) == max(sides) else f"{min(sides)}-{max(sides)}" for sides in (widths, heights)
    ]
    broken = f"; {found.unreadable} could not be opened" if found.unreadable else ""
    return f"{' x '.join(span)} px, of {len(found.sizes)} looked at{broken}"
