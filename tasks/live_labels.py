"""Labels that come later, joined to the answers that a server kept: the accuracy in use, with its interval."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kinglet.atomic import write_json
from kinglet.errors import KingletError
from kinglet.evidence.live_accuracy import live_accuracy
from kinglet.runtime.sketches import reference_from
from tasks.artifacts import MONITOR
from tasks.parameters import Parameters
from tasks.sketch_files import ANSWERS, REFERENCE, Files, files_in, read_reference_file

RESULT = MONITOR / "live_accuracy.json"
HINT = "The first line names the columns: id (the answer's X-Request-Id), label, and image (its number) if need be."

# (id of the request, number of the image in it)
Key = tuple[str, int]


def accuracy_in_use(labels_file: Path, parameters: Parameters) -> dict[str, Any]:
    """Return and write the accuracy of every model whose answers now have labels.

    labels_file: CSV with the columns id and label, and image where a request had several.
    Raises KingletError if the file cannot be understood, no label belongs to a kept answer, or one is no class.
    """
    labels = read_labels(labels_file)
    files = files_in(parameters.monitor.sketches)
    answers, repeated = read_answers(files, set(labels))
    if not answers:
        refuse_other_problems(files, parameters.monitor.sketches)
        raise KingletError(
            f"None of {len(labels):,} labels in {labels_file} belongs to an answer in {parameters.monitor.sketches}.",
            "Let the server keep its answers: `kinglet serve BUNDLE --monitor FOLDER --monitor-answers all`.",
        )
    by_model: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for key, row in answers.items():
        by_model.setdefault((row["model"], row["version"], row["reference"]), []).append((row["class"], labels[key]))
    result = {
        "labels": len(labels),
        "without_answer": len(labels) - len(answers) - len(repeated),
        "ambiguous": len(repeated),
        "models": [
            model_accuracy(files, key, pairs, labels_file, parameters) for key, pairs in sorted(by_model.items())
        ],
    }
    write_json(RESULT, result)
    return result


def refuse_other_problems(files: Files, place: str) -> None:
    """Raise KingletError if servers wrote there of models alone whose answers are no single classes."""
    found = [reference_from(files.read(name), name) for name in files.names() if name.startswith(REFERENCE)]
    problems = sorted({reference.problem for reference in found if not reference.watched.has_probabilities})
    if problems and len(problems) == len({reference.problem for reference in found}):
        raise KingletError(
            f"The models that servers watched in {place} are for {' and '.join(problems)}: the accuracy in use is "
            "known of models that sort into classes only.",
            "Score such models on labelled data: `kinglet run`.",
        )


def model_accuracy(
    files: Files,
    key: tuple[str, str, str],
    pairs: Sequence[tuple[str, str]],
    labels_file: Path,
    parameters: Parameters,
) -> dict[str, Any]:
    """Return the accuracy of one model. pairs: (answered class, label)."""
    model, version, digest = key
    reference = read_reference_file(files, digest)
    unknown = sorted({label for _, label in pairs} - set(reference.classes))
    if unknown:
        raise KingletError(
            f"{labels_file}: {', '.join(map(repr, unknown[:5]))} is no class of {model}, version {version}.",
            f"Its classes are {', '.join(reference.classes[:20])}.",
        )
    confidence = parameters.evaluate.confidence
    found = live_accuracy(
        sum(answer == label for answer, label in pairs),
        len(pairs),
        reference.n_right,
        reference.n_test,
        margin=parameters.select.max_accuracy_drop,
        min_labels=parameters.monitor.min_labels,
        confidence=confidence,
    )
    return {
        "model": model,
        "version": version,
        "labels": len(pairs),
        "confidence": confidence,
        "test_images": reference.n_test,
        **{
            name: value if isinstance(value, str) else {part: round(number, 6) for part, number in value.items()}
            for name, value in asdict(found).items()
        },
    }


def read_labels(path: Path) -> dict[Key, str]:
    """Return {(id, number of the image): label} of a CSV file; raises KingletError that names the line."""
    labels: dict[Key, str] = {}
    for line, row in rows_of(path):
        if not row["id"] or not row["label"]:
            raise KingletError(f"{path}, line {line}: id or label is empty.", HINT)
        number = row.get("image") or "0"
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise KingletError(f"{path}, line {line}: image is {number!r}; it is a number from 0 on.", HINT)
        key = row["id"], int(number)
        if labels.setdefault(key, row["label"]) != row["label"]:
            raise KingletError(f"{path}, line {line}: {row['id']!r} has another label before.", "Leave one of them.")
    if not labels:
        raise KingletError(f"{path} holds no labels.", HINT)
    return labels


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line and its cells by column; raises KingletError if it is no such CSV file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise KingletError(f"{path} does not exist.", HINT) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise KingletError(f"{path} is no UTF-8 text file.", HINT) from None
    reader = csv.DictReader(io.StringIO(text))
    lacking = [name for name in ("id", "label") if name not in (reader.fieldnames or [])]
    if lacking:
        raise KingletError(f"{path} has no column {' and no column '.join(lacking)}.", HINT)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise KingletError(f"{path}, line {reader.line_num}: not as many cells as columns.", HINT)
            yield reader.line_num, row
    except csv.Error as error:
        raise KingletError(f"{path}, line {reader.line_num}: {error}.", HINT) from None


def read_answers(files: Files, wanted: set[Key]) -> tuple[dict[Key, dict[str, str]], set[Key]]:
    """Return the kept answers with these keys, and the keys that two answers have, whose label may be either's."""
    found: dict[Key, dict[str, str]] = {}
    repeated: set[Key] = set()
    for name in files.names():
        if not name.startswith(ANSWERS):
            continue
        try:
            for row in csv.DictReader(io.StringIO(files.read(name).decode())):
                key = row["id"], int(row["image"])
                if key in found:
                    repeated.add(key)
                elif key in wanted:
                    found[key] = {part: row[part] for part in ("class", "model", "version", "reference")}
        except (UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError):
            raise KingletError(f"{name} holds no answers of a server.", "Remove it if it is damaged.") from None
    return {key: row for key, row in found.items() if key not in repeated}, repeated
