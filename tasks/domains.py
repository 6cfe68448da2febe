"""Step `domains`: leave one domain out after the other, which shows what a new camera or site would cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_json
from tasks.artifacts import BOXES, DOMAINS, SPLIT, TILES, packed_masks, read_input_sizes
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.stage import run_stage
from tasks.training_settings import Domains

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """The n images of a part of the split.

    domains: str (n,). shows: which classes each shows, bool (n, n_classes). wholes: the image that each is a tile of,
    int64 (n,); of images that are not cut, their own number.
    """

    domains: NDArray[np.object_]
    shows: NDArray[np.bool_]
    wholes: NDArray[np.int64]


def run(parameters: Parameters) -> None:
    """Write scores.json; where there is nothing to leave out, with the reason and without scores."""
    named = sorted({name for split in SPLITS for name in read_domains(split)} - {""})
    scores: dict[str, Any] = {"named": named, "left_out": [], "not_left_out": {}}
    reason = nothing_to_leave_out(named, parameters.domains, parameters.several)
    if not reason:
        parts = {split: read_part(split, parameters.network) for split in SPLITS}
        scores["not_left_out"] = not_left_out(named, parts, parameters.domains, parameters.several)
        judged = [name for name in named if name not in scores["not_left_out"]]
        if not judged:
            reason = "None of the domains can be left out: " + "; ".join(
                f"{name}: {why}" for name, why in scores["not_left_out"].items()
            )
        else:
            # Here, as a run without domains need not wait for torch.
            from tasks.leave_one_domain_out import scores_without

            scores |= scores_without(judged, unknown_classes(judged, parts["train"]), parameters)
    if reason:
        print(f"note: {reason}", file=sys.stderr)
    write_json(DOMAINS / "scores.json", {**scores, "reason": reason})


def read_domains(split: str) -> NDArray[np.object_]:
    """Return the domains of the images of a part, "" for those without, str (n,)."""
    return np.array(read_parquet(SPLIT / "manifest.parquet", ["domain"], split)["domain"].to_pylist(), object)


def read_part(split: str, problem: str) -> Part:
    """Return the images of a part. problem: a key of `SHOWS`."""
    images = read_parquet(SPLIT / "manifest.parquet", ["index", "label_index"], split)
    return Part(read_domains(split), SHOWS[problem](images), wholes_of(images["index"].to_numpy()))


def wholes_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the image that each row of the manifest is a tile of; where nothing is cut, its own number."""
    if not TILES.is_file():
        return index
    images = pd.read_parquet(TILES, columns=["index", "image"]).set_index("index")["image"]
    return np.asarray(pd.factorize(images.loc[index.tolist()])[0], np.int64)


def shown_by_labels(images: pa.Table) -> NDArray[np.bool_]:
    """Return which class each image is of, bool (n, n_classes)."""
    return images["label_index"].to_numpy()[:, None] == np.arange(len(read_classes()))


def shown_by_boxes(images: pa.Table) -> NDArray[np.bool_]:
    """Return of which classes each image has a box, bool (n, n_classes)."""
    boxes = pd.read_parquet(BOXES, columns=["index", "label"]).drop_duplicates()
    place = {row: place for place, row in enumerate(images["index"].to_pylist())}
    number = {label: place for place, label in enumerate(read_classes())}
    shows = np.zeros((len(place), len(number)), bool)
    for row, label in boxes.itertuples(index=False):
        if row in place and label in number:
            shows[place[row], number[label]] = True
    return shows


def shown_by_masks(images: pa.Table) -> NDArray[np.bool_]:
    """Return of which classes each image has a pixel, as the teacher takes it, bool (n, n_classes)."""
    masks, n_classes = np.load(packed_masks(read_input_sizes().teacher), mmap_mode="r"), len(read_classes())
    # Pixels of no class have numbers behind the classes.
    counts = [np.bincount(masks[row].ravel(), minlength=n_classes)[:n_classes] for row in images["index"].to_pylist()]
    return np.array(counts, np.int64).reshape(-1, n_classes) > 0


def read_classes() -> list[str]:
    """Return the names of the classes, in the order of their index."""
    classes: list[str] = read_json(SPLIT / "classes.json")
    return classes


# From rows of the manifest, with index and label_index, to what the images show.
SHOWS: dict[str, Callable[[pa.Table], NDArray[np.bool_]]] = {
    "classification": shown_by_labels,
    "detection": shown_by_boxes,
    "segmentation": shown_by_masks,
    "video": shown_by_labels,
}


def nothing_to_leave_out(named: list[str], settings: Domains, several: str) -> str:
    """Return in a sentence why no domain is left out; "" if domains are. several: what is of a domain."""
    if not named:
        return (
            f"No {several.removesuffix('s')} has a domain, so that none is left out; a table names it in its column "
            "`domain`, a folder of videos, or one with boxes or masks, in its domains.csv."
        )
    if len(named) == 1:
        return (
            f"All {several} that have a domain are of one, {named[0]}: leaving it out would leave nothing to learn "
            "from, and nothing can be said about another camera or site."
        )
    if not settings.most:
        return f"domains.most is 0: none of the {len(named)} domains is left out."
    return ""


def not_left_out(
    named: list[str], parts: dict[str, Part], settings: Domains, several: str = "images"
) -> dict[str, str]:
    """Return {domain: why it is not left out}: too few test images or none that shows anything, nothing to learn from
    without it, too many. several: what the parts consist of.
    """
    why, test = {}, parts["test"]
    n_test = {name: len(np.unique(test.wholes[test.domains == name])) for name in named}
    for name in named:
        if n_test[name] < settings.min_test_images:
            why[name] = f"{n_test[name]} test {several}, domains.min_test_images is {settings.min_test_images}"
        elif not test.shows[test.domains == name].any():
            why[name] = f"its test {several} show nothing of any class"
        elif any(not parts[split].shows[parts[split].domains != name].any() for split in ("train", "validation")):
            why[name] = f"without it no {several.removesuffix('s')} is left to learn from"
    left = sorted((name for name in named if name not in why), key=lambda name: (-n_test[name], name))
    return why | dict.fromkeys(left[settings.most :], f"domains.most is {settings.most}")


def unknown_classes(names: list[str], training: Part) -> dict[str, list[str]]:
    """Return {domain: classes that only it has}, which a model that never saw it cannot know."""
    classes = np.array(read_classes(), object)
    return {name: classes[~training.shows[training.domains != name].any(axis=0)].tolist() for name in names}


if __name__ == "__main__":
    run_stage(run)
