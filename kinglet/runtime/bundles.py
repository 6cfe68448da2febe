"""The bundle: a folder with everything a served model needs, sealed by checksums."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import write_text
from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from kinglet.runtime.preprocessing import Preprocessing

MODEL, PREPROCESSING, LABELS, GOLDEN, CARD = (
    "model.onnx",
    "preprocessing.json",
    "labels.json",
    "golden.npz",
    "MODEL_CARD.md",
)
# The model for x86 processors without VNNI, where there is one (kinglet.runtime.vnni).
WITHOUT_VNNI = "model-without-vnni.onnx"
# Beside the model of clips, which then sees single frames: the part that carries them on (kinglet.runtime.recurrence).
RECURRENT = "recurrent.onnx"
# What the model was made with, for monitoring (kinglet.runtime.sketches); bundles from before it have none.
REFERENCE = "reference.json"
CHECKSUMS = "SHA256SUMS"
NEEDED = (PREPROCESSING, LABELS)
# The key of preprocessing.json that names the runtime; files that lack it are for ONNX Runtime.
RUNTIME = "runtime"

# The key of preprocessing.json that counts the changes to what a bundle holds; files that lack it are of format 1.
# Bundles for clips are of format 4, of detectors and segmenters of format 3, others whose model takes pixels of
# format 2; all others stay of format 1, which earlier versions open too.
FORMAT_KEY, FORMAT = "format", 4
# The keys of preprocessing.json that say what a model answers with, and from which score a detector's boxes count.
# Files that lack the first are of classifiers.
PROBLEM, THRESHOLDS = "problem", "thresholds"
CLASSIFICATION, DETECTION, SEGMENTATION, VIDEO = PROBLEMS = ("classification", "detection", "segmentation", "video")
FORMATS = {DETECTION: 3, SEGMENTATION: 3, VIDEO: 4}
# The key for clips: how many frames they have, and how many per second.
CLIP = "clip"
# The files beside the model that a problem needs.
NEEDED_BY = {VIDEO: (RECURRENT,)}

# What golden.npz calls the images, and the clips, packed as the model takes them.
GOLDEN_IMAGES, GOLDEN_CLIPS = "images", "clips"
# The golden probabilities of processors that add 8-bit products exactly, and those of x86 without VNNI.
EXACT, SATURATED = "probabilities", "probabilities_without_vnni"
# And those of detectors: objects as rows of a table (kinglet.runtime.golden_detections).
EXACT_DETECTIONS, SATURATED_DETECTIONS = "detections", "detections_without_vnni"
# And those of segmenters: the classes of all pixels, uint8 (n, input_size, input_size). Beside each stands the share of
# an image's pixels that may be of another class.
EXACT_MASKS, SATURATED_MASKS = "masks", "masks_without_vnni"
MASK_TOLERANCES = {EXACT_MASKS: "tolerance", SATURATED_MASKS: "tolerance_without_vnni"}
# Of these a golden file has one where the model computes in 8 bits.
SATURATED_ANSWERS = (SATURATED, SATURATED_DETECTIONS, SATURATED_MASKS)
# How far answers may be from the golden ones, where it is not the tolerance below.
TOLERANCE = "tolerance"

# ONNX Runtime picks its kernels by the processor; floats are rounded differently.
GOLDEN_TOLERANCE = 1e-3
# Emulated answers may be a step of the quantized logits away, where a tie is rounded the other way.
EMULATED_TOLERANCE = 2e-2
# Other runtimes choose among more ways to compute in 8 bits, which may be a step of the quantized logits apart.
INT8_TOLERANCE = 5e-2


def seal(folder: Path) -> None:
    """Write SHA256SUMS over all files of `folder`, in the format of `sha256sum --check`."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS
    )
    write_text(folder / CHECKSUMS, "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names))


def verify(folder: Path) -> list[str]:
    """Check that the bundle is whole and unchanged; return the names of its files.

    Raises KingletError that names the first file which is missing, changed or unlisted.
    """
    hint = "Copy the bundle again, or make it anew with `dvc repro bundle`."
    if not folder.is_dir():
        raise KingletError(f"The bundle {folder} does not exist.", "Make it with `dvc repro bundle`.")
    if not (folder / CHECKSUMS).is_file():
        raise KingletError(f"{folder} is no finished bundle: {CHECKSUMS} is missing.", hint)
    listed = read_checksums(folder / CHECKSUMS)
    refuse_unlisted(NEEDED, folder, listed)
    for name, expected in listed.items():
        if not (folder / name).is_file():
            raise KingletError(f"{folder / name} is missing from the bundle.", hint)
        if sha256_of(folder / name) != expected:
            raise KingletError(f"{folder / name} is not what {CHECKSUMS} says: the file was changed or damaged.", hint)
    refuse_newer(folder)
    refuse_unlisted(RUNTIMES[runtime_of(folder)].files, folder, listed)
    refuse_unlisted(NEEDED_BY.get(problem_of(folder), ()), folder, listed)
    return list(listed)


def format_of(preprocessing: Preprocessing, problem: str = CLASSIFICATION) -> int:
    """Return the format of a bundle whose model has this preprocessing and solves this problem."""
    return FORMATS.get(problem, 2 if preprocessing.takes_pixels else 1)


def tolerance_of_converted(precision: str) -> float:
    """Return how far a converted model's golden probabilities may be off; precision: "fp32" or "int8"."""
    return INT8_TOLERANCE if precision == "int8" else GOLDEN_TOLERANCE


def refuse_unlisted(names: tuple[str, ...], folder: Path, listed: dict[str, str]) -> None:
    """Raise KingletError for the first name that a bundle's checksums lack."""
    for name in names:
        if name not in listed:
            raise KingletError(f"{folder / CHECKSUMS} does not list {name}.", "Make it anew with `dvc repro bundle`.")


def refuse_newer(folder: Path) -> None:
    """Raise KingletError for a bundle of a format that this version of Kinglet does not know."""
    facts = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
    found = facts.get(FORMAT_KEY, FORMAT)
    if found not in range(1, FORMAT + 1):
        raise KingletError(
            f"{folder} is a bundle of format {found!r}; this version of Kinglet reads up to format {FORMAT}.",
            "Open it with the version of Kinglet that made it, or a newer one.",
        )


def runtime_of(folder: Path) -> str:
    """Return the runtime that a bundle's model is for, a key of `RUNTIMES`.

    Raises KingletError if this version of Kinglet does not know it.
    """
    facts = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
    runtime = str(facts.get(RUNTIME, ONNXRUNTIME))
    if runtime not in RUNTIMES:
        raise KingletError(
            f"{folder / PREPROCESSING} names the runtime {runtime!r}; known here: {', '.join(RUNTIMES)}.",
            "Open the bundle with the version of Kinglet that made it, or a newer one.",
        )
    return runtime


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the content of a bundle's preprocessing.json."""
    facts: dict[str, Any] = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
    return facts


def problem_of(folder: Path) -> str:
    """Return what a bundle's model answers with, one of PROBLEMS.

    Raises KingletError if this version of Kinglet does not know it.
    """
    problem = str(facts_of(folder).get(PROBLEM, CLASSIFICATION))
    if problem not in PROBLEMS:
        raise KingletError(
            f"{folder / PREPROCESSING} names the problem {problem!r}; known here: {', '.join(PROBLEMS)}.",
            "Open the bundle with the version of Kinglet that made it, or a newer one.",
        )
    return problem


def read_checksums(path: Path) -> dict[str, str]:
    """Return {file name: SHA-256} of a checksum file.

    Raises KingletError that names the line which is not of the format.
    """
    checksums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not name or name.startswith("/") or ".." in Path(name).parts:
            raise KingletError(f"{path}, line {number}: not a checksum and a file name.", "Make the bundle anew.")
        checksums[name] = digest
    return checksums


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the arrays as an .npz archive whose bytes depend on nothing else.

    `numpy.savez` writes the time of day into the archive; here every entry is dated 1980.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            information = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            opened.writestr(information, entry.getvalue(), zipfile.ZIP_DEFLATED)
    return archive.getvalue()
