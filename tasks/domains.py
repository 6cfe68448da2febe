"""Step `domains`: leave one domain out after the other, which shows what a new camera or site would cost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_json
from tasks.artifacts import DOMAINS, SPLIT
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.stage import run_stage
from tasks.training_settings import Domains


@dataclass(frozen=True)
class Part:
    """The images of a part of the split: domain, str, and label index, int64, both (n,)."""

    domains: NDArray[np.object_]
    labels: NDArray[np.int64]


def run(parameters: Parameters) -> None:
    """Write scores.json; where there is nothing to leave out, with the reason and without scores."""
    parts = {split: read_part(split) for split in ("train", "validation", "test")}
    named = sorted({name for part in parts.values() for name in part.domains} - {""})
    scores: dict[str, Any] = {"named": named, "left_out": [], "not_left_out": {}}
    reason = nothing_to_leave_out(named, parameters.domains)
    if not reason:
        scores["not_left_out"] = not_left_out(named, parts, parameters.domains)
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


def read_part(split: str) -> Part:
    """Return domains and labels of the images of a part."""
    table = read_parquet(SPLIT / "manifest.parquet", ["domain", "label_index"], split)
    return Part(np.array(table["domain"].to_pylist(), object), table["label_index"].to_numpy().astype(np.int64))


def nothing_to_leave_out(named: list[str], settings: Domains) -> str:
    """Return in a sentence why no domain is left out; "" if domains are."""
    if not named:
        return "No image has a domain, so that none is left out; a table names it in its column `domain`."
    if len(named) == 1:
        return (
            f"All images that have a domain are of one, {named[0]}: leaving it out would leave nothing to learn from, "
            "and nothing can be said about another camera or site."
        )
    if not settings.most:
        return f"domains.most is 0: none of the {len(named)} domains is left out."
    return ""


def not_left_out(named: list[str], parts: dict[str, Part], settings: Domains) -> dict[str, str]:
    """Return {domain: why it is not left out}: too few test images, nothing to learn from without it, too many."""
    why, n_test = {}, {name: int((parts["test"].domains == name).sum()) for name in named}
    for name in named:
        if n_test[name] < settings.min_test_images:
            why[name] = f"{n_test[name]} test images, domains.min_test_images is {settings.min_test_images}"
        elif any((parts[split].domains == name).all() for split in ("train", "validation")):
            why[name] = "without it no image is left to learn from"
    left = sorted((name for name in named if name not in why), key=lambda name: (-n_test[name], name))
    return why | dict.fromkeys(left[settings.most :], f"domains.most is {settings.most}")


def unknown_classes(names: list[str], training: Part) -> dict[str, list[str]]:
    """Return {domain: classes that only it has}, which a model that never saw it cannot know."""
    classes = read_json(SPLIT / "classes.json")
    found = {}
    for name in names:
        others = set(training.labels[training.domains != name].tolist())
        found[name] = [label for index, label in enumerate(classes) if index not in others]
    return found


if __name__ == "__main__":
    run_stage(run)
