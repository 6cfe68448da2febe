"""Step `label_errors`: images whose label is probably wrong, by the answers of models that never saw them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kinglet.atomic import read_json, write_json, write_text
from kinglet.data.label_corrections import KEEP, read_corrections
from kinglet.evidence.confident_learning import find_label_errors
from tasks.artifacts import LABEL_ERROR_COUNTS, OUT_OF_FOLD, POOL_FOLDS, SPLIT, SUSPICIOUS_LABELS
from tasks.parameters import Parameters
from tasks.stage import run_stage

# Problems whose images have no label of their own, and what the counts say of them.
WITHOUT_LABELS = {"segmentation": "Pixels whose class is probably wrong are not looked for in masks."}
COLUMNS = ("index", "path", "label", "likely_label", "confidence", "label_confidence")


def run(parameters: Parameters) -> None:
    """Write suspicious.csv, the most suspicious first, and counts.json; without folds both say that there is nothing.

    So they do for masks, whose wrong pixels are not looked for. Images that `data.label_corrections` says to keep are
    not listed again.
    """
    classes: list[str] = read_json(SPLIT / "classes.json")
    kept = {item.path for item in read_corrections(parameters.data.label_corrections) if item.decision == KEEP}
    counts: dict[str, Any] = {"n": 0, "suspicious": 0, "estimated": 0, "kept": 0, "by_class": {}}
    rows: list[dict[str, Any]] = []
    if parameters.network in WITHOUT_LABELS:
        counts["note"] = WITHOUT_LABELS[parameters.network]
    elif len(answers := pa.parquet.read_table(OUT_OF_FOLD)):
        unseen = [classes.index(name) for name in read_json(POOL_FOLDS / "scores.json")["classes_in_one_fold"]]
        rows, counts = suspicious(answers, classes, unseen, kept)
    write_rows(SUSPICIOUS_LABELS, rows)
    write_json(LABEL_ERROR_COUNTS, counts)


def suspicious(
    answers: pa.Table, classes: list[str], unseen: list[int], kept: set[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of suspicious.csv and what counts.json holds.

    answers: as in out_of_fold.parquet. unseen: classes whose images are left out, as no model that answered knew them.
    kept: paths of images that a person has looked at.
    """
    labels = answers["label"].to_numpy().astype(np.int64)
    answers = answers.filter(pa.array(~np.isin(labels, unseen)))
    labels = answers["label"].to_numpy().astype(np.int64)
    values = answers["probabilities"].combine_chunks()
    probabilities = values.flatten().to_numpy().reshape(len(labels), len(classes))
    found = find_label_errors(labels, probabilities)
    paths, index = answers["path"].to_pylist(), answers["index"].to_numpy()
    rows = [
        {
            "index": int(index[row]),
            "path": paths[row],
            "label": classes[labels[row]],
            "likely_label": classes[likely],
            "confidence": round(float(probabilities[row, likely]), 4),
            "label_confidence": round(float(probabilities[row, labels[row]]), 4),
        }
        for row, likely in zip(found.rows, found.likely, strict=True)
        if paths[row] not in kept
    ]
    by_class = {
        name: {
            "n": int((labels == label).sum()),
            "suspicious": sum(row["label"] == name for row in rows),
            "estimated": round(float(found.joint[label].sum() - found.joint[label, label]), 1),
        }
        for label, name in enumerate(classes)
        if label not in unseen
    }
    return rows, {
        "n": len(labels),
        "suspicious": len(rows),
        "estimated": round(found.estimated, 1),
        "kept": len(found.rows) - len(rows),
        "by_class": by_class,
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows as CSV."""
    written = io.StringIO()
    writer = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, written.getvalue())


if __name__ == "__main__":
    run_stage(run)
